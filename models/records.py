"""Faust Records that check what they read.

Faust's own Records take any type and, when a field is missing, say so with a Python
signature error. Messages come from strangers, so what is read here is checked first:
a required field that is missing or a value of the wrong type is a sentence that names it.

Fields that are not known here are a newer version's, which may run beside this one: a record
keeps them, and they are written again with it (docs/upgrading.md).

Every event is read and written several times on its way, so a record's fields are looked up
once, and are plain attributes: Faust's field descriptors only serve its coercions.
"""

import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, Self, cast, get_args, get_origin, get_type_hints

import faust

from models.checks import MalformedRecord, checker, without_none

__all__ = [
    "MAX_CARRIED_BYTES",
    "SCHEMA_VERSION",
    "MalformedRecord",
    "OtherMajorVersion",
    "StoredRecord",
    "WireRecord",
    "is_readable",
]

#: Types that are written as they are.
_PLAIN = frozenset({str, int, float, bool, type(None)})
#: Of records and events that this code makes. The minor number grows with a release that adds to
#: them, the major one with a release that cannot run beside those before it.
SCHEMA_VERSION = "1.0"
_MAJOR = SCHEMA_VERSION.partition(".")[0]
_VERSION = "schemaVersion"
#: Where a record keeps what it was read with and does not know; absent in most.
_UNKNOWN = "__unknown__"
#: Bytes of unknown fields, as JSON, that go from one record into another: more of them could make
#: it larger than a message may be.
MAX_CARRIED_BYTES = 8192


def is_readable(version: str) -> bool:
    """Tell whether records and events of that version can be read: any minor one of this major."""
    return version.partition(".")[0] == _MAJOR


def _minor(version: str) -> int:
    text = version.partition(".")[2]
    return int(text) if text.isdecimal() else 0


class OtherMajorVersion(MalformedRecord):
    """The record is of another major version, and for that one to read and to write."""


class WireRecord(faust.Record, abstract=True, include_metadata=False):
    """A Record whose data comes from outside this process."""

    @classmethod
    def from_wire(cls, data: object) -> Self:
        """Build the record from decoded JSON; fields that it does not know are kept aside.

        Raises
        ------
        MalformedRecord
            `data` is no object, lacks a required field, or holds a wrong type.
        """
        return cast(Self, _build(cls, data))

    @classmethod
    def from_data(cls, data: Any, *, preferred_type: Any = None) -> Self:
        """Build the record for Faust, which reads table values with this."""
        del preferred_type
        return data if isinstance(data, cls) else cls.from_wire(data)

    def to_wire(self) -> dict[str, Any]:
        """Return the record as plain dicts and lists: every field, and those it does not know."""
        values, shape = vars(self), _shape(cast(Any, type(self)))
        wire = {name: values[name] for name in shape.names}
        for name in shape.nested:
            if wire[name] is not None:
                wire[name] = _plain(wire[name])
        if _UNKNOWN in values:
            wire |= {name: each for name, each in values[_UNKNOWN].items() if name not in wire}
        return wire

    def to_representation(self) -> dict[str, Any]:
        """Return the record as Faust writes it into tables and their changelogs."""
        return self.to_wire()

    def known_fields(self) -> dict[str, Any]:
        """Return the record as `to_wire`, without what this version does not know.

        For answers: whether a newer version would show a field is not known either.
        """
        values, shape = vars(self), _shape(cast(Any, type(self)))
        found = {name: values[name] for name in shape.names}
        for name in shape.nested:
            if found[name] is not None:
                found[name] = _known(found[name])
        return found

    @property
    def unknown_fields(self) -> dict[str, Any]:
        """Fields that the record was read with and does not know; not to be changed."""
        found: dict[str, Any] = vars(self).get(_UNKNOWN, {})
        return found

    def carrying(self, other: "WireRecord | None") -> Self:
        """Have this record carry the unknown fields of one that it takes the place of, or follows.

        Its own come first. More than `MAX_CARRIED_BYTES` of them are left behind.
        """
        if other is not None and _UNKNOWN in vars(other):
            both = other.unknown_fields | self.unknown_fields
            if len(json.dumps(both)) <= MAX_CARRIED_BYTES:
                self.__dict__[_UNKNOWN] = both
        return self

    @classmethod
    def _contribute_field_descriptors(cls, target: Any, options: Any, parent: Any = None) -> Any:
        """Leave the fields plain attributes: Faust's descriptors only coerce, at every access."""
        found = super()._contribute_field_descriptors(target, options, parent)
        for name in found:
            delattr(target, name)
        return found

    # Faust makes both from the known fields, for each class anew.
    @classmethod
    def _BUILD_eq(cls) -> Any:  # noqa: N802 - Faust's name
        return _are_equal

    @classmethod
    def _BUILD_ne(cls) -> Any:  # noqa: N802 - Faust's name
        return lambda one, other: not _are_equal(one, other)


