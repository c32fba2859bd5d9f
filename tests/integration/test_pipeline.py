"""One picture from upload to search, through real processes and a real Kafka."""

import asyncio
import base64
import shutil
from typing import Any

import aiohttp
import orjson
import pytest
from aiokafka import AIOKafkaProducer

from deeplens_streams.broker import codec
from deeplens_streams.broker.topology import (
    COMPLETED,
    DELETED,
    EXTRACTION,
    FAILED,
    INDEXING,
    PROGRESS,
    STATUS,
    TENANT_CHANGES,
    TENANTS,
    TOPICS,
    UPLOADED,
)
from models.events import ProcessingCompleted, ProcessingFailed
from tests.support.photographs import as_jpeg, cropped_copy, photograph, photographs
from tests.support.pipeline import count_points, read_all, small_picture
from tests.support.system import System, until

pytestmark = pytest.mark.kafka


async def test_an_upload_completes_and_is_found_by_a_copy(system: System) -> None:
    worker = await system.started(EXTRACTOR_URL="")
    client = system.client(worker)
    picture = photograph("chelsea").data
    mine = await client.upload(picture, **{"tags[animal]": "cat"})
    others = [await client.upload(photograph(name).data) for name in ("coffee", "rocket")]
    assert set((await client.until_final([mine, *others])).values()) == {"completed"}

    hits = await client.search(queryImage=cropped_copy(picture), threshold=-1)
    assert hits[0]["imageId"] == mine
    assert len(hits) == 3
    alike = await client.search(imageId=others[0], threshold=-1)
    assert {hit["imageId"] for hit in alike} == {mine, others[1]}
    only_cats = await client.search(
        queryImage=picture, threshold=-1, filters='{"tags.animal": "cat"}'
    )
    assert [hit["imageId"] for hit in only_cats] == [mine]
    stranger = system.client(worker, tenant="acmecorp")
    assert await stranger.search(queryImage=picture, threshold=-1) == []

    status = await client.status(mine)
    assert status["percentComplete"] == 100
    assert {step["step"]: step["status"] for step in status["processingSteps"]} == {
        "image_processing": "completed",
        "thumbnail_generation": "completed",
        "feature_extraction": "completed",
        "vector_indexing": "completed",
    }
    (event,) = [
        decoded
        for message in await read_all(system, COMPLETED)
        if (decoded := codec.decode(ProcessingCompleted, message.value)).image_id == mine
    ]
    assert event.data.status == "success"
    assert event.correlationId == status["correlationId"]


async def test_two_workers_share_the_table_and_answer_for_each_other(crowded: System) -> None:
    one = await crowded.started("one")
    two = await crowded.started("two", roles="api")
    first, second = crowded.client(one), crowded.client(two)
    picture = small_picture()
    ids = list(
        await asyncio.gather(
            *(client.upload(picture) for client in (first, second) for _ in range(100))
        )
    )
    assert len(set(ids)) == 200
    await first.until_final(ids)
    for client in (first, second):
        answers = await asyncio.gather(*(client.status(image_id) for image_id in ids))
        assert {answer["status"] for answer in answers} == {"completed"}

    # The rows are spread over both workers, so about half of these are the other one's.
    for client in (first, second):
        for image_id in ids[:8]:
            url = f"/hub/processing-status?imageId={image_id}"
            async with client.http.ws_connect(url) as socket:
                assert (await socket.receive_json(timeout=5))["status"] == "completed"
                assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE


async def test_a_watcher_at_either_worker_sees_every_step(system: System) -> None:
    one = await system.started("one")
    two = await system.started("two", roles="api")
    uploader = system.client(one)
    watcher = system.client(two)
    for _ in range(4):
        image_id = await uploader.upload(small_picture())
        url = f"/hub/processing-status?imageId={image_id}"
        async with watcher.http.ws_connect(url) as socket, asyncio.timeout(20):
            seen = [message.json() async for message in socket]
            assert socket.close_code == 1000
        assert seen[-1]["status"] == "completed"
        percents = [each["percentComplete"] for each in seen]
        assert percents == sorted(percents)


