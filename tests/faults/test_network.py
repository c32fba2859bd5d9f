"""The network to Kafka is slow, breaks connections, and is cut: nothing is lost."""

import asyncio
import uuid
from pathlib import Path

import pytest

from deeplens_streams.broker import codec
from deeplens_streams.broker.topology import COMPLETED
from deeplens_streams.host.ports import free_port
from models.events import ProcessingCompleted
from tests.faults.outages import MAX_LINES, STAGES, lines_of
from tests.faults.proxy import ProxiedKafka, Proxy
from tests.support.fault_injection import StubExtractor, small_pictures
from tests.support.pipeline import count_points, read_all
from tests.support.system import System
from tests.support.uploads import TENANT, Uploader

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

UPLOADS, CUT_S = 300, 40


@pytest.mark.needs("toxiproxy-server")
async def test_slow_broken_and_cut(stub: StubExtractor, tmp_path: Path) -> None:
    port = free_port()
    kafka = ProxiedKafka(tmp_path / "kafka", proxy_port=port)
    await asyncio.to_thread(kafka.start)
    proxy = Proxy(tmp_path, port=port, upstream_port=kafka.behind_port)
    system = System(
        broker=f"kafka://127.0.0.1:{port}",
        namespace=f"n{uuid.uuid4().hex[:8]}",
        folder=tmp_path,
        extractor_url=stub.url,
    )
    try:
        await proxy.start()
        worker = await system.started("one")
        begin = len(worker.log())
        uploader = Uploader([worker])
        uploads = asyncio.create_task(uploader.send(small_pictures(UPLOADS), per_second=4))
        await proxy.add("latency", latency=200, jitter=50)
        await asyncio.sleep(15)
        await proxy.remove("latency")
        for _ in range(3):
            await proxy.add("reset_peer", timeout=500)
            await asyncio.sleep(2)
            await proxy.remove("reset_peer")
            await asyncio.sleep(3)
        await proxy.cut(CUT_S)
        book = await uploads
        said = lines_of(worker, begin)
        client = system.client(worker, TENANT)
        ids = list(book.accepted.values())
        assert len(ids) == UPLOADS
        states = await client.until_final(ids, seconds=60, poll_s=0.2)
        assert set(states.values()) == {"completed"}
        assert said.total() <= 3 * MAX_LINES * STAGES, said

        await system.close()
        system.broker = f"kafka://{kafka.bootstrap}"
        event_ids: dict[str | None, set[str]] = {}
        for message in await read_all(system, COMPLETED):
            event = codec.decode(ProcessingCompleted, message.value)
            event_ids.setdefault(event.image_id, set()).add(event.eventId)
        assert set(ids) <= set(event_ids)
        assert all(len(each) == 1 for each in event_ids.values())
        assert await count_points(system, TENANT) == len(event_ids)
    finally:
        await system.close()
        proxy.stop()
        await asyncio.to_thread(kafka.stop)
