"""The tables over HTTP: partitions and rows of all workers as one, and what is missing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deeplens_streams.identifiers import new_image_id
from deeplens_streams.interactive_queries.shard import Entry, Partition, TableShard, merged
from tests.support.web_server import Web, done_row, running

TABLE = "/tables/image_status"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path) as found:
        yield found


async def get(served: Web, path: str, expected: int = 200) -> dict[str, Any]:
    async with served.client.get(path) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == expected, answer
        return answer


def share(partition: int, keys: list[str], state: str = "ready") -> TableShard:
    found = Partition(partition, f"http://{partition}", state, len(keys), 1000, 0)
    return TableShard([found], [Entry(key, {"key": key}) for key in keys])


async def test_which_tables_there_are(served: Web) -> None:
    answer = await get(served, "/tables")
    assert [each["name"] for each in answer["tables"]] == ["image_status"]
    assert answer["tables"][0]["partitions"] == 1


async def test_rows_of_all_workers_in_key_order_page_by_page(served: Web) -> None:
    ids = sorted(new_image_id() for _ in range(9))
    for image_id in ids[::2]:
        served.rows.held[image_id] = done_row(image_id, models=["resnet50"])
    other = [Entry(each, done_row(each, models=["resnet50"]).to_wire()) for each in ids[1::2]]
    served.tables.owners = {0: "http://here", 1: "http://there"}
    seen, after = [], ""
    while after is not None:
        behind = [each for each in other if each.key > after]
        partition = Partition(1, "http://there", "ready", 4, 500, 2)
        served.tables.others = [TableShard([partition], behind[:3])]
        page = await get(served, f"{TABLE}?limit=2" + (f"&after={after}" if after else ""))
        assert page["complete"]
        assert [row["imageId"] for row in page["rows"]] == page["keys"]
        assert [each["changelogLag"] for each in page["partitions"]] == [0, 2]
        seen += page["keys"]
        after = page["nextAfter"]
    assert seen == ids


async def test_what_is_missing_is_said(served: Web) -> None:
    served.tables.owners = {0: "http://here", 1: "http://there", 2: None}
    answer = await get(served, TABLE)
    assert not answer["complete"]
    assert [each["state"] for each in answer["partitions"]] == ["ready", "unreachable", "moving"]
    assert "1, 2" in answer["message"]


async def test_one_row_by_its_key(served: Web) -> None:
    image_id = new_image_id()
    served.rows.held[image_id] = done_row(image_id, models=["resnet50"])
    for key in (image_id, image_id.removeprefix("img_")):
        answer = await get(served, f"{TABLE}/{key}")
        assert (answer["key"], answer["row"]["status"]) == (image_id, "completed")
    assert (await get(served, f"{TABLE}/{new_image_id()}", 404))["errorCode"] == "ROW_NOT_FOUND"
    assert (await get(served, f"{TABLE}/x", 400))["errorCode"] == "INVALID_IMAGE_ID"
    assert (await get(served, "/tables/x", 404))["errorCode"] == "TABLE_NOT_FOUND"
    for query in ("limit=x", "limit=201", "after=x", "after="):
        await get(served, f"{TABLE}?{query}", 400)
    served.rows.moving = True
    assert (await get(served, f"{TABLE}/{image_id}", 503))["errorCode"] == "ROW_MOVING"


async def test_what_workers_tell_each_other(served: Web) -> None:
    image_id = new_image_id()
    served.rows.held[image_id] = done_row(image_id, models=["resnet50"])
    answer = await get(served, "/internal/tables/image_status?limit=1")
    assert TableShard.from_wire(answer["share"]).entries[0].key == image_id
    assert TableShard.from_wire(answer["share"]).to_wire() == answer["share"]
    answer = await get(served, f"/internal/tables/image_status/rows/{image_id}")
    assert answer["value"]["imageId"] == image_id
    await get(served, f"/internal/tables/image_status/rows/{new_image_id()}", 404)
    await get(served, "/internal/tables/x", 404)


def test_a_partition_that_two_hold_gives_its_rows_once() -> None:
    page = merged([share(0, ["a", "b", "c"]), share(0, ["a", "c"])], {0: "http://0"}, limit=2)
    assert [each.key for each in page.entries] == ["a", "b"]
    assert page.next_after == "b"


@pytest.mark.parametrize("sizes", [(0, 0), (1, 0), (2, 3), (5, 1), (7, 7)])
@pytest.mark.parametrize("limit", [1, 2, 3, 20])
def test_pages_join_to_the_whole(sizes: tuple[int, int], limit: int) -> None:
    keys = [f"{number:03}" for number in range(sum(sizes))]
    held = keys[: sizes[0]], keys[sizes[0] :]
    owners = {0: "http://0", 1: "http://1"}
    seen: list[str] = []
    after = None
    while True:
        shares = [
            share(number, [key for key in each if after is None or key > after][: limit + 1])
            for number, each in enumerate(held)
        ]
        page = merged(shares, owners, limit=limit)
        seen += [each.key for each in page.entries]
        after = page.next_after
        if after is None:
            break
    assert seen == keys


def test_a_copy_stands_behind_its_owner_and_does_not_stand_in_for_it() -> None:
    page = merged([share(0, [], "standby")], {0: "http://1"}, limit=5)
    assert [each.state for each in page.partitions] == ["unreachable", "standby"]
    assert not page.complete
    assert not merged([share(0, ["a"], "recovering")], {0: "http://0"}, limit=5).complete
