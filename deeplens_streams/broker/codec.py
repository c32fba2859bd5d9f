"""Events to bytes and back; the only place that knows that messages are JSON."""

from collections.abc import Mapping
from typing import TypeVar

import orjson

from deeplens_streams.errors import MalformedEvent, NewerVersion
from deeplens_streams.identifiers import check_image_id, check_tenant_id
from models.events import Event, ProcessingFailed
from models.records import SCHEMA_VERSION, MalformedRecord, is_readable
from models.tenants import SYSTEM, TenantEvent

E = TypeVar("E", bound=Event)

_MAJOR = SCHEMA_VERSION.partition(".")[0]


def encode(event: Event) -> bytes:
    """Return the event as JSON; a numpy vector is written as it is, without a list of floats."""
    return orjson.dumps(event.to_wire(), option=orjson.OPT_SERIALIZE_NUMPY)


def decode(record: type[E], value: bytes | None) -> E:
    """Read an event that must be of `record`'s type.

    Raises
    ------
    MalformedEvent
        It is no JSON, lacks a required field, has a wrong type, is another event, or names no
        valid tenant or image.
    NewerVersion
        It has a major version that this code does not know.
    """
    if value is None:
        raise MalformedEvent("The message has no value.")
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent(f"The message is not JSON: {error}.") from None
    return from_wire(record, data)


def from_wire(record: type[E], data: object) -> E:
    """Read an event from decoded JSON; raises as `decode`."""
    _check_version(data)
    try:
        event = record.from_wire(data)
    except MalformedRecord as error:
        raise MalformedEvent(f"The message is not a {record.EVENT_TYPE} event: {error}.") from None
    if event.eventType != record.EVENT_TYPE:
        raise MalformedEvent(
            f"The message is a {event.eventType[:60]!r} event, not {record.EVENT_TYPE}."
        )
    _check_ids(event)
    # An upload sent without one begins its own chain.
    event.correlationId = event.correlationId or event.eventId
    return event


def _check_version(data: object) -> None:
    """Refuse another major version before its fields are looked at: they may be others."""
    version = data.get("eventVersion") if isinstance(data, dict) else None
    if isinstance(version, str) and not is_readable(version):
        raise NewerVersion(f"The event has version {version[:20]!r}; this system reads {_MAJOR}.x.")


def _check_ids(event: Event) -> None:
    """Refuse IDs that no part of this system would have written."""
    # Only the dead letter of a message that could not be read belongs to nobody, and only the
    # registry has a row of the system itself.
    is_nobodys = not event.tenantId and isinstance(event, ProcessingFailed)
    is_systems = event.tenantId == SYSTEM and isinstance(event, TenantEvent)
    if not (is_nobodys or is_systems):
        check_tenant_id(event.tenantId)
    image_id = event.image_id
    if image_id is not None and check_image_id(image_id) != image_id:
        raise MalformedEvent("The image ID is not in its prefixed, lower-case form.")


def headers(event: Event) -> dict[str, bytes]:
    """Return the Kafka headers that go with the event."""
    return {
        "eventType": event.eventType.encode(),
        "tenantId": event.tenantId.encode(),
        "correlationId": event.correlationId.encode(),
        "timestamp": event.timestamp.encode(),
    }


def header_text(headers: Mapping[str, bytes] | None, name: str) -> str:
    """Return a header of a message that may be a stranger's, or an empty string."""
    value = dict(headers or {}).get(name, b"")
    return value.decode("utf-8", "replace")[:200] if isinstance(value, bytes) else ""
