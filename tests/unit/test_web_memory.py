"""Fifty uploads of 10 MB at once: none of them is ever held whole."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.web_process import started
from tests.support.web_server import TENANT, UPLOAD, noise_jpeg

UPLOADS = 50
BYTES = 10_000_000
LIMIT = 100_000_000
_PIECE = 262_144


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with started(tmp_path, 100_000_000) as found:
        yield found


async def upload(port: int, data: memoryview) -> int:
    """Send one picture piece by piece; return the status."""
    head = (
        f'--x\r\nContent-Disposition: form-data; name="tenantId"\r\n\r\n{TENANT}\r\n'
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    ).encode()
    tail = b"\r\n--x--\r\n"
    length = len(head) + len(data) + len(tail)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"POST {UPLOAD} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
        )
        writer.write(head)
        for start in range(0, len(data), _PIECE):
            writer.write(data[start : start + _PIECE])
            await writer.drain()
        writer.write(tail)
        await writer.drain()
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()


async def test_memory_of_many_large_uploads(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    port = int(await asyncio.to_thread(process.stdout.readline))
    data = memoryview(noise_jpeg(BYTES))
    assert await upload(port, data) == 202  # what is loaded once is not what is measured
    watched = psutil.Process(process.pid)
    before = peak = watched.memory_info().rss

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, watched.memory_info().rss)
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    statuses = await asyncio.gather(*(upload(port, data) for _ in range(UPLOADS)))
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert statuses == [202] * UPLOADS
    assert peak - before < LIMIT
