"""A real Kafka for the whole run, and workers as processes of their own."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deeplens_streams.embedded_kafka.server import KafkaServer
from deeplens_streams.host.ports import free_port
from tests.support.fault_injection import StubExtractor
from tests.support.system import Extractor, System

#: What a picture takes where there is no model: as with one, many are on their way at any moment.
STUB_MS = 500.0


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Extractor]:
    """An extraction service with the real, untrained network, shared by the workers."""
    service = Extractor(tmp_path_factory.mktemp("extractor"), free_port())
    service.start()
    asyncio.run(service.until_ready())
    yield service
    service.stop()


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubExtractor]:
    service = StubExtractor(tmp_path_factory.mktemp("stub"), free_port(), sleep_ms=STUB_MS)
    service.start()
    asyncio.run(service.until_ready())
    yield service
    service.stop()


@asynccontextmanager
async def _system(kafka: KafkaServer, folder: Path, extractor_url: str) -> AsyncIterator[System]:
    """Yield workers of one test, with topics, groups and folders of their own."""
    system = System(
        broker=f"kafka://{kafka.bootstrap}",
        namespace=f"t{uuid.uuid4().hex[:10]}",
        folder=folder,
        extractor_url=extractor_url,
    )
    try:
        yield system
    finally:
        await system.close()


@pytest.fixture
async def system(kafka: KafkaServer, extractor: Extractor, tmp_path: Path) -> AsyncIterator[System]:
    async with _system(kafka, tmp_path, extractor.url) as system:
        yield system


@pytest.fixture
async def crowded(kafka: KafkaServer, stub: StubExtractor, tmp_path: Path) -> AsyncIterator[System]:
    """Yield the same without a model, for tests that send many pictures."""
    async with _system(kafka, tmp_path, stub.url) as system:
        yield system
