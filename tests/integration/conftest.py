"""A real Kafka for the whole run, and workers as processes of their own."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deeplens_streams.kafka.ports import free_port
from deeplens_streams.kafka.server import KafkaServer
from tests.integration.system import Extractor, System


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


@pytest.fixture
async def system(kafka: KafkaServer, extractor: Extractor, tmp_path: Path) -> AsyncIterator[System]:
    """Workers of one test, with topics, groups and folders of their own."""
    system = System(
        broker=f"kafka://{kafka.bootstrap}",
        namespace=f"t{uuid.uuid4().hex[:10]}",
        folder=tmp_path,
        extractor_url=extractor.url,
    )
    try:
        yield system
    finally:
        await system.close()
