"""What Kafka's client raises, by whose matter it is."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    IllegalArgumentError,
    IllegalStateError,
    InvalidRequestError,
    InvalidRequiredAcksError,
    InvalidTopicError,
    KafkaConfigurationError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RecordTooLargeError,
    UnsupportedCodecError,
    UnsupportedForMessageFormatError,
)
from faust.exceptions import NotReady, ProducerSendError

from deeplens_streams.errors import BrokerRefused, BrokerUnavailable

#: Of one record: Kafka answers, and takes others. What a clock or a network does to a whole batch
#: (InvalidTimestampError, CorruptRecordException) is none of these.
_OF_A_RECORD = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RecordTooLargeError,
)
#: Of a call that was wrong: no waiting mends it.
_OURS = (
    IllegalArgumentError,
    IllegalStateError,
    InvalidRequestError,
    InvalidRequiredAcksError,
    InvalidTopicError,
    KafkaConfigurationError,
    UnsupportedCodecError,
    UnsupportedForMessageFormatError,
)


@contextmanager
def broker_faults(what: str) -> Iterator[None]:
    """Raise this system's errors for what comes of handing records to Kafka.

    Whatever is neither the record's fault nor ours is waited for, a missing permission, too:
    waiting loses nothing, and somebody will give it.

    Parameters
    ----------
    what : that is handed over, as ``the event``.

    Raises
    ------
    BrokerRefused
        Kafka answers, and will not take this very record.
    BrokerUnavailable
        It takes nothing now.
    KafkaError
        Our call was wrong.
    """
    try:
        yield
    except (KafkaError, ProducerSendError, NotReady, OSError) as error:
        # Two are Faust's: of a producer that is being started or stopped, too.
        reason = error.__cause__ or error
        if isinstance(reason, _OURS):
            raise
        said = f"Kafka refused {what} ({type(reason).__name__})."
        raise (BrokerRefused if isinstance(reason, _OF_A_RECORD) else BrokerUnavailable)(
            said
        ) from error
