"""A Kafka and an extraction service of each test's own: they are killed here."""

import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deeplens_streams.embedded_kafka.server import KafkaServer
from deeplens_streams.host.ports import free_port
from tests.support.fault_injection import StubExtractor
from tests.support.programs import program
from tests.support.s3_server import S3Server
from tests.support.system import System


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    server = KafkaServer(tmp_path / "kafka")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[StubExtractor]:
    service = StubExtractor(tmp_path / "stub", free_port())
    service.start()
    await service.until_ready()
    yield service
    service.stop()


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """One that may be killed, with the bucket ``pictures``."""
    server = S3Server(tmp_path / "s3")
    server.bucket("pictures")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def system(
    own_kafka: KafkaServer, stub: StubExtractor, tmp_path: Path
) -> AsyncIterator[System]:
    made = System(
        broker=f"kafka://{own_kafka.bootstrap}",
        namespace=f"f{uuid.uuid4().hex[:8]}",
        folder=tmp_path,
        extractor_url=stub.url,
    )
    try:
        yield made
    finally:
        await made.close()


#: Of the small disk.
DISK_MB = 900


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    size = f"size={DISK_MB}m"
    subprocess.run(
        [program("small disk"), "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True
    )
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
