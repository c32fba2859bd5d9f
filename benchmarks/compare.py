"""Another commit against this one, in turn on the same machine: ``make bench-compare BASE=…``.

Both run as ``deeplens up`` runs them, each from its own checkout with what its own lock installs,
and are driven by the same client over HTTP, on the same cores. Only one has work at a time. Each
round measures both, and the next begins with the other one; what is printed is the ratio of the two
in each round: its median, its smallest and its largest. The bare loop of this commit, decoding with
a thumbnail and inference alone, stands beside them.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.__main__ import MEGABYTE, bare_loop, percentile, searchable_after, upload_all
from benchmarks.checkout import HERE, checked_out, commit_of
from benchmarks.pictures import of_bytes, photographs
from benchmarks.running import RunningVersion
from tests.support.system import Client

_PATIENCE_S = 600


@dataclass(frozen=True)
class Amounts:
    """How much is measured in one round of one version."""

    pictures: int = 200
    idle: int = 15
    at_once: int = 50


QUICK = Amounts(pictures=16, idle=2, at_once=4)


async def searchable(client: Client, pictures: list[bytes]) -> None:
    """Upload, 16 at once, and return when all are at their end; each is asked for once or so."""
    ids = await upload_all(client, pictures)
    ended = await client.until_final(ids, _PATIENCE_S, poll_s=0.05)
    assert set(ended.values()) == {"completed"}, ended


async def searches(client: Client, picture: bytes, count: int) -> list[float]:
    """Return the milliseconds of one search by picture after another."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await client.search(queryImage=picture, threshold=-1)
        times.append((time.perf_counter() - began) * 1000)
    return times


async def busy_uploads(
    client: Client, small: list[bytes], large: bytes, count: int
) -> tuple[list[float], bool]:
    """Return the milliseconds of uploads that begin together, and whether work was waiting."""
    backlog = await upload_all(client, small)
    ids: list[str] = []

    async def one() -> float:
        began = time.perf_counter()
        ids.append(await client.upload(large))
        return (time.perf_counter() - began) * 1000

    times = await asyncio.gather(*(one() for _ in range(count)))
    was_busy = (await client.status(backlog[-1]))["status"] != "completed"
    await client.until_final(backlog + ids, _PATIENCE_S, poll_s=0.25)
    return times, was_busy


async def one_round(
    version: RunningVersion, client: Client, small: list[bytes], large: bytes, amounts: Amounts
) -> dict[str, float]:
    """Return each figure of one version by its name."""
    before, began = version.cpu_seconds(), time.perf_counter()
    await searchable(client, small)
    took = time.perf_counter() - began
    spent = {name: end - before[name] for name, end in version.cpu_seconds().items()}
    figures = {"accepted to searchable, pictures/s": len(small) / took}
    for name, seconds in {**spent, "all three": sum(spent.values())}.items():
        figures[f"CPU of {name}, ms a picture"] = 1000 * seconds / len(small)
    idle = await searchable_after(client, small[0], amounts.idle)
    figures["idle picture searchable after, ms"] = statistics.median(idle)
    figures["search by picture, ms"] = statistics.median(
        await searches(client, small[1], amounts.idle)
    )
    times, was_busy = await busy_uploads(client, small, large, amounts.at_once)
    state = "busy" if was_busy else "IDLE"
    figures[f"{amounts.at_once} uploads of 2 MB, {state}, p95 ms"] = percentile(times, 0.95)
    for name, held in version.resident().items():
        figures[f"resident memory of {name}, MiB"] = held
    return figures


