"""Faust's Kafka transport, with a rebalance that loses nothing.

At the end of a rebalance Faust empties the buffers of its streams and goes back to the committed
offsets. The Kafka client goes back only where one above 0 was committed; in the other partitions
what was buffered is skipped. So the first events of a new system were lost when a second worker
joined at that moment.
"""

from faust.transport.drivers import aiokafka


class Consumer(aiokafka.Consumer):
    """Goes back to the beginning of partitions in which nothing was committed yet."""

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
