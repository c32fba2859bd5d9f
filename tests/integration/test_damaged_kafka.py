"""What `deeplens up` does with the Kafka of its folder where that ends at its start."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deeplens_streams.cli.console import err
from deeplens_streams.cli.local_system import System
from deeplens_streams.cli.startup_progress import Steps
from deeplens_streams.config import load_settings
from deeplens_streams.embedded_kafka import KafkaServer, properties, server
from deeplens_streams.embedded_kafka.server import KafkaEnded

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

TOPIC, RECORDS = "t", 20
SEGMENT = "data/t-0/00000000000000000000.log"


async def fill(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for number in range(RECORDS):
            await producer.send_and_wait(TOPIC, b"%d" % number)


async def records(bootstrap: str) -> list[int]:
    async with AIOKafkaConsumer(
        TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        found: list[int] = []
        while len(found) < RECORDS:
            found.append(int((await consumer.getone()).value))
        return found


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a Kafka with some records, which was stopped in order."""
    folder = tmp_path_factory.mktemp("stopped") / "kafka"
    with KafkaServer(folder) as kafka:
        asyncio.run(fill(kafka.bootstrap))
    assert (folder / "data" / ".kafka_cleanshutdown").exists()
    return folder


class Home:
    """A data folder with that Kafka, and its part of `deeplens up`."""

    def __init__(self, stopped: Path, data: Path) -> None:
        shutil.copytree(stopped, data / "kafka")
        self.kafka = data / "kafka"
        self.settings = load_settings(data_dir=data)
        self.system = self._made()

    def _made(self) -> System:
        return System(self.settings, Steps(err()))

    def start(self) -> str:
        """Start Kafka, and return where it answers."""
        self.system = self._made()
        self.system._start_kafka()
        return self.system._kafka.bootstrap

    def aside(self) -> list[str]:
        return sorted(path.name for path in self.kafka.glob("*.damaged-*"))


@pytest.fixture
def home(stopped: Path, tmp_path: Path) -> Iterator[Home]:
    made = Home(stopped, tmp_path)
    yield made
    made.system.stop()


def test_another_reason_moves_nothing_and_the_next_start_has_every_record(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed, with zeros behind its last record; then its virtual machine cannot start."""
    (home.kafka / "data" / ".kafka_cleanshutdown").unlink()
    with (home.kafka / SEGMENT).open("ab") as file:
        file.write(bytes(4096))
    size = (home.kafka / SEGMENT).stat().st_size
    with monkeypatch.context() as broken:
        broken.setattr(server, "JVM_FLAGS", (*properties.JVM_FLAGS, "-XX:+NoSuchOption"))
        with pytest.raises(KafkaEnded, match="ended at its start"):
            home.start()
    assert home.aside() == []
    assert (home.kafka / SEGMENT).stat().st_size == size
    assert asyncio.run(records(home.start())) == list(range(RECORDS))
    assert home.aside() == []


def test_zeros_behind_an_orderly_stop_are_cut_off_and_no_record_goes(home: Home) -> None:
    with (home.kafka / SEGMENT).open("ab") as file:
        file.write(bytes(4096))
    assert asyncio.run(records(home.start())) == list(range(RECORDS))
    assert home.aside() == []


@pytest.mark.parametrize("name", ["t-0/partition.metadata", "recovery-point-offset-checkpoint"])
def test_what_kafka_ends_by_is_put_aside_whole(home: Home, name: str) -> None:
    file = home.kafka / "data" / name
    size = 0 if name.startswith("t-0/") else file.stat().st_size - 3
    os.truncate(file, size)
    before = (home.kafka / SEGMENT).read_bytes()
    bootstrap = home.start()
    (kept,) = home.aside()
    if name.startswith("t-0/"):
        assert (home.kafka / kept / "t-0" / "00000000000000000000.log").read_bytes() == before
    else:
        assert (home.kafka / kept).stat().st_size == size
        assert asyncio.run(records(bootstrap)) == list(range(RECORDS))
