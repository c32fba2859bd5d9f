"""Where a picture's milliseconds go: ``python -m benchmarks.profiling --py-spy PATH``.

py-spy (`uv tool install py-spy`; it is no dependency) looks at the worker and the processes below
it a hundred times a second while pictures go through. Each look at a thread that computes counts
for the innermost frame whose file belongs to a part below; what the kernel counts as CPU time of
each process is shared out by these looks.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.checkout import HERE
from benchmarks.compare import searchable
from benchmarks.pictures import photographs
from benchmarks.running import RunningVersion
from tests.support.system import Client

#: Parts by what the path of a frame's file holds; the first that fits counts.
PARTS = {
    "deeplens_streams/imaging": "decoding, resizing, thumbnail",
    "deeplens_streams/features/networks": "the network",
    "deeplens_streams/features/engines": "the network",
    "deeplens_streams/features": "to and from the model's process",
    "deeplens_streams/storage": "storage",
    "deeplens_streams/vectors": "vector engine",
    "deeplens_streams/broker/codec": "events and rows: JSON and Records",
    "models/": "events and rows: JSON and Records",
    "deeplens_streams/web": "HTTP, views",
    "python_multipart": "HTTP, views",
    "aiohttp": "HTTP, views",
    "tables/": "status table",
    "faust/tables": "status table",
    "faust/stores": "status table",
    "rocksdict": "status table",
    "aiokafka": "Kafka's client",
    "faust/transport": "Kafka's client",
    "deeplens_streams/transport": "Kafka's client",
    "faust/": "Faust",
    "mode/": "Faust",
    "structlog": "logs and metrics",
    "logging/": "logs and metrics",
    "prometheus_client": "logs and metrics",
    "agents/": "stages",
    "deeplens_streams/": "stages",
}
_OTHER = "event loop, and what no part is known of"


_PROCESS = re.compile(r'process \d+:"')
#: Innermost functions of threads that wait: on a busy machine py-spy takes some for running.
_WAITING = (
    "_worker (",
    "EpollSelector.select (",
    "ThreadedChildWatcher._do_waitpid (",
    "Condition.wait (",
)


def part_of(frames: list[str]) -> str:
    """Return the part that a stack belongs to, outermost frame first."""
    for frame in reversed(frames):
        for fragment, part in PARTS.items():
            if fragment in frame:
                return part
    return _OTHER


def looks_by_process(raw: str) -> dict[str, Counter[str]]:
    """Return how often each part was seen at work, by process.

    Parameters
    ----------
    raw : lines of py-spy's format of that name; ``process N:"command"`` is a frame, and those of a
        child stand below its parent's.
    """
    found: dict[str, Counter[str]] = {}
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if frames[-1].startswith(_WAITING):
            continue
        at = max(index for index, frame in enumerate(frames) if _PROCESS.match(frame))
        whose = "worker" if " faust " in frames[at] else "children"
        found.setdefault(whose, Counter())[part_of(frames[at + 1 :])] += int(count)
    return found


async def profile(version: RunningVersion, py_spy: str, count: int, raw: Path) -> dict[str, float]:
    """Have `count` pictures go through while py-spy looks; return CPU ms a picture by process."""
    pictures = list(photographs(count, width=1152, height=864))
    async with Client(version, "bench") as client:
        await searchable(client, pictures[:40])
        command = [py_spy, "record", "--subprocesses", "--full-filenames", "--format", "raw"]
        command += ["--rate", "100", "--output", str(raw), "--pid", str(version.worker_pid())]
        watching = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        await asyncio.sleep(1)
        before, began = version.cpu_seconds(), time.perf_counter()
        await searchable(client, pictures)
        took = time.perf_counter() - began
        spent = {name: end - before[name] for name, end in version.cpu_seconds().items()}
        watching.send_signal(signal.SIGINT)
        await watching.wait()
    print(f"{count} pictures, {count / took:.1f} a second, load {os.getloadavg()[0]:.1f}")
    return {name: 1000 * seconds / count for name, seconds in spent.items()}


async def run(folder: Path, arguments: argparse.Namespace) -> None:
    settings = dict(each.split("=", 1) for each in arguments.setting)
    version = RunningVersion(HERE, folder, settings or {"DEEPLENS_WEIGHTS": "untrained"})
    raw = arguments.raw or folder / "stacks.txt"
    version.start()
    try:
        await version.until_ready()
        spent = await profile(version, arguments.py_spy, arguments.pictures, raw)
    finally:
        version.stop()
    for name, looks in looks_by_process(raw.read_text()).items():
        print(f"{name}: {spent[name]:.1f} ms a picture")
        for part, count in looks.most_common():
            share = count / looks.total()
            print(f"  {share * spent[name]:6.2f} ms  {share:4.0%}  {part}")
    print(f"Kafka: {spent['Kafka']:.1f} ms a picture")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--py-spy", default="py-spy")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--setting", action="append", default=[], metavar="DEEPLENS_NAME=VALUE")
    parser.add_argument("--raw", type=Path, help="where the folded stacks are kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(run(Path(name), arguments))


if __name__ == "__main__":
    main()
