"""What a producer refuses is a broker that is away, which is waited for."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError, ProducerClosed, RequestTimedOutError
from faust.exceptions import NotReady, ProducerSendError

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import UPLOADED
from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerUnavailable
from tests.support.stage_messages import uploaded


def refusing(error: Exception) -> Publisher:
    """Return a publisher whose producer raises."""

    class Producer:
        async def send(self, *_record: Any, **_options: Any) -> None:
            raise error

    async def producer() -> Producer:
        return Producer()

    app: Any = SimpleNamespace(topic=lambda name, **_options: name, maybe_start_producer=producer)
    return Publisher(app, Settings(), Breakers())


def wrapped(error: KafkaError) -> ProducerSendError:
    """As Faust raises it where a record cannot be handed over."""
    refusal = ProducerSendError("Error while sending")
    refusal.__cause__ = error
    return refusal


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (RequestTimedOutError(), "RequestTimedOutError"),
        (wrapped(ProducerClosed()), "ProducerClosed"),
        (NotReady("Producer not yet started"), "NotReady"),
    ],
)
async def test_a_producer_that_takes_nothing_is_a_broker_that_is_away(
    error: Exception, named: str
) -> None:
    with pytest.raises(BrokerUnavailable, match=named):
        await refusing(error).send(Message(UPLOADED, uploaded()))
