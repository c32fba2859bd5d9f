"""A row that a newer version wrote, read and written again by this one, on a real Kafka."""

import shutil
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import CHANGELOGS, PROGRESS, STATUS
from models.status import ImageProgress, ImageProgressData, StepReport, StepStatus
from tests.support.pipeline import read_all, small_picture
from tests.support.system import System, until

pytestmark = pytest.mark.kafka

(ROWS,) = [topic for topic in CHANGELOGS if "image_status" in topic.base]
#: What only a newer version has in a row, and in a step of it.
NEWS = {"schemaVersion": "1.9", "faces": [{"at": [1, 2], "of": None}]}
STEP = {"step": "face_detection", "status": "half_done", "score": 0.5}


async def last(system: System, topic: Topic, image_id: str) -> Any:
    """Return the last message about an image."""
    messages = [each for each in await read_all(system, topic) if each.key == image_id.encode()]
    assert len({each.partition for each in messages}) == 1
    return max(messages, key=lambda each: each.offset)


async def send(system: System, topic: Topic, value: bytes, like: Any) -> None:
    """Write a message behind one of the same key."""
    producer = AIOKafkaProducer(bootstrap_servers=system.broker.removeprefix("kafka://"))
    await producer.start()
    try:
        name = topic.name(system.namespace)
        await producer.send_and_wait(name, value, key=like.key, partition=like.partition)
    finally:
        await producer.stop()


async def test_it_keeps_what_only_that_one_knows(system: System) -> None:
    worker = await system.started()
    client = system.client(worker)
    image_id = await client.upload(small_picture())
    await client.until_final([image_id])
    worker.stop()

    row = await last(system, ROWS, image_id)
    known = orjson.loads(row.value)
    newer = known | NEWS | {"steps": [*known["steps"], STEP]}
    await send(system, ROWS, orjson.dumps(newer), row)
    shutil.rmtree(worker.state)
    worker.start()
    await worker.until_ready()
    (shown,) = (await client.status(image_id))["otherSteps"]
    assert (shown["step"], shown["status"]) == ("face_detection", "in_progress")

    data = ImageProgressData(
        imageId=image_id,
        reports=[StepReport(step="virus_scan", status=StepStatus.COMPLETED)],
    )
    late = ImageProgress.new("acme-corp", data, correlationId=known["correlationId"])
    await send(system, PROGRESS, codec.encode(late), row)

    async def is_told() -> bool:
        return len((await client.status(image_id))["otherSteps"]) == 2

    await until(is_told, "the row has both")
    assert (await client.status(image_id))["status"] == "completed"
    worker.stop()
    written = orjson.loads((await last(system, ROWS, image_id)).value)
    told = orjson.loads((await last(system, STATUS, image_id)).value)["data"]
    assert written == told
    assert {name: written[name] for name in NEWS} == NEWS
    assert [step["step"] for step in written["steps"]][-2:] == ["face_detection", "virus_scan"]
    assert STEP.items() <= written["steps"][-2].items()
