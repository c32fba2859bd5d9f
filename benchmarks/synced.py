"""``make bench-sync``: what it costs that an answered upload survives a power cut.

Two systems, one of which syncs nothing, take turns with 50 uploads at once. They run no stage but
the one that takes uploads in. Exits with 1 when the ratio misses its limit.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.__main__ import MEGABYTE, Limits, percentile, uploads_at_once
from benchmarks.pictures import of_bytes
from deeplens_streams.embedded_kafka.server import KafkaServer
from tests.support.system import System

#: Times that the median and the 95th percentile may be those of a system that does not sync.
LIMIT = 1.5


def file_system(folder: Path) -> str:
    """Return type and device of what `folder` lies on."""
    command = ["df", "--output=fstype,source", str(folder)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return " on ".join(answer.stdout.splitlines()[-1].split())


async def measure(brokers: dict[str, str], folder: Path, arguments: argparse.Namespace) -> int:
    """Measure and print everything; return how many limits were missed."""
    systems = {name: System(url, "bench", folder / name, "") for name, url in brokers.items()}
    taken: dict[str, list[list[float]]] = {name: [] for name in systems}
    try:
        clients = {}
        for name, system in systems.items():
            sync = {"SYNC": "true" if name == "on" else "false"}
            clients[name] = system.client(await system.started("api", "api", **sync))
        picture = of_bytes(int(arguments.megabytes * MEGABYTE))
        print(f"file system: {file_system(folder)}; a picture has {len(picture)} bytes")
        for client in clients.values():
            await uploads_at_once(client, picture, 10)  # what is compiled at first use
        for number in range(arguments.rounds):
            # Who begins has the quieter machine.
            for name in sorted(clients, reverse=bool(number % 2)):
                taken[name].append(await uploads_at_once(clients[name], picture, arguments.count))
    finally:
        for system in systems.values():
            await system.close()
    limits = Limits()
    for label, share in (("median", 0.5), ("p95", 0.95)):
        figures = {
            name: statistics.median(percentile(times, share) for times in rounds)
            for name, rounds in taken.items()
        }
        ratio = figures["on"] / figures["off"]
        print(
            f"{arguments.count} uploads at once, {label} of {arguments.rounds} rounds: "
            f"synced {figures['on']:.0f} ms, not synced {figures['off']:.0f} ms, "
            f"ratio {ratio:.2f} ({limits.at_most(ratio, LIMIT)})"
        )
    return limits.missed


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-sync")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--megabytes", type=float, default=2)
    parser.add_argument("--folder", type=Path, help="Where to write. Default: that of the system.")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
        brokers = {}
        for name in ("on", "off"):
            kafka = KafkaServer(folder / f"kafka-{name}", sync=name == "on")
            brokers[name] = f"kafka://{stack.enter_context(kafka).bootstrap}"
        missed = asyncio.run(measure(brokers, folder, arguments))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