async def measure(
    versions: dict[str, RunningVersion], folder: Path, arguments: argparse.Namespace
) -> list[dict[str, dict[str, float]]]:
    """Return the figures of each round, by version and name."""
    amounts = QUICK if arguments.quick else Amounts(pictures=arguments.pictures)
    small = list(photographs(amounts.pictures, width=1152, height=864))
    large = of_bytes(2 * MEGABYTE)
    (folder / "bare").mkdir()
    for index, picture in enumerate(small):
        (folder / "bare" / f"{index:04}.jpg").write_bytes(picture)
    rounds = []
    async with AsyncExitStack() as stack:
        clients = {}
        for version in versions.values():
            stack.callback(version.stop)
            version.start()
        for name, version in versions.items():
            await version.until_ready()
            clients[name] = await stack.enter_async_context(Client(version, "bench"))
            # What is compiled, converted and cached at first use.
            await searchable(clients[name], small[:40])
            await searches(clients[name], small[0], 2)
        for number in range(1 if arguments.quick else arguments.rounds):
            print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}", flush=True)
            found = {}
            # Who begins has the quieter machine.
            for name in sorted(versions, reverse=bool(number % 2)):
                found[name] = await one_round(versions[name], clients[name], small, large, amounts)
            bare = await asyncio.to_thread(bare_loop, folder / "bare", versions["new"].env)
            found["bare loop"] = {"accepted to searchable, pictures/s": bare}
            rounds.append(found)
    return rounds


@dataclass(frozen=True)
class Compared:
    """One figure: its medians, and its ratio (new to base) in each round."""

    name: str
    base: float
    new: float
    ratio: float
    lowest: float
    highest: float


def compared(rounds: list[dict[str, dict[str, float]]], new: str, base: str) -> list[Compared]:
    """Return what can be compared of two versions, over all rounds in which both have it."""
    found = []
    for name in rounds[0][new]:
        both = [
            (each[new][name], each[base][name])
            for each in rounds
            if name in each[new] and name in each[base]
        ]
        if not both:
            continue
        ratios = [of_new / of_base for of_new, of_base in both]
        found.append(
            Compared(
                name,
                statistics.median(of_base for _, of_base in both),
                statistics.median(of_new for of_new, _ in both),
                statistics.median(ratios),
                min(ratios),
                max(ratios),
            )
        )
    return found


def table(found: list[Compared], base: str) -> str:
    lines = [f"{'':46}{base:>10}{'new':>10}{'ratio':>8}  lowest to highest"]
    lines += [
        f"{each.name:46}{each.base:10.1f}{each.new:10.1f}{each.ratio:8.2f}"
        f"  {each.lowest:.2f} to {each.highest:.2f}"
        for each in found
    ]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-compare", description=__doc__)
    parser.add_argument("base", help="a commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="one small round, to see that it runs")
    parser.add_argument("--json", type=Path, help="where all figures of all rounds are written")
    parser.add_argument("--keep", type=Path, help="where the base is made, and stays")
    for name in ("base", "new"):
        parser.add_argument(
            f"--{name}-setting",
            action="append",
            default=[],
            metavar="DEEPLENS_NAME=VALUE",
            help="of that version; default: DEEPLENS_WEIGHTS=untrained",
        )
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    # So that a checkout and two systems are not left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    commit = commit_of(arguments.base)
    settings = {
        name: dict(each.split("=", 1) for each in given or ["DEEPLENS_WEIGHTS=untrained"])
        for name, given in (("base", arguments.base_setting), ("new", arguments.new_setting))
    }
    with (
        checked_out(commit, arguments.keep) as code,
        tempfile.TemporaryDirectory(prefix="deeplens-compare-") as name,
    ):
        folder = Path(name)
        versions = {
            "base": RunningVersion(code, folder / "base", settings["base"]),
            "new": RunningVersion(HERE, folder / "new", settings["new"]),
        }
        print(f"base {commit} {settings['base']}; new {commit_of('HEAD')} {settings['new']}")
        try:
            rounds = asyncio.run(measure(versions, folder, arguments))
        except BaseException:
            # The folder goes, and what the parts have said with it.
            for which, version in versions.items():
                print(f"{which}: {version.last_words()}", file=sys.stderr)
            raise
    found = compared(rounds, "new", "base")
    print(table(found, commit))
    print(table(compared(rounds, "new", "bare loop"), "bare loop"))
    if arguments.json:
        everything = {
            "base": commit,
            "new": commit_of("HEAD"),
            "settings": settings,
            "cores": os.cpu_count(),
            "compared": [asdict(each) for each in found],
            "rounds": rounds,
        }
        arguments.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
