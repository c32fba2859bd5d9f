"""Apache Kafka on this machine: one node, its data kept in a folder, on loopback only."""

import asyncio
import base64
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Self

import structlog

from deeplens_streams.embedded_kafka import complaints
from deeplens_streams.embedded_kafka.astray import (
    DATA,
    LOG4J,
    LOGS,
    META,
    PROPERTIES,
    bring_home,
    log_dirs,
)
from deeplens_streams.embedded_kafka.jars import Progress, class_path, kafka_jars
from deeplens_streams.embedded_kafka.java import find_java
from deeplens_streams.embedded_kafka.properties import (
    JVM_FLAGS,
    log4j2_properties,
    server_properties,
)
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.host.guarded_process import GuardedProcess
from deeplens_streams.host.ports import PORTS, Ports, choose_ports, is_free

log = structlog.get_logger()

#: How long a start may take on a slow machine with much to recover.
START_DEADLINE_S = 90.0
#: How long Kafka has to write what it holds before it is killed; it survives that as well.
STOP_GRACE_S = 4.0
_POLL_S = 0.05
_FORMAT = ("kafka.tools.StorageTool", "format", "--ignore-formatted", "--config")


class KafkaDidNotStart(ConfigurationError):
    """Kafka did not start; look into its log."""

    code = "KAFKA_DID_NOT_START"


