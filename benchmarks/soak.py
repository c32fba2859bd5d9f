"""``make bench-full``: many pictures through the real model, and what the processes hold."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from deeplens_streams.embedded_kafka.server import KafkaServer
from tests.support.soak import LEAST_LOOKS, Held, Soaked, soak
from tests.support.system import System

#: Pictures that are sent before the next ones wait for them: the model always has some.
BATCH = 250


async def run(broker: str, folder: Path, pictures: int) -> Soaked:
    system = System(broker, "soak", folder, extractor_url="")
    try:
        return await soak(system, pictures, batch=BATCH, in_step=True)
    finally:
        await system.close()


def line(held: Held) -> str:
    """Say what a process held in the second quarter and in the last."""
    if len(held.memory) < LEAST_LOOKS:
        return f"{held.name}: {max(held.memory) / 2**20:.0f} MiB at most; too short to compare"
    before, after = held.quarter(2), held.quarter(4)
    counts = f"files, threads, sockets {before[1:]}, then {after[1:]}"
    return f"{held.name}: {before[0] / 2**20:.0f} MiB, then {after[0] / 2**20:.0f} MiB; {counts}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-full")
    parser.add_argument("--pictures", type=int, default=20_000)
    pictures = parser.parse_args().pictures
    with tempfile.TemporaryDirectory() as name, KafkaServer(Path(name) / "kafka") as kafka:
        soaked = asyncio.run(run(f"kafka://{kafka.bootstrap}", Path(name), pictures))
    print(f"{pictures} pictures in {soaked.took_s:.0f} s: {pictures / soaked.took_s:.1f} a second")
    for each in soaked.held:
        print(line(each))
    faults = soaked.faults(pictures)
    sys.exit("\n".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
