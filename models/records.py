"""Faust Records that check what they read.

Faust's own Records take any type and, when a field is missing, say so with a Python
signature error. Messages come from strangers, so what is read here is checked first:
a required field that is missing or a value of the wrong type is a sentence that names it.

Every event is read and written several times on its way, so a record's fields are looked up
once and its values set without Faust's field descriptors, which only Faust's coercions need.
"""

import types
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Self, Union, cast, get_args, get_origin, get_type_hints

import faust

_NUMBERS = {float, int}
#: Types that are written as they are.
_PLAIN = frozenset({str, int, float, bool, type(None)})


class MalformedRecord(ValueError):
    """The data does not fit the record; the message names the field."""

    def __init__(self, reason: str, *path: str) -> None:
        self.reason, self.path = reason, path
        super().__init__(f"{'.'.join(path) or 'the message'} {reason}")

    def inside(self, name: str) -> "MalformedRecord":
        """Return the error as seen from the record that holds the field."""
        return MalformedRecord(self.reason, name, *self.path)


class WireRecord(faust.Record, abstract=True, include_metadata=False):
    """A Record whose data comes from outside this process."""

    @classmethod
    def from_wire(cls, data: object) -> Self:
        """Build the record from decoded JSON; unknown fields are ignored.

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
        """Return the record as plain dicts and lists, every field written."""
        values = vars(self)
        return {
            field.name: value if type(value) in _PLAIN else _plain(value)
            for field in _fields(cast(Any, type(self)))
            for value in (values[field.name],)
        }


class _Field(NamedTuple):
    """How one field is read; `check` is None where the type alone says all."""

    name: str
    type: Any
    check: Callable[[Any], Any] | None
    required: bool
    default: Any


@cache
def _fields(cls: Any) -> tuple[_Field, ...]:
    hints, options = get_type_hints(cls), cls._options
    fields = []
    for name in options.fields:
        hint = _without_none(hints[name])
        required = name not in options.optionalset
        fields.append(_Field(name, hint, _checker(hint), required, options.defaults.get(name)))
    return tuple(fields)


def _build(cls: Any, data: object) -> Any:
    if type(data) is not dict:
        raise MalformedRecord("is not a JSON object")
    record = cls.__new__(cls)
    values = record.__dict__
    values["__evaluated_fields__"] = set()
    for name, expected, check, required, default in _fields(cls):
        value = data.get(name)
        if value is None:
            if required:
                raise MalformedRecord("is missing", name)
            value = default
        elif check is not None:
            try:
                value = check(value)
            except MalformedRecord as error:
                raise error.inside(name) from None
        elif type(value) is not expected:
            raise MalformedRecord(f"is not of type {expected.__name__}", name)
        values[name] = value
    return record


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(each for each in get_args(hint) if each is not type(None))
    return hint


def _checker(hint: Any) -> Callable[[Any], Any] | None:
    """Return what checks and builds a value of type `hint`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list:
        return _list_checker(arguments[0])
    if origin is dict:
        return _dict_checker(arguments[1])
    if hint is float:
        return _check_number
    if isinstance(hint, type) and issubclass(hint, WireRecord):
        return lambda value: _build(hint, value)
    return None


def _check_number(value: Any) -> Any:
    if type(value) not in _NUMBERS:
        raise MalformedRecord("is not of type float")
    return value


def _check_item(item: Any, check: Callable[[Any], Any] | None, value: Any, name: str) -> Any:
    try:
        if check is not None:
            return check(value)
    except MalformedRecord as error:
        raise error.inside(name) from None
    if item is not Any and type(value) is not item:
        raise MalformedRecord(f"is not of type {item.__name__}", name)
    return value


def _list_checker(item: Any) -> Callable[[Any], Any]:
    check_item = _checker(item)

    def check(value: Any) -> Any:
        if type(value) is not list:
            raise MalformedRecord("is not a list")
        if item is float:  # a vector: one pass, no call for each number
            if not set(map(type, value)) <= _NUMBERS:
                raise MalformedRecord("holds something that is no number")
            return value
        return [_check_item(item, check_item, each, str(index)) for index, each in enumerate(value)]

    return check


def _dict_checker(item: Any) -> Callable[[Any], Any]:
    check_item = _checker(item)

    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise MalformedRecord("is not a JSON object")
        return {key: _check_item(item, check_item, each, key) for key, each in value.items()}

    return check


def _plain(value: Any) -> Any:
    if isinstance(value, WireRecord):
        return value.to_wire()
    if isinstance(value, list) and value and isinstance(value[0], WireRecord):
        return [each.to_wire() for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
