"""Faust's Kafka transport, with a rebalance that loses nothing and a cheaper way of reading.

At the end of a rebalance Faust empties the buffers of its streams and goes back to the committed
offsets. The Kafka client goes back only where one above 0 was committed; in the other partitions
what was buffered is skipped. So the first events of a new system were lost when a second worker
joined at that moment.

Faust hands on each message with four tasks of asyncio, and asks Kafka again at once. Under load
that is a request for every message or two, which costs more CPU than what the message asks for.
"""

import asyncio
from collections.abc import Sequence

from faust.transport.drivers import aiokafka
from faust.types import TP, Message
from mode import ServiceT

#: Seconds between two reads while there is something to read: messages gather meanwhile. The
#: first message after a silence does not wait.
REST_S = 0.03


class Consumer(aiokafka.Consumer):
    """Reads in bunches; goes back to the beginning where nothing was committed yet."""

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Hand every message to the agents that read its topic, until the fetcher stops."""
        while not (self.should_stop or fetcher.should_stop):
            try:
                messages = [each async for each in self.getmany(timeout=1.0)]
                if not messages:
                    await asyncio.sleep(0)
                    continue
                # A rebalance interrupts: what was not handed on is read again after it.
                await self.wait_first(self._hand_on(messages), self.suspend_flow.wait())
            except self.consumer_stopped_errors:
                if self.app.should_stop:
                    return
                raise
            await self.sleep(REST_S)

    async def _hand_on(self, messages: Sequence[tuple[TP, Message]]) -> None:
        for tp, message in messages:
            read = self._read_offset[tp]
            if read is not None and message.offset < read:
                continue
            if (
                read
                and message.offset > read + 1
                and self.app.topics.acks_enabled_for(message.topic)
            ):
                # What retention removed is never acknowledged, and must not stop commits.
                await self._add_gap(tp, read + 1, message.offset - 1)
            await self.callback(message)
            self._read_offset[tp] = message.offset

    async def perform_seek(self) -> None:
        await super().perform_seek()
        changelogs = self.app.tables.changelog_topics
        untouched = [
            tp
            for tp in self.assignment()
            if tp.topic not in changelogs and not self._read_offset[tp]
        ]
        if not untouched:
            return
        for tp, offset in (await self.earliest_offsets(*untouched)).items():
            await self.seek(tp, offset)


class Transport(aiokafka.Transport):
    """As Faust's, with our consumer."""

    Consumer = Consumer
