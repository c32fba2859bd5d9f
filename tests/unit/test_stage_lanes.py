"""Events of a partition whose rows cannot be had wait; those of other partitions go on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from faust.streams import current_event

from deeplens_streams.broker import codec
from deeplens_streams.broker.faust_transport import set_current_event
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import PROGRESS
from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.pipeline.stage import Stage
from models.status import ImageProgress, ImageProgressData
from tables.lanes import NotNow

IMAGE = "img_98765432-4321-4321-4321-210987654321"
BROKEN, SOUND = 3, 1


@dataclass(eq=False)
class Incoming:
    """A Faust event."""

    value: bytes
    message: SimpleNamespace
    acked: bool = False

    def ack(self) -> None:
        self.acked = True


@dataclass
class Rows:
    """A table of which one partition is mended for a while."""

    there: asyncio.Event = field(default_factory=asyncio.Event)
    is_ours: bool = True
    done: list[tuple[int, int]] = field(default_factory=list)
    written_to: list[int] = field(default_factory=list)

    async def process(self, event: ImageProgress) -> list[Message]:
        partition, offset = event.place
        if partition == BROKEN and not self.there.is_set():
            raise NotNow(self.until_there)
        handled = current_event()
        assert handled is not None
        self.written_to.append(handled.message.partition)
        self.done.append((partition, offset))
        return []

    async def until_there(self) -> bool:
        await self.there.wait()
        return self.is_ours


class Stream:
    """Hands out events, and ends when it is told to."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Incoming | None] = asyncio.Queue()
        self.enable_acks = True
        self.channel = SimpleNamespace(empty=self.queue.empty)

    def put(self, partition: int, offset: int) -> Incoming:
        event = ImageProgress.new(
            "acme", ImageProgressData(imageId=IMAGE, reports=[]), correlationId="c"
        )
        message = SimpleNamespace(partition=partition, offset=offset, topic=PROGRESS.base, key=b"k")
        incoming = Incoming(codec.encode(event), message)
        self.queue.put_nowait(incoming)
        return incoming

    async def events(self) -> AsyncIterator[Any]:
        while (event := await self.queue.get()) is not None:
            set_current_event(event)
            yield event


def stage(rows: Rows) -> Stage[ImageProgress]:
    async def publish(*_messages: Message) -> None:
        pass

    return Stage(
        name="status_tracking",
        record=ImageProgress,
        process=rows.process,
        publish=publish,
        breakers=Breakers(),
        batch_size=8,
    )


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_other_partitions_go_on_and_the_one_keeps_its_order() -> None:
    rows, stream = Rows(), Stream()
    first = [stream.put(BROKEN, 0), stream.put(SOUND, 0), stream.put(BROKEN, 1)]
    running = asyncio.create_task(stage(rows).run(stream))
    await until(lambda: first[1].acked)  # also with one behind it that waits
    later = [stream.put(SOUND, 1), stream.put(BROKEN, 2)]
    await until(lambda: later[0].acked)
    assert rows.done == [(SOUND, 0), (SOUND, 1)]
    assert not any(each.acked for each in (first[0], first[2], later[1]))
    rows.there.set()
    await until(lambda: later[1].acked and first[0].acked and first[2].acked)
    assert rows.done[2:] == [(BROKEN, 0), (BROKEN, 1), (BROKEN, 2)]
    assert rows.written_to == [SOUND, SOUND, BROKEN, BROKEN, BROKEN]
    last = stream.put(BROKEN, 3)
    await until(lambda: last.acked)
    await stream.queue.put(None)
    await running


async def test_a_partition_that_went_to_another_worker_is_left_to_it() -> None:
    rows, stream = Rows(is_ours=False), Stream()
    held = stream.put(BROKEN, 0)
    running = asyncio.create_task(stage(rows).run(stream))
    sound = stream.put(SOUND, 0)
    await until(lambda: sound.acked)
    rows.there.set()
    await stream.queue.put(None)
    await running
    assert not held.acked
    assert rows.done == [(SOUND, 0)]


async def test_one_that_is_stopped_acknowledges_nothing_that_waits() -> None:
    rows, stream = Rows(), Stream()
    held = stream.put(BROKEN, 0)
    running = asyncio.create_task(stage(rows).run(stream))
    sound = stream.put(SOUND, 0)
    await until(lambda: sound.acked)
    running.cancel()
    await asyncio.wait([running])
    rows.there.set()
    await asyncio.sleep(0)
    assert (held.acked, rows.done) == (False, [(SOUND, 0)])
