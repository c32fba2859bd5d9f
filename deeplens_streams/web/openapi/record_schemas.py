"""JSON Schema of what this system writes and reads, made from the records themselves."""

import inspect
import types
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from deeplens_streams.client.models.json_schemas import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    Schema,
    array,
    mapping,
    nullable,
    ref,
)
from models.records import WireRecord

_SIMPLE: Final[dict[Any, Schema]] = {
    str: STRING,
    int: INTEGER,
    float: NUMBER,
    bool: BOOLEAN,
    Any: {},
}


def record_schema(record: type[WireRecord], *, reading: bool = False) -> Schema:
    """Return the schema of a record; nested records are references.

    Parameters
    ----------
    reading : what is taken, where fields with a default may be missing or null; otherwise what
        is written, where every field is there.
    """
    hints: dict[str, Any] = get_type_hints(record)
    options: Any = getattr(record, "_options")  # noqa: B009 - Faust's own, which has no types
    optional = set(options.optionalset)
    properties = {
        name: nullable(_of_hint(hints[name]))
        if reading and name in optional and not _takes_none(hints[name])
        else _of_hint(hints[name])
        for name in options.fields
    }
    return {
        "type": "object",
        "description": inspect.cleandoc(record.__doc__ or "").partition("\n")[0]
        if record.__doc__ and not record.__doc__.startswith(f"{record.__name__}(")
        else record.__name__,
        "properties": properties,
        "required": [name for name in properties if not (reading and name in optional)],
    }


def nested_records(record: type[WireRecord]) -> set[type[WireRecord]]:
    """Return the record and those that are inside it, at any depth."""
    found = {record}
    for hint in get_type_hints(record).values():
        for inner in _records_of(hint):
            found |= nested_records(inner)
    return found


def _records_of(hint: Any) -> set[type[WireRecord]]:
    if isinstance(hint, type) and get_origin(hint) is None and issubclass(hint, WireRecord):
        return {hint}
    return {inner for each in get_args(hint) for inner in _records_of(each)}


def _takes_none(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _of_hint(hint: Any) -> Schema:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(each for each in arguments if each is not type(None))
        return nullable(_of_hint(inner))
    if origin is list:
        return array(_of_hint(arguments[0]))
    if origin is dict:
        return mapping(_of_hint(arguments[1]))
    if isinstance(hint, type) and issubclass(hint, WireRecord):
        return ref(hint.__name__)
    return dict(_SIMPLE[hint])
