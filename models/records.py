"""Faust Records that check what they read.

Faust's own Records take any type and, when a field is missing, say so with a Python
signature error. Messages come from strangers, so what is read here is checked first:
a required field that is missing or a value of the wrong type is a sentence that names it.
"""

import types
from functools import cache
from typing import Any, Self, Union, cast, get_args, get_origin, get_type_hints

import faust

_NUMBERS = {float, int}


class MalformedRecord(ValueError):
    """The data does not fit the record; the message names the field."""


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
        built: Self = _build(cls, data, "")
        return built

    def to_wire(self) -> dict[str, Any]:
        """Return the record as plain dicts and lists, every field written."""
        return {name: _plain(getattr(self, name)) for name in _fields(cast(Any, type(self)))}


@cache
def _fields(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Map each field to its type and whether reading requires it."""
    hints = get_type_hints(cls)
    options = cls._options
    return {name: (hints[name], name not in options.optionalset) for name in options.fields}


def _build(cls: Any, data: object, path: str) -> Any:
    if not isinstance(data, dict):
        raise MalformedRecord(f"{path or 'the message'} is not a JSON object")
    values = {}
    for name, (hint, required) in _fields(cls).items():
        where = f"{path}.{name}" if path else name
        value = data.get(name)
        if value is None:
            if required:
                raise MalformedRecord(f"{where} is missing")
            continue
        values[name] = _check(hint, value, where)
    return cls(**values)


def _check(hint: Any, value: object, path: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
        origin = get_origin(hint)
    if origin is list:
        return _check_list(get_args(hint)[0], value, path)
    if origin is dict:
        return _check_dict(get_args(hint)[1], value, path)
    if isinstance(hint, type) and issubclass(hint, WireRecord):
        return _build(hint, value, path)
    if type(value) is not hint and not (hint is float and type(value) is int):
        raise MalformedRecord(f"{path} is not of type {hint.__name__}")
    return value


def _check_list(item: Any, value: object, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedRecord(f"{path} is not a list")
    if item is float:  # a vector: one pass, no call for each number
        if not set(map(type, value)) <= _NUMBERS:
            raise MalformedRecord(f"{path} holds something that is no number")
        return value
    return [_check(item, each, f"{path}[{index}]") for index, each in enumerate(value)]


def _check_dict(item: Any, value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedRecord(f"{path} is not a JSON object")
    if item is Any:
        return value
    return {key: _check(item, each, f"{path}.{key}") for key, each in value.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, WireRecord):
        return value.to_wire()
    if isinstance(value, list) and value and isinstance(value[0], WireRecord):
        return [each.to_wire() for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
