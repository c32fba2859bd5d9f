"""Three Kafka brokers on this machine, that are one cluster."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient

from deeplens_streams.embedded_kafka.server import KafkaServer
from deeplens_streams.host.ports import Ports, free_port
from tests.support.system import until

CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"
#: As docker/compose.yaml has it for production.
REPLICATED = {
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
    "offsets.topic.replication.factor": 3,
    "transaction.state.log.replication.factor": 3,
    "transaction.state.log.min.isr": 2,
    "share.coordinator.state.topic.replication.factor": 3,
    "share.coordinator.state.topic.min.isr": 2,
}
#: Seconds that a broker has to have every replica up to date again.
CATCH_UP_S = 90


class Broker(KafkaServer):
    """One of several: broker and controller at ports that the others know."""

    def __init__(self, folder: Path, number: int, ports: Sequence[Ports]) -> None:
        super().__init__(folder, port=ports[number].broker)
        self._number, self._all = number, ports

    def _write_configuration(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "ports.json").write_text(json.dumps(self._all[self._number]._asdict()))
        super()._write_configuration()
        voters = [f"{id_}@127.0.0.1:{each.controller}" for id_, each in enumerate(self._all, 1)]
        more: dict[str, Any] = {
            **REPLICATED,
            "node.id": self._number + 1,
            "controller.quorum.voters": ",".join(voters),
        }
        with (self.folder / "server.properties").open("a") as properties:  # the last one counts
            properties.writelines(f"{name}={value}\n" for name, value in more.items())

    def _format(self, command: Sequence[str | Path]) -> None:
        self._process = self._spawn([*command, f"--cluster-id={CLUSTER_ID}"])
        assert self._process.wait() == 0, self.last_words()
        self._process.stop()


class Cluster:
    """Three brokers, of which one may be killed and brought back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [Ports(free_port(), free_port()) for _ in range(3)]
        self._brokers = [self._broker(number) for number in range(3)]

    def _broker(self, number: int) -> Broker:
        return Broker(self._folder / f"broker-{number + 1}", number, self._ports)

    @property
    def urls(self) -> str:
        """What DEEPLENS_BROKER is."""
        return ";".join(f"kafka://127.0.0.1:{each.broker}" for each in self._ports)

    async def __aenter__(self) -> Self:
        try:  # none is ready before a second one is there
            await asyncio.gather(*(asyncio.to_thread(each.start) for each in self._brokers))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(asyncio.to_thread(each.stop) for each in self._brokers))

    async def kill(self, number: int) -> None:
        """SIGKILL one broker."""
        self._brokers[number].kill()
        await asyncio.to_thread(self._brokers[number].stop)

    async def bring_back(self, number: int) -> None:
        """Start it on its data, and return when all three have every record."""
        self._brokers[number] = self._broker(number)
        await asyncio.to_thread(self._brokers[number].start)

        async def all_in_sync() -> bool:
            return all(len(each["isr"]) == 3 for each in await self.partitions())

        await until(all_in_sync, "all replicas are in sync", seconds=CATCH_UP_S, poll_s=0.5)

    async def partitions(self) -> list[dict[str, Any]]:
        """Return every partition of every topic, Kafka's own included."""
        servers = [f"127.0.0.1:{each.broker}" for each in self._ports]
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            topics = await admin.describe_topics()
        finally:
            await admin.close()
        return [partition for topic in topics for partition in topic["partitions"]]
