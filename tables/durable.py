"""A Faust table that can tell when its changelog has what was written.

Faust sends changes to the changelog behind the agent's back: neither an acknowledgement nor a
commit waits for them, and one that Kafka refuses is a line in the log. A row would then be right
on this machine's disk, and wrong for whoever recovers the table.
"""

import asyncio
from typing import Any

import faust
from faust.types import TP, FutureMessage

from deeplens_streams.errors import BrokerUnavailable
from deeplens_streams.transport import heard


class DurableTable(faust.Table[bytes, Any]):
    """Attributes
    ----------
    _unsettled : by key, the last change that may not be in the changelog.
    _sent : changes on their way there.
    """

    _unsettled: dict[bytes, dict[str, Any]]
    _sent: list[FutureMessage]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._unsettled, self._sent = {}, []

    def send_changelog(
        self, partition: int | None, key: Any, value: Any, *args: Any, **kwargs: Any
    ) -> FutureMessage:
        sent = super().send_changelog(partition, key, value, *args, **kwargs)
        heard(sent)
        self._unsettled[key] = {"partition": sent.message.partition, "value": value, **kwargs}
        self._sent.append(sent)
        return sent

    async def settled(self) -> None:
        """Return when the changelog has every change that was made so far.

        Where Kafka refused one, the next call sends the last change of each key again: an older
        one must not be the last that is said.

        Raises
        ------
        BrokerUnavailable
            Kafka refused one.
        """
        if not self._sent:
            self._send_again()
        sent, self._sent = self._sent, []
        if not sent:
            return
        await asyncio.wait(sent)  # which, when cancelled, cancels none of them
        refusals = [each.exception() for each in sent]
        refused = next((each for each in refusals if each is not None), None)
        if refused is not None:
            raise BrokerUnavailable(
                f"Kafka refused a change of a table ({type(refused).__name__})."
            ) from refused
        if not self._sent:
            self._unsettled.clear()

    def _send_again(self) -> None:
        changes, self._unsettled = self._unsettled, {}
        topic = self.changelog_topic_name
        for key, change in changes.items():
            # Whoever has the partition by now does the work anew, and has the last word.
            if self.app.assignor.is_active(TP(topic, change["partition"])):
                self.send_changelog(key=key, **change)