class KafkaEnded(KafkaDidNotStart):
    """Kafka ended at its start; look into its log.

    Attributes
    ----------
    errors : lines of its log.
    """

    def __init__(self, message: str | None = None, *, errors: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class KafkaServer:
    """One Kafka, from `start` to `stop`; or a context manager for both.

    Neither the terminal's Ctrl-C nor this process's death by SIGKILL leaves it running: the
    first does not reach it, the second ends it.

    Parameters
    ----------
    folder : keeps everything of it; made when missing. A second start finds its topics.
    port : where clients connect. Default: a free one that the folder remembers.
    progress : told about the jars, if any have to be fetched.
    sync : whether what it acknowledges survives a power cut.
    say : told of what an earlier version left elsewhere. Default: it goes to the log.
    hold : descriptors to keep open until Kafka has ended, such as a folder's lock.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        sync: bool = True,
        progress: Progress | None = None,
        say: Callable[[str], None] = log.warning,
        hold: Sequence[int] = (),
    ) -> None:
        self.folder = folder.absolute()
        self._wanted_port, self._sync = port, sync
        self._progress, self._say = progress, say
        self._hold = hold
        self._ports: Ports | None = None
        self._java: list[str | Path] | None = None
        self._process: GuardedProcess | None = None
        self._stopping = threading.Event()
        #: Bytes of the log that earlier runs wrote.
        self._logged_before = 0

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:port``, for clients; known once prepared or started."""
        assert self._ports is not None, "neither prepared nor started"
        return f"127.0.0.1:{self._ports.broker}"

    @property
    def log_path(self) -> Path:
        return self.folder / LOGS / "kafka.log"

    @property
    def pid(self) -> int:
        """The process ID of Kafka's guard, whose only child it is."""
        assert self._process is not None, "not started"
        return self._process.pid

    def prepare(self) -> None:
        """Find all that is needed and choose the port, so that `bootstrap` is known.

        Raises
        ------
        JavaMissing, JarsUnavailable
            What it runs on cannot be had.
        DataAstray
            An earlier version kept its data elsewhere, and it cannot be brought here.
        KafkaDidNotStart
            The port is taken or the folder cannot be written.
        """
        java = find_java().path.absolute()
        jars = kafka_jars(self._progress)
        if self._wanted_port is not None and not is_free(self._wanted_port):
            raise KafkaDidNotStart(f"Port {self._wanted_port} is taken; choose another for Kafka.")
        try:
            (self.folder / LOGS).mkdir(parents=True, exist_ok=True)
            for moved in bring_home(self.folder):
                self._say(moved)
            self._write_configuration()
            classes = class_path(jars, self.folder)
        except OSError as error:
            raise KafkaDidNotStart(
                f"Kafka cannot keep its data in {self.folder}: {error.strerror}."
            ) from None
        self._java = [
            java,
            *JVM_FLAGS,
            "-cp",
            classes,
            f"-Dlog4j2.configurationFile={LOG4J}",
        ]

    def start(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Start Kafka and return when it takes requests; prepares it if that is to be done.

        Raises
        ------
        KafkaDidNotStart
            Kafka ended, or `deadline_s` seconds passed. Nothing is left running. And what
            `prepare` raises.
        """
        if self._java is None:
            self.prepare()
        assert self._java is not None
        try:
            if not (self.folder / DATA / META).exists():
                self._format([*self._java, *_FORMAT, PROPERTIES])
            self._process = self._spawn([*self._java, "kafka.Kafka", PROPERTIES])
            asyncio.run(self._wait_until_ready(time.monotonic() + deadline_s))
        except BaseException:
            self.kill()
            self.stop()
            raise
        log.info("kafka started", bootstrap=self.bootstrap, folder=str(self.folder))

    def stop(self) -> None:
        """Stop Kafka and return when it is gone; a second call does nothing."""
        self._stopping.set()
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End Kafka at once; `stop` still has to follow."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def last_words(self) -> str:
        """Return the line of this run's logs that most likely says why it ended."""
        return complaints.last_words([line for log in self._logs() for line in log])

    def _logs(self) -> tuple[list[str], list[str]]:
        log = complaints.lines(self.log_path, self._logged_before)
        return log, complaints.lines(self._output)

    @property
    def _output(self) -> Path:
        """What the JVM itself says, before and beside log4j."""
        return self.folder / LOGS / "stdout.log"

    def _write_configuration(self) -> None:
        self._ports = choose_ports(self.folder / PORTS, self._wanted_port)
        text = server_properties(
            log_dirs(self.folder),
            port=self._ports.broker,
            controller_port=self._ports.controller,
            sync=self._sync,
        )
        (self.folder / PROPERTIES).write_text(text, "ascii")
        text = log4j2_properties(PurePosixPath(LOGS))
        (self.folder / LOG4J).write_text(text, "ascii")
        self._output.write_bytes(b"")
        self._logged_before = self.log_path.stat().st_size if self.log_path.exists() else 0

    def _spawn(self, command: Sequence[str | Path]) -> GuardedProcess:
        if self._stopping.is_set():
            raise KafkaDidNotStart("Kafka's start was called off.")
        return GuardedProcess(
            command,
            log=self._output,
            folder=self.folder,
            # Java knows the names of files by the locale alone, and Kafka asks where it runs.
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            grace_s=STOP_GRACE_S,
            hold=self._hold,
        )

    def _format(self, command: Sequence[str | Path]) -> None:
        """Prepare the data folder of a Kafka that never ran."""
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One word: an ID that begins with "-" would be taken for an option.
        self._process = self._spawn([*command, f"--cluster-id={cluster}"])
        status = self._process.wait()
        self._process.stop()
        if status != 0:
            raise KafkaDidNotStart(f"Kafka could not prepare its folder: {self.last_words()}")

    async def _wait_until_ready(self, deadline: float) -> None:
        """Return when the broker names itself as part of the cluster."""
        assert self._ports is not None
        while not _accepts(self._ports.broker):
            await self._pause(deadline)
        # Imported while the JVM starts, which takes longer.
        from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        while True:
            admin = AIOKafkaAdminClient(
                bootstrap_servers=self.bootstrap, request_timeout_ms=2000, client_id="deeplens-up"
            )
            try:
                await admin.start()
                if (await admin.describe_cluster())["brokers"]:
                    return
            except (KafkaError, OSError, TimeoutError):
                pass  # not yet
            finally:
                await admin.close()
            await self._pause(deadline)

    async def _pause(self, deadline: float) -> None:
        assert self._process is not None
        if self._stopping.is_set():
            raise KafkaDidNotStart("Kafka's start was called off.")
        if self._process.poll() is not None:
            errors = [line for log in self._logs() for line in complaints.errors(log)]
            raise KafkaEnded(f"Kafka ended at its start: {self.last_words()}", errors=errors)
        if time.monotonic() > deadline:
            raise KafkaDidNotStart(f"Kafka does not answer; its log is {self.log_path}.")
        await asyncio.sleep(_POLL_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