async def test_a_killed_worker_loses_nothing_and_repeats_nothing(crowded: System) -> None:
    worker = await crowded.started()
    client = crowded.client(worker)
    picture = small_picture()
    ids: list[str] = []

    async def upload_until_dead() -> None:
        try:
            while len(ids) < 200:
                ids.append(await client.upload(picture))
        except aiohttp.ClientError:
            return

    uploads = [asyncio.create_task(upload_until_dead()) for _ in range(8)]
    await until(lambda: _reached(ids, 100), "100 uploads answered")
    worker.kill()
    await asyncio.gather(*uploads)

    worker.start()
    await worker.until_ready()
    while len(ids) < 200:
        ids.append(await client.upload(picture))
    states = await client.until_final(ids)
    assert set(states.values()) == {"completed"}

    await asyncio.to_thread(worker.stop)
    completed = [
        codec.decode(ProcessingCompleted, message.value)
        for message in await read_all(crowded, COMPLETED)
    ]
    event_ids: dict[str | None, set[str]] = {}
    for event in completed:
        event_ids.setdefault(event.image_id, set()).add(event.eventId)
    # An upload that was cut off before its answer may have been completed as well.
    assert set(ids) <= set(event_ids)
    assert all(len(each) == 1 for each in event_ids.values())
    assert await count_points(crowded, "acme-corp") == len(event_ids)


async def test_a_worker_that_is_stopped_at_work_loses_nothing(crowded: System) -> None:
    worker = await crowded.started()
    client = crowded.client(worker)
    ids = await asyncio.gather(*(client.upload(small_picture()) for _ in range(60)))
    await asyncio.to_thread(worker.stop)
    worker.start()
    await worker.until_ready()
    assert set((await client.until_final(list(ids))).values()) == {"completed"}


async def test_each_line_that_a_worker_says_is_one_of_its_log(system: System) -> None:
    worker = await system.started()
    await asyncio.to_thread(worker.stop)
    lines = [orjson.loads(line) for line in worker.log().splitlines()]
    assert lines[0]["event"] == "worker begins"
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)


async def test_workers_that_come_and_go_at_work_lose_nothing(crowded: System) -> None:
    client = crowded.client(await crowded.started("one"))
    picture = small_picture()
    ids: list[str] = []
    uploading = True

    async def upload() -> None:
        while uploading:
            ids.append(await client.upload(picture))
            await asyncio.sleep(0.1)

    uploads = [asyncio.create_task(upload()) for _ in range(4)]
    for name in ("two", "three"):
        other = crowded.worker(name, roles="api,process")
        other.start()
        await other.until_ready()
        await asyncio.to_thread(other.stop)
    uploading = False
    await asyncio.gather(*uploads)
    assert set((await client.until_final(ids)).values()) == {"completed"}


async def _reached(ids: list[str], count: int) -> bool:
    return len(ids) >= count


async def test_a_wiped_table_is_recovered_from_its_changelog(crowded: System) -> None:
    worker = await crowded.started()
    client = crowded.client(worker)
    ids = [await client.upload(small_picture()) for _ in range(20)]
    await client.until_final(ids)
    before = [(await client.status(image_id))["lastUpdated"] for image_id in ids]
    await asyncio.to_thread(worker.stop)
    shutil.rmtree(crowded.folder / "state-one")

    worker.start()
    await worker.until_ready()
    after = [await client.status(image_id) for image_id in ids]
    assert [each["lastUpdated"] for each in after] == before
    assert {each["status"] for each in after} == {"completed"}


async def test_a_standby_takes_over_the_rows_of_a_killed_worker(crowded: System) -> None:
    one = await crowded.started("one", STANDBY_REPLICAS="1")
    two = await crowded.started("two", roles="api", STANDBY_REPLICAS="1")
    first, second = crowded.client(one), crowded.client(two)
    ids = [await first.upload(small_picture()) for _ in range(60)]
    await first.until_final(ids)

    async def has_copies() -> bool:
        """Tell whether the second has on disk what the first has: nothing is left to be read."""
        async with second.http.get("/tables/image_status?limit=1") as response:
            partitions = (await response.json())["partitions"]
        owned, copies = (
            {
                each["partition"]: each
                for each in partitions
                if (each["worker"], each["state"]) == (worker.url, state)
            }
            for worker, state in ((one, "ready"), (two, "standby"))
        )
        # Of these alone there are rows that it could lose.
        assert sum(each["rows"] for each in owned.values()) > 0
        return owned.keys() == copies.keys() and all(
            each["changelogLag"] == 0 for each in copies.values()
        )

    await until(has_copies, "the second worker has a copy of each of the first one's partitions")
    one.kill()
    unanswered = set(ids)

    async def all_answered() -> bool:
        for image_id in list(unanswered):
            async with second.http.get(f"/api/v1/images/{image_id}/status") as response:
                answer = await response.json()
            if response.status == 503:
                assert response.headers["Retry-After"]
                return False
            # Never 404, and never an older state.
            assert (response.status, answer["status"]) == (200, "completed")
            unanswered.discard(image_id)
        return True

    await until(all_answered, "all statuses of the survivor")


