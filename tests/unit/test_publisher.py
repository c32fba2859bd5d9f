"""A broker that is away is told from a record that it does not take, and from a wrong call."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    CorruptRecordException,
    IllegalStateError,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)
from faust.exceptions import NotReady, ProducerSendError

from deeplens_streams.broker import publisher
from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import UPLOADED
from deeplens_streams.circuit_breaker import TRIES, Breakers
from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerRefused, BrokerUnavailable
from tests.support.stage_messages import uploaded


def refusing(error: Exception, breakers: Breakers) -> Publisher:
    """Return a publisher whose producer raises."""

    class Producer:
        async def send(self, *_record: Any, **_options: Any) -> None:
            raise error

    async def producer() -> Producer:
        return Producer()

    app: Any = SimpleNamespace(topic=lambda name, **_options: name, maybe_start_producer=producer)
    return Publisher(app, Settings(), breakers)


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
        (TopicAuthorizationFailedError(), "TopicAuthorizationFailedError"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
async def test_a_producer_that_takes_nothing_is_a_broker_that_is_away(
    error: Exception, named: str
) -> None:
    known = Breakers()
    for _ in range(TRIES):
        with pytest.raises(BrokerUnavailable, match=named):
            await refusing(error, known).send(Message(UPLOADED, uploaded()))
    assert known["broker"].is_open


@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), wrapped(MessageSizeTooLargeError())])
async def test_a_record_that_kafka_does_not_take_stops_no_other(error: Exception) -> None:
    known = Breakers()
    for _ in range(2 * TRIES):
        with pytest.raises(BrokerRefused, match="MessageSizeTooLargeError"):
            await refusing(error, known).send(Message(UPLOADED, uploaded()))
    assert not known["broker"].is_open


@pytest.mark.parametrize(
    "error", [IllegalStateError(), wrapped(IllegalStateError()), TypeError("no bytes")]
)
async def test_a_wrong_call_stays_one(error: Exception) -> None:
    known = Breakers()
    for _ in range(2 * TRIES):
        with pytest.raises(type(error)):
            await refusing(error, known).send(Message(UPLOADED, uploaded()))
    assert not known["broker"].is_open


@pytest.mark.parametrize("error", [CorruptRecordException(), InvalidTimestampError()])
async def test_what_a_network_or_a_clock_does_is_no_fault_of_a_record(error: Exception) -> None:
    with pytest.raises(BrokerUnavailable, match=type(error).__name__):
        await refusing(error, Breakers()).send(Message(UPLOADED, uploaded()))


async def test_of_what_cannot_be_written_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Breakers()
    sender = refusing(AssertionError("sent"), known)
    monkeypatch.setattr(publisher, "FAILED", SimpleNamespace(max_bytes=100))
    for _ in range(TRIES):
        known["broker"].note(BrokerUnavailable())
    with pytest.raises(BrokerRefused, match="larger"):
        await sender.send(Message(UPLOADED, uploaded()))
    assert known["broker"].is_open, "Kafka was not asked"
