"""Rows are asked of who owns them, and are not there before they are recovered."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from faust.types import TP
from yarl import URL

from deeplens_streams.config import load_settings
from deeplens_streams.errors import RowMoving
from deeplens_streams.interactive_queries import rows as routing
from deeplens_streams.interactive_queries.sources import RowSource
from deeplens_streams.interactive_queries.table_pages import FaustTables
from deeplens_streams.runtime.apps import RoleApp, build_apps
from deeplens_streams.web.app_keys import CONTEXT
from models.status import ImageRow
from tables import image_status
from tests.support.web_server import row_of

HERE = "http://127.0.0.1:8123"


def image(partition: int, number: int = 0) -> str:
    return f"img_{number:08x}-0000-4000-8000-00000000000{partition}"


class Process:
    """An api worker's app that never starts; what Kafka and Faust would do, tests do."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load_settings(
            data_dir=tmp_path,
            storage_url="memory://",
            weights="untrained",
            roles=("api",),
            advertised_url=HERE,
        )
        self.app: RoleApp = build_apps(settings)
        self.held: dict[bytes, ImageRow] = {}
        self.table = cast(Any, self.app.tables[image_status.NAME])
        self.topic: str = self.table.changelog_topic.get_topic_name()
        self.context = cast(Any, self.app.web).web_app[CONTEXT]
        monkeypatch.setattr(type(self.table), "get", lambda _, key: self.held.get(key))
        monkeypatch.setattr(
            type(self.app.producer),
            "key_partition",
            lambda _, topic, key: TP(topic, int(key[-1:])),
        )

    @property
    def rows(self) -> RowSource:
        found: RowSource = self.context.rows
        return found

    @property
    def tables(self) -> FaustTables:
        found: FaustTables = self.context.tables
        return found

    def hold(self, *image_ids: str) -> None:
        for each in image_ids:
            self.held[each.encode()] = row_of(each, "completed", [])

    def assign(self, partitions: Iterable[int], others: str | None = None) -> None:
        """Hand partitions out; all others are that worker's."""
        assignor = cast(Any, self.app.assignor)
        mine = {TP(self.topic, each) for each in partitions}
        assignor._active_tps = mine
        assignor._assignment.actives = {self.topic: [tp.partition for tp in mine]}
        everything = {TP(self.topic, each) for each in range(6)}
        assignor._tps_url = dict.fromkeys(mine, HERE)
        if others is not None:
            assignor._tps_url |= dict.fromkeys(everything - mine, others)

    async def begin(self, partitions: Iterable[int]) -> None:
        """Do what Faust does at a rebalance until tables are recovered."""
        self.assign(partitions)
        recovery = cast(Any, self.app.tables).recovery
        recovery.active_tps.clear()
        recovery.active_tps.update(cast(Any, self.app.assignor)._active_tps)
        recovery.signal_recovery_start.set()
        await self.app.on_partitions_assigned.send(set())

    async def end(self) -> None:
        await self.app.on_rebalance_complete.send()

    async def recover(self) -> None:
        cast(Any, self.app.tables).recovery.signal_recovery_start.clear()
        await self.end()

    async def is_moving(self, image_id: str) -> bool:
        """Tell what all who look for a row are told."""
        try:
            found = (await self.rows.row(image_id)) is None
        except RowMoving:
            for source in (self.rows.local_row, self._entry):
                with pytest.raises(RowMoving):
                    source(image_id)
            return True
        assert (self.rows.local_row(image_id) is None) == found
        assert (self._entry(image_id) is None) == found
        return False

    def _entry(self, image_id: str) -> Any:
        return self.tables.local_row(image_status.NAME, image_id)


@pytest.fixture
async def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Process]:
    found = Process(tmp_path, monkeypatch)
    yield found
    await found.app.http_client.close()


async def test_rows_are_not_missing_before_they_are_recovered(process: Process) -> None:
    there, gone = image(1), image(1, number=1)
    with pytest.raises(RowMoving):
        process.rows.local_row(there)
    await process.begin([1])
    assert await process.is_moving(there)
    process.hold(there)  # some are read already
    assert await process.is_moving(there)
    assert await process.is_moving(gone)
    await process.recover()
    found = await process.rows.rows([there, gone])
    assert found.keys() == {there}
    assert not await process.is_moving(there)
    assert not await process.is_moving(gone)


async def test_what_stays_is_answered_for_while_others_come(process: Process) -> None:
    await process.begin([1])
    await process.recover()
    await process.begin([1, 2])
    assert not await process.is_moving(image(1))
    assert await process.is_moving(image(2))
    await process.recover()
    assert not await process.is_moving(image(2))


