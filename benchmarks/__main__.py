"""``make bench``: throughput against the bare loop, and what a client waits for.

Exits with 1 when a figure misses its limit.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.pictures import of_bytes, photographs
from deeplens_streams.embedded_kafka.server import KafkaServer
from tests.support.system import Client, System, Worker

MEGABYTE = 1_000_000


class Limits:
    """Says of a figure whether its limit holds, and counts those that do not."""

    missed = 0

    def at_most(self, figure: float, limit: float) -> str:
        return f"at most {limit}: {self._verdict(holds=figure <= limit)}"

    def at_least(self, figure: float, limit: float) -> str:
        return f"at least {limit}: {self._verdict(holds=figure >= limit)}"

    def _verdict(self, *, holds: bool) -> str:
        self.missed += not holds
        return "held" if holds else "missed"


def bare_loop(folder: Path, settings: Mapping[str, str] | None = None) -> float:
    """Return pictures a second of the bare loop, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare_loop", str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **(settings or {})},
    )
    return float(result.stdout.splitlines()[-1])


def cpu_seconds(worker: Worker) -> dict[str, float]:
    """Return the CPU time so far of each process that takes part."""
    assert worker.process is not None
    process = psutil.Process(worker.process.pid)
    java = [each for each in psutil.Process().children(recursive=True) if "java" in each.name()]
    groups = {
        "client": [psutil.Process()],
        "worker": [process],
        "model": process.children(recursive=True),
        "Kafka": java,
    }
    return {
        name: sum(sum(each.cpu_times()[:2]) for each in processes)
        for name, processes in groups.items()
    }


async def upload_all(client: Client, pictures: list[bytes]) -> list[str]:
    """Upload, 16 at once, and return the image IDs."""
    waiting = asyncio.Semaphore(16)

    async def one(picture: bytes) -> str:
        async with waiting:
            return await client.upload(picture)

    return list(await asyncio.gather(*(one(picture) for picture in pictures)))


async def throughput(client: Client, pictures: list[bytes]) -> float:
    """Return pictures a second from the first upload to the last one searchable.

    The system says when each became searchable. Asking for each picture while the clock runs
    would be work on the same cores that is not the pipeline's.
    """
    began = time.time()
    ids = await upload_all(client, pictures)
    await client.until_final(ids[-1:], 300, poll_s=0.5)
    await client.until_final(ids, 300, poll_s=0.5)
    states = [await client.status(each) for each in ids]
    ended = max(datetime.fromisoformat(each["searchableAfter"]).timestamp() for each in states)
    return len(pictures) / (ended - began)


async def idle_uploads(client: Client, picture: bytes, count: int) -> list[float]:
    """Return the milliseconds of one upload after another."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        image_id = await client.upload(picture)
        times.append((time.perf_counter() - began) * 1000)
        await client.until_final([image_id])
    return times


async def uploads_at_once(client: Client, picture: bytes, count: int) -> list[float]:
    """Return the milliseconds of each of `count` uploads that begin together."""

    async def one() -> float:
        began = time.perf_counter()
        await client.upload(picture)
        return (time.perf_counter() - began) * 1000

    return await asyncio.gather(*(one() for _ in range(count)))


async def searchable_after(client: Client, picture: bytes, count: int) -> list[float]:
    """Return the milliseconds from an upload's answer to its first hit, on an idle machine."""
    times = []
    for _ in range(count):
        image_id = await client.upload(picture)
        answered = time.perf_counter()
        url = f"/hub/processing-status?imageId={image_id}"
        async with client.http.ws_connect(url) as socket:
            async for message in socket:
                if message.json()["status"] == "completed":
                    break
        times.append((time.perf_counter() - answered) * 1000)
    return times


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def measure(worker: Worker, client: Client, arguments: argparse.Namespace) -> int:
    """Measure and print everything; return how many limits were missed."""
    limits = Limits()
    small = list(photographs(arguments.pictures, width=1152, height=864))
    large = of_bytes(2 * MEGABYTE)
    print(f"pictures: {len(small)} of 1152 x 864, {sum(map(len, small)) / len(small):.0f} bytes")
    print(f"large picture: {len(large)} bytes")
    await throughput(client, small[:40])  # what is compiled and cached at first use

    median = statistics.median(await idle_uploads(client, large, 20))
    print(f"upload of 2 MB, idle: median {median:.1f} ms ({limits.at_most(median, 50)})")
    median = statistics.median(await searchable_after(client, small[0], 20))
    print(f"searchable after it, idle: median {median:.0f} ms ({limits.at_most(median, 500)})")

    backlog = await upload_all(client, small[:300])
    p95 = percentile(await uploads_at_once(client, large, 50), 0.95)
    waiting = (await client.status(backlog[-1]))["status"] != "completed"
    print(
        f"50 uploads of 2 MB at once, extraction {'busy' if waiting else 'IDLE'}: "
        f"p95 {p95:.0f} ms ({limits.at_most(p95, 700)})"
    )
    await client.until_final(backlog, 300, poll_s=0.25)
    await asyncio.sleep(5)

    with tempfile.TemporaryDirectory() as folder:
        for index, picture in enumerate(small):
            (Path(folder) / f"{index:04}.jpg").write_bytes(picture)
        ratios = []
        for _ in range(arguments.rounds):
            bare = await asyncio.to_thread(bare_loop, Path(folder))
            before = cpu_seconds(worker)
            system = await throughput(client, small)
            spent = {name: end - before[name] for name, end in cpu_seconds(worker).items()}
            ratios.append(system / bare)
            print(
                f"bare loop {bare:.1f} pictures/s, system {system:.1f} pictures/s, "
                f"ratio {ratios[-1]:.2f}"
            )
            each = (f"{name} {1000 * used / len(small):.1f}" for name, used in spent.items())
            print(f"CPU ms a picture: {', '.join(each)}")
        median = statistics.median(ratios)
        verdict = limits.at_least(median, 0.7)
        print(f"ratio, median of {len(ratios)} rounds: {median:.3f} ({verdict})")
    print(f"resident memory of the worker: {worker.rss() / 2**20:.0f} MiB")
    return limits.missed


async def run(broker: str, folder: Path, arguments: argparse.Namespace) -> int:
    system = System(broker, "bench", folder, extractor_url="")
    try:
        worker = await system.started()
        return await measure(worker, system.client(worker), arguments)
    finally:
        await system.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, KafkaServer(Path(name) / "kafka") as kafka:
        missed = asyncio.run(run(f"kafka://{kafka.bootstrap}", Path(name), arguments))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