async def test_an_undecodable_message_on_each_topic_stops_nothing(system: System) -> None:
    worker = await system.started()
    client = system.client(worker)
    garbage = [b"x", b"\xff\xfe\x00", b'{"eventType": 7}', b"[]"]
    producer = AIOKafkaProducer(bootstrap_servers=system.broker.removeprefix("kafka://"))
    await producer.start()
    for topic in TOPICS:
        for partition in range(topic.partitions):
            for value in garbage:
                # The key is no key of ours either.
                await producer.send_and_wait(
                    topic.name(system.namespace), value, key=b"\xff", partition=partition
                )
    await producer.stop()

    ids = [await client.upload(small_picture()) for _ in range(12)]
    assert set((await client.until_final(ids)).values()) == {"completed"}

    read_by_agents = (
        *(UPLOADED, EXTRACTION, INDEXING, DELETED, PROGRESS, COMPLETED, FAILED),
        TENANT_CHANGES,
    )
    assert set(TOPICS) - set(read_by_agents) == {STATUS, TENANTS}
    expected = sum(topic.partitions * len(garbage) for topic in read_by_agents)
    letters: dict[tuple[Any, ...], str] = {}

    async def all_there() -> bool:
        for message in await read_all(system, FAILED):
            if message.value in garbage:
                continue
            letter = codec.decode(ProcessingFailed, message.value)
            origin = letter.data.originalEvent
            assert origin is not None
            place = (origin["topic"], origin["partition"], origin["offset"])
            letters[place] = origin["valueBase64"]
            assert letter.data.errorCode == "MALFORMED_EVENT"
        return len(letters) == expected

    await until(all_there, f"{expected} dead letters")
    assert {base64.b64decode(value) for value in letters.values()} == set(garbage)
    assert worker.process is not None
    assert worker.process.poll() is None


async def test_the_photographs_find_themselves(system: System) -> None:
    worker = await system.started()
    client = system.client(worker, tenant="photographs")
    pictures = photographs()
    ids = [await client.upload(picture.data) for picture in pictures]
    assert set((await client.until_final(ids)).values()) == {"completed"}
    first = 0
    for picture, image_id in zip(pictures, ids, strict=True):
        query = cropped_copy(picture.data)
        hits = await client.search(queryImage=query, threshold=-1, limit=1)
        first += hits[0]["imageId"] == image_id
        stranger = system.client(worker, tenant="stranger")
        assert await stranger.search(queryImage=query, threshold=-1) == []
    assert first >= 0.7 * len(pictures)


async def test_a_picture_that_only_decoding_finds_bad_fails_alone(system: System) -> None:
    worker = await system.started()
    client = system.client(worker)
    whole = as_jpeg(photograph("coffee").data)
    cut = await client.upload(whole[: len(whole) // 2])
    good = [await client.upload(small_picture()) for _ in range(5)]
    states = await client.until_final([cut, *good])
    assert states.pop(cut) == "failed"
    assert set(states.values()) == {"completed"}
    status = await client.status(cut)
    assert status["errorCode"] == "UNDECODABLE_IMAGE"
    assert status["errorMessage"]
    (letter,) = [
        codec.decode(ProcessingFailed, message.value) for message in await read_all(system, FAILED)
    ]
    assert letter.data.imageId == cut
    assert letter.data.failedStep == "feature_extraction"
    assert letter.data.originalEvent is not None
    assert letter.data.originalEvent["data"]["imageId"] == cut


async def test_a_forged_event_of_another_tenant_is_dropped(system: System) -> None:
    worker = await system.started()
    client = system.client(worker)
    image_id = await client.upload(small_picture())
    await client.until_final([image_id])
    (message,) = await read_all(system, INDEXING)
    forged = message.value.replace(b'"acme-corp"', b'"evil-corp"')
    assert forged != message.value
    producer = AIOKafkaProducer(bootstrap_servers=system.broker.removeprefix("kafka://"))
    await producer.start()
    await producer.send_and_wait(INDEXING.name(system.namespace), forged, key=message.key)
    await producer.stop()
    after = await client.upload(small_picture())
    await client.until_final([after])
    thief = system.client(worker, tenant="evil-corp")
    assert await thief.search(queryImage=small_picture(), threshold=-1) == []
