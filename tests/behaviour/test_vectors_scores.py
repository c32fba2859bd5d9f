"""Thresholds and the order of hits, the same in memory, Qdrant Edge and through Qdrant's client."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from deeplens_streams.vectors import VectorPoint, VectorStore
from deeplens_streams.vectors.base import Hit
from deeplens_streams.vectors.scores import best, lowest, rounded

HERE: dict[str, Any] = {"tenant": "acme-corp", "model": "resnet50"}

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


def image_id(number: int) -> str:
    return f"img_{number:08d}-0000-4000-8000-000000000000"


def point(number: int, vector: npt.NDArray[np.float32]) -> VectorPoint:
    known = {"imageId": image_id(number), "uploadedAt": "2026-01-01T00:00:00.000Z"}
    return VectorPoint(image_id(number), vector, known)


def features(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Return rows as a network makes them, of which every second one is not normalised."""
    rows = np.random.default_rng(seed).exponential(size=(count, 2048)) ** 2
    rows[::2] /= np.linalg.norm(rows[::2], axis=1, keepdims=True)
    return rows.astype(np.float32)


async def test_a_score_that_equals_the_threshold_counts(vectors: VectorStore) -> None:
    rows = features(12, seed=1)
    await vectors.upsert([point(i, row) for i, row in enumerate(rows)], **HERE)
    for number, row in enumerate(rows):
        (same,) = await vectors.search(row, **HERE, limit=5, threshold=1.0)
        assert (same.image_id, same.score) == (image_id(number), 1.0)
        hits = await vectors.search(row, **HERE, limit=5, threshold=-1)
        for place, hit in enumerate(hits, 1):
            again = await vectors.search(row, **HERE, limit=5, threshold=hit.score)
            assert again == hits[:place]
            above = await vectors.search(row, **HERE, limit=5, threshold=hit.score + 1e-6)
            assert above == hits[: place - 1]


async def test_scores_are_the_same_of_every_engine(vectors: VectorStore) -> None:
    """To one of the last digit: what lies between two of them is rounded as each engine has it."""
    rows = features(30, seed=2)
    units = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1)[:, None]
    await vectors.upsert([point(i, row) for i, row in enumerate(rows)], **HERE)
    hits = await vectors.search(rows[0], **HERE, limit=30, threshold=-1)
    right = {image_id(i): float(score) for i, score in enumerate(units @ units[0])}
    for hit in hits:
        assert hit.score == round(hit.score, 6)
        assert hit.score == pytest.approx(right[hit.image_id], abs=1.01e-6)


async def test_equal_scores_come_in_the_order_of_ids_and_the_limit_keeps_the_first(
    vectors: VectorStore,
) -> None:
    better, equal, worse, asked = features(4, seed=3)
    order = np.random.default_rng(4).permutation(120)
    near = 0.9 * asked / np.linalg.norm(asked) + 0.1 * better / np.linalg.norm(better)
    points = [point(int(i), equal) for i in order]
    points += [point(500 + i, near.astype(np.float32)) for i in (2, 0, 1)]
    points += [point(900, -worse)]
    await vectors.upsert(points, **HERE)
    expected = [image_id(500 + i) for i in range(3)] + [image_id(i) for i in range(120)]
    for limit in (1, 2, 3, 4, 10, 100):
        hits = await vectors.search(asked, **HERE, limit=limit, threshold=0)
        assert [hit.image_id for hit in hits] == expected[:limit]


async def test_opposites_and_strangers_are_found_at_minus_one_and_zero(
    vectors: VectorStore,
) -> None:
    ahead = np.zeros(8, dtype=np.float32)
    ahead[0] = 3
    aside = np.roll(ahead, 1)
    await vectors.upsert([point(1, ahead), point(2, -ahead), point(3, aside)], **HERE)

    async def found(threshold: float) -> list[tuple[str, float]]:
        hits = await vectors.search(ahead, **HERE, limit=9, threshold=threshold)
        return [(hit.image_id, hit.score) for hit in hits]

    best_first = [(image_id(1), 1.0), (image_id(3), 0.0), (image_id(2), -1.0)]
    assert await found(-1) == best_first
    assert await found(0) == best_first[:2]
    assert await found(1) == best_first[:1]


def test_rounding() -> None:
    for score in (1.0000003, 0.9999995, 1.0):
        assert rounded(score) == 1.0
    assert rounded(0.999998) == 0.999998
    assert rounded(-1.0000002) == -1.0
    assert str(rounded(-1e-9)) == "0.0"
    assert lowest(-1) is None
    threshold = lowest(0.7)
    assert threshold is not None
    assert 0.69999 < threshold < 0.7 - 5e-7


async def test_an_engine_is_asked_again_only_where_the_last_are_equal() -> None:
    asked: list[int] = []

    def engine(scores: list[float]) -> list[Hit]:
        return [Hit(image_id(i), score, {}) for i, score in enumerate(scores)]

    async def run(stored: list[Hit], *, limit: int, threshold: float) -> list[str]:
        asked.clear()

        async def ask(count: int) -> list[Hit]:
            asked.append(count)
            # Of equal ones it takes those that came last.
            return sorted(stored, key=lambda hit: (hit.score, hit.image_id), reverse=True)[:count]

        hits = await best(ask, limit=limit, threshold=threshold)
        return [hit.image_id for hit in hits]

    different = engine([1 - i / 1000 for i in range(50)])
    assert await run(different, limit=10, threshold=0) == [image_id(i) for i in range(10)]
    assert asked == [11]
    assert await run(different, limit=10, threshold=0.995) == [image_id(i) for i in range(6)]
    assert asked == [11]
    equal = engine([0.9] + [0.5] * 40)
    assert await run(equal, limit=10, threshold=0.5) == [image_id(i) for i in range(10)]
    assert asked == [11, 44]
    many = engine([0.5] * 3000)
    assert len(await run(many, limit=10, threshold=0)) == 10
    assert asked == [11, 44, 176, 704, 1010]