async def test_what_went_away_is_recovered_before_it_is_answered_for_again(
    process: Process,
) -> None:
    await process.begin([1, 2])
    await process.recover()
    process.assign([1])  # which Faust is to be told yet
    with pytest.raises(RowMoving):
        process.rows.local_row(image(2))
    await process.begin([1])
    await process.begin([1, 2])
    assert await process.is_moving(image(2))
    assert not await process.is_moving(image(1))


async def test_a_recovery_that_a_rebalance_overtook_is_none(process: Process) -> None:
    await process.begin([1])
    await process.begin([1, 2])
    await process.end()  # of the first
    assert await process.is_moving(image(1))
    assert await process.is_moving(image(2))
    # The next assignment is known to the assignor before Faust recovers it.
    await process.recover()
    process.assign([1, 3])
    await process.end()
    assert await process.is_moving(image(3))
    assert not await process.is_moving(image(1))


class Rows:
    """RocksDB's iterator."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = keys

    def seek(self, key: bytes) -> None:
        self._keys = [each for each in self._keys if each >= key]

    def valid(self) -> bool:
        return bool(self._keys)

    def key(self) -> bytes:
        return self._keys[0]

    def next(self) -> None:
        del self._keys[0]

    def status(self) -> None:
        pass


class Store:
    """A partition's RocksDB."""

    def __init__(self, *image_ids: str) -> None:
        self.held = image_ids

    def iter(self) -> "Rows":
        return Rows([each.encode() for each in self.held])

    def property_int_value(self, _name: str) -> int:
        return len(self.held)

    def get(self, _key: bytes) -> None:
        return None


async def test_a_share_says_which_partitions_are_not_recovered_yet(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends(*_args: object) -> dict[TP, int]:
        return {}

    monkeypatch.setattr(FaustTables, "_ends", ends)
    process.table.data._dbs.update({1: Store(image(1)), 2: Store(image(2))})
    process.hold(image(1), image(2))
    await process.begin([1])
    await process.recover()
    await process.begin([1, 2])
    # Faust does not say yet that it recovers.
    assert not cast(Any, process.app.tables).recovery.in_recovery
    share = await process.tables.local_share(image_status.NAME, limit=9, after=None)
    states = {each.partition: each.state for each in share.partitions}
    assert states == {1: "ready", 2: "recovering"}


async def test_a_partition_that_goes_meanwhile_is_not_in_a_share(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its state and without its rows, a page would look as if it had them all."""
    await process.begin([1])
    await process.recover()
    process.table.data._dbs[1] = Store(image(1))
    process.hold(image(1))

    async def ends(*_args: object) -> dict[TP, int]:
        # What Faust does first; the assignor hears of it at the next assignment.
        process.table.data._dbs.clear()
        process.held.clear()
        return {}

    monkeypatch.setattr(FaustTables, "_ends", ends)
    share = await process.tables.local_share(image_status.NAME, limit=9, after=None)
    assert (share.partitions, share.entries) == ([], [])


async def serve(handler: Any) -> TestServer:
    app = web.Application()
    app.router.add_post("/internal/rows", handler)
    server = TestServer(app)
    await server.start_server()
    return server


async def test_rows_of_others_are_asked_of_them(process: Process) -> None:
    asked: list[str] = []
    recovering = False

    async def answer(request: web.Request) -> web.Response:
        if recovering:
            return web.json_response({"rows": {}}, status=503)
        asked.extend((await request.json())["ids"])
        rows = {each: row_of(each, "failed", []).to_wire() for each in asked}
        return web.json_response({"rows": rows})

    server = await serve(answer)
    await process.begin([1])
    await process.recover()
    process.assign([1], others=str(server.make_url("/")))
    process.hold(image(1))
    found = await process.rows.rows([image(1), image(2), image(3)])
    assert {each: row.status for each, row in found.items()} == {
        image(1): "completed",
        image(2): "failed",
        image(3): "failed",
    }
    assert asked == [image(2), image(3)]
    recovering = True
    with pytest.raises(RowMoving):
        await process.rows.row(image(2))
    await server.close()


async def test_who_waits_for_an_owner_and_its_answer_is_told_within_a_second(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert routing._DEADLINE_S < 1
    monkeypatch.setattr(routing, "_DEADLINE_S", 0.5)
    hanging = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        hanging.set()
        await asyncio.Event().wait()
        return web.Response()

    server = await serve(hang)
    loop = asyncio.get_running_loop()
    for owner_after in (None, 0.4):
        process.assign([])
        if owner_after is not None:
            loop.call_later(owner_after, process.assign, [], str(URL(server.make_url("/"))))
        begun = loop.time()
        with pytest.raises(RowMoving):
            await process.rows.row(image(2))
        assert loop.time() - begun < 0.8
    assert hanging.is_set()
    await server.close()
