"""The tables as any worker shows them, on a real Kafka."""

import asyncio
from typing import Any

import pytest

from tests.support.pipeline import small_picture
from tests.support.system import Client, System, until

pytestmark = pytest.mark.kafka

TABLE = "/tables/image_status"


async def rows(client: Client, limit: int) -> tuple[list[str], dict[str, Any]]:
    """Return the keys of every page of one worker's answers, and its last one."""
    keys: list[str] = []
    params = {"limit": str(limit)}
    while True:
        async with client.http.get(TABLE, params=params) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
        assert [row["imageId"] for row in answer["rows"]] == answer["keys"]
        keys += answer["keys"]
        if answer["nextAfter"] is None:
            return keys, answer
        params["after"] = answer["nextAfter"]


async def test_any_worker_shows_every_row_and_who_has_it(system: System) -> None:
    one = await system.started("one")
    two = await system.started("two", roles="api")
    first, second = system.client(one), system.client(two)
    picture = small_picture()
    ids = await asyncio.gather(
        *(client.upload(picture) for client in (first, second) for _ in range(30))
    )
    await first.until_final(ids)
    for client in (first, second):
        keys, answer = await rows(client, 7)
        assert answer["complete"], answer["message"]
        assert keys == sorted(ids)
        owned = [each for each in answer["partitions"] if each["state"] == "ready"]
        assert [each["partition"] for each in owned] == list(range(6))
        assert {each["worker"] for each in owned} == {one.url, two.url}
        assert all(each["sizeBytes"] > 0 for each in owned if each["rows"])
        for image_id in ids[:10]:
            async with client.http.get(f"{TABLE}/{image_id}") as response:
                assert (await response.json())["row"]["imageId"] == image_id

    async def caught_up() -> bool:
        _, answer = await rows(second, 200)
        return {each["changelogLag"] for each in answer["partitions"]} == {0}

    await until(caught_up, "no partition is behind its changelog")
    for path in ("/table/", "/router/", "/table/image_status/"):
        async with second.http.get(path) as response:
            assert response.status == 404


async def test_a_worker_that_is_gone_is_said_to_be(system: System) -> None:
    one = await system.started("one")
    two = await system.started("two", roles="api")
    first = system.client(one)
    two.kill()
    _, answer = await rows(first, 50)
    missing = [each for each in answer["partitions"] if each["state"] == "unreachable"]
    assert {each["worker"] for each in missing} == {two.url}
    assert not answer["complete"]

    async def taken_over() -> bool:
        _, answer = await rows(first, 50)
        return bool(answer["complete"])

    await until(taken_over, "the rows have another owner")