class StoredRecord(WireRecord, abstract=True, include_metadata=False):
    """A record that outlives the process that wrote it: a row of a table, an object in storage."""

    #: Of whom wrote it first, or changed it with a newer version; as `eventVersion` is of events.
    schemaVersion: str = SCHEMA_VERSION

    @classmethod
    def from_wire(cls, data: object) -> Self:
        """Build the record, unless its major version is not this one.

        Raises
        ------
        MalformedRecord
            As any record, or it is of another major version.
        """
        version = data.get(_VERSION) if isinstance(data, dict) else None
        if isinstance(version, str) and not is_readable(version):
            raise OtherMajorVersion(
                f"is {version[:20]!r}, and this system reads {_MAJOR}.x", _VERSION
            )
        return super().from_wire(data)

    def known_fields(self) -> dict[str, Any]:
        """Return the record for answers, without what is about how it is kept."""
        return {name: each for name, each in super().known_fields().items() if name != _VERSION}

    def succeeding(self, other: "StoredRecord | None") -> Self:
        """Have this record take the place of `other`: it carries what that one has beside it."""
        if other is not None and _minor(other.schemaVersion) > _minor(self.schemaVersion):
            self.schemaVersion = other.schemaVersion
        return self.carrying(other)


#: How one field is read. Values of just the type in the middle, None for those that are looked
#: into, are taken as they are; the last makes the field's value of any other, or says what is
#: wrong with it. (A plain tuple: taking a named one apart takes as long as all the rest.)
_Field = tuple[str, Any, Callable[[Any], Any]]


class _Shape(NamedTuple):
    """What a record is read and written by.

    Attributes
    ----------
    names : of all fields, in order.
    nested : those of fields in which records may be.
    """

    fields: tuple[_Field, ...]
    names: tuple[str, ...]
    known: frozenset[str]
    nested: tuple[str, ...]


@cache
def _shape(cls: Any) -> _Shape:
    hints = {name: without_none(hint) for name, hint in get_type_hints(cls).items()}
    names = tuple(cls._options.fields)
    return _Shape(
        fields=tuple(_field(cls, name, hints[name]) for name in names),
        names=names,
        known=frozenset(names),
        nested=tuple(name for name in names if _may_hold_records(hints[name])),
    )


def _field(cls: Any, name: str, hint: Any) -> _Field:
    required = name not in cls._options.optionalset
    default, check = cls._options.defaults.get(name), checker(hint, _of_record)

    def read(value: Any) -> Any:
        if value is None:
            if required:
                raise MalformedRecord("is missing", name)
            return default
        if check is None:
            raise MalformedRecord(f"is not of type {hint.__name__}", name)
        try:
            return check(value)
        except MalformedRecord as error:
            raise error.inside(name) from None

    return (name, None if check else hint, read)


def _of_record(hint: Any) -> Callable[[Any], Any] | None:
    is_record = isinstance(hint, type) and issubclass(hint, WireRecord)
    return partial(_build, hint) if is_record else None


def _build(cls: Any, data: object) -> Any:
    if type(data) is not dict:
        raise MalformedRecord("is not a JSON object")
    record = cls.__new__(cls)
    values = record.__dict__
    shape, get = _shape(cls), data.get
    for name, plain, read in shape.fields:
        value = get(name)
        values[name] = value if type(value) is plain else read(value)
    if not shape.known.issuperset(data):
        values[_UNKNOWN] = {name: each for name, each in data.items() if name not in shape.known}
    return record


def _are_equal(one: WireRecord, other: object) -> bool:
    return type(one) is type(other) and one.to_wire() == other.to_wire()


def _may_hold_records(hint: Any) -> bool:
    """Tell whether a field of this type is written otherwise than it is kept."""
    if get_origin(hint) is list:
        return _may_hold_records(get_args(hint)[0])
    return hint not in _PLAIN


def _plain(value: Any) -> Any:
    if isinstance(value, WireRecord):
        return value.to_wire()
    if isinstance(value, list) and value and isinstance(value[0], WireRecord):
        return [each.to_wire() for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _known(value: Any) -> Any:
    if isinstance(value, WireRecord):
        return value.known_fields()
    if isinstance(value, list) and value and isinstance(value[0], WireRecord):
        return [each.known_fields() for each in value]
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    return value
