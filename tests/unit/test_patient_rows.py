"""Whoever has time waits for rows that move, and goes on behind the last one that was read."""

from typing import cast

import pytest

from deeplens_streams.audit import rows as patient_rows
from deeplens_streams.audit.rows import RetryingRows
from deeplens_streams.errors import RowMoving
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.interactive_queries.shard import (
    Entry,
    Partition,
    TablePage,
    TableShard,
    merged,
)
from deeplens_streams.interactive_queries.sources import RowSource, TableSource
from models.status import ImageRow
from tests.support.web_server import row_of

#: Who has the second partition, in which state, and how many messages of its changelog it lacks.
Moment = tuple[str | None, str, int | None]
READY: Moment = ("http://one", "ready", 0)
GONE: Moment = (None, "moving", None)


class Workers:
    """Two partitions: the first stays where it is, of the second the moments tell."""

    def __init__(self, count: int, moments: list[Moment]) -> None:
        self.ids = sorted(new_image_id() for _ in range(count))
        self.held = {each: row_of(each, "completed", []) for each in self.ids}
        self.moments = moments
        self.asked: list[str | None] = []

    async def page(self, _name: str, *, limit: int, after: str | None) -> TablePage:
        self.asked.append(after)
        owner, state, lag = self.moments.pop(0) if self.moments else READY

        def share(number: int, worker: str | None, state: str, lag: int | None) -> TableShard:
            behind = [each for each in self.ids[number::2] if after is None or each > after]
            keys = behind[: limit + 1] if state == "ready" else []
            assert worker is not None
            entries = [Entry(each, self.held[each].to_wire()) for each in keys]
            return TableShard([Partition(number, worker, state, 1, 1, lag)], entries)

        shares = [share(0, "http://here", "ready", 0)]
        if state not in ("moving", "unreachable"):
            shares.append(share(1, owner, state, lag))
        return merged(shares, {0: "http://here", 1: owner}, limit=limit)

    async def rows(self, image_ids: list[str]) -> dict[str, ImageRow]:
        if self.moments:
            raise RowMoving
        return {each: self.held[each] for each in image_ids if each in self.held}

    def patient(self) -> RetryingRows:
        return RetryingRows(cast(RowSource, self), cast(TableSource, self))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever does not get better at once has had its time."""
    monkeypatch.setattr(patient_rows, "PAGE", 2)
    monkeypatch.setattr(patient_rows, "PATIENCE_S", 0.0)
    monkeypatch.setattr(patient_rows, "_LOOK_S", 0.0)


async def read(workers: Workers) -> list[str]:
    rows = [row async for page in workers.patient().pages() for row in page]
    return [cast(ImageRow, row).imageId for row in rows]


async def test_a_walk_goes_on_at_the_new_owner_where_it_was() -> None:
    recovering: list[Moment] = [("http://two", "recovering", lag) for lag in (900, 5, 0)]
    moved: Moment = ("http://two", "ready", 0)
    workers = Workers(9, [READY, GONE, *recovering, moved, moved, moved, moved])
    assert await read(workers) == workers.ids
    # The same question until it is answered, and then the next.
    second, third = workers.ids[1], workers.ids[3]
    assert workers.asked[:7] == [None, *[second] * 5, third]


@pytest.mark.parametrize(
    "stays",
    [GONE, ("http://two", "unreachable", None), ("http://two", "recovering", 7)],
    ids=["moving", "unreachable", "recovering"],
)
async def test_a_walk_ends_when_nothing_gets_better(stays: Moment) -> None:
    workers = Workers(5, [READY, stays, stays])
    with pytest.raises(RowMoving):
        await read(workers)


async def test_what_goes_back_and_forth_does_not_get_better() -> None:
    there: Moment = ("http://two", "recovering", 7)
    with pytest.raises(RowMoving):
        await read(Workers(5, [READY, GONE, there, GONE]))


async def test_rows_by_their_ids_are_waited_for_too() -> None:
    workers = Workers(3, [GONE, ("http://two", "recovering", 9), ("http://two", "recovering", 2)])
    found = await workers.patient().rows(workers.ids)
    assert found == workers.held
    assert len(workers.asked) == 3


async def test_rows_that_nobody_gives_though_all_is_there_are_not_waited_for_for_ever() -> None:
    workers = Workers(3, [READY, READY, READY])
    with pytest.raises(RowMoving):
        await workers.patient().rows(workers.ids)
