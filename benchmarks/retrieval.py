"""How well changed pictures are found again by each model: ``make bench-retrieval``.

Every vector is the product's own: its extractor decodes the file and runs the network. A changed
picture is looked for among all originals by exact cosine.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.transformations import (
    TRANSFORMATIONS,
    Picture,
    as_png,
    tiles,
    whole_photographs,
)
from deeplens_streams.config import load_settings
from deeplens_streams.errors import DeepLensError
from deeplens_streams.features import FeatureExtractor, open_features
from deeplens_streams.features.models import CATALOGUE

GALLERIES = {"photographs": whole_photographs, "tiles": tiles}
_AT_ONCE = 16
#: Shares of the scores of pairs of different pictures that are below a quantile.
_QUANTILES = (0.5, 0.95, 0.999, 1.0)

#: Edges of what scores are counted in.
BINS = np.linspace(-0.2, 1.0, 61)

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """How often one transformation's pictures are found, and at which scores.

    Attributes
    ----------
    first, in_ten : shares of those whose original is first, and among the first ten.
    own : the median of the scores with their originals; `own_low` is what 95 % of them reach.
    """

    transformation: str
    first: float
    in_ten: float
    own: float
    own_low: float


@dataclass(frozen=True)
class Result:
    """One model on one gallery.

    Attributes
    ----------
    different : quantiles of the scores of pairs of different originals.
    own_shares, different_shares : of the scores in each of `BINS`.
    """

    model: str
    dimension: int
    gallery: str
    pictures: int
    found: list[Found]
    different: dict[str, float]
    own_shares: list[float]
    different_shares: list[float]


async def vectors_of(features: FeatureExtractor, files: Sequence[bytes]) -> Vectors:
    """Return a normalised row for each file."""
    waiting = asyncio.Semaphore(_AT_ONCE)

    async def one(data: bytes) -> Vectors:
        async with waiting:
            return (await features.extract(data)).vector

    return np.stack(await asyncio.gather(*(one(each) for each in files)))


def found_again(name: str, scores: Vectors) -> Found:
    """Tell of the scores of each changed picture, a row, with each original, a column."""
    own = scores.diagonal()
    # An equal score of another one counts against it.
    ahead = (scores >= own[:, None]).sum(axis=1) - 1
    return Found(
        name,
        float((ahead < 1).mean()),
        float((ahead < 10).mean()),
        float(np.median(own)),
        float(np.quantile(own, 0.05)),
    )


def shares(scores: Vectors) -> list[float]:
    """Return the share of scores in each of `BINS`."""
    counts, _ = np.histogram(scores.clip(BINS[0], BINS[-1]), BINS)
    return [float(share) for share in counts / len(scores)]


async def measure(features: FeatureExtractor, gallery: str, pictures: Sequence[Picture]) -> Result:
    """Return what one model finds among `pictures`."""
    originals = await vectors_of(features, [as_png(each.image) for each in pictures])
    found, own = [], []
    for name, change in TRANSFORMATIONS.items():
        changed = await vectors_of(features, [change(each.image) for each in pictures])
        scores = changed @ originals.T
        found.append(found_again(name, scores))
        own.append(scores.diagonal())
    different = (originals @ originals.T)[np.triu_indices(len(originals), 1)]
    return Result(
        model=features.model.name,
        dimension=features.model.dimension,
        gallery=gallery,
        pictures=len(pictures),
        found=found,
        different={f"{each:.1%}": float(np.quantile(different, each)) for each in _QUANTILES},
        own_shares=shares(np.concatenate(own)),
        different_shares=shares(different),
    )


def table(result: Result) -> str:
    """Return what docs/performance.md shows of one result."""
    lines = [
        f"{result.model}, {result.pictures} {result.gallery}",
        "",
        "| changed | first | in ten | own score, median | 95 % reach |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.transformation} | {each.first:.2f} | {each.in_ten:.2f} "
        f"| {each.own:.3f} | {each.own_low:.3f} |"
        for each in result.found
    ]
    below = ", ".join(f"{share} below {score:.4f}" for share, score in result.different.items())
    return "\n".join([*lines, "", f"Different pictures: {below}"])


async def run(names: Sequence[str], galleries: dict[str, list[Picture]]) -> list[Result]:
    results = []
    for name in names:
        features = None
        try:
            features = open_features(load_settings(model=name))
            await features.ready()
            for gallery, pictures in galleries.items():
                results.append(await measure(features, gallery, pictures))
                print(table(results[-1]), end="\n\n", flush=True)
        except DeepLensError as error:
            print(f"{name} cannot be had here: {error.message}")
        finally:
            if features is not None:
                await features.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-retrieval", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(CATALOGUE), default=list(CATALOGUE))
    parser.add_argument("--galleries", nargs="+", choices=list(GALLERIES), default=list(GALLERIES))
    parser.add_argument("--most", type=int, help="of each gallery; default: all")
    parser.add_argument("--json", type=Path, help="where everything is written")
    parser.add_argument("--plot", type=Path, help="where a plot is written: .svg or .png")
    arguments = parser.parse_args()
    galleries = {name: GALLERIES[name]()[: arguments.most] for name in arguments.galleries}
    results = asyncio.run(run(arguments.models, galleries))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in results], indent=1))
    if arguments.plot:
        from benchmarks.retrieval_plot import draw  # noqa: PLC0415 -- matplotlib takes its time

        draw(results, arguments.plot)


if __name__ == "__main__":
    main()
