"""Checks of what a record's fields are read from: one for each type of field."""

import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

#: Returns a field's value, or raises `MalformedRecord`.
Check = Callable[[Any], Any]
#: Returns the check of a type that is a record, and None for every other.
OfRecord = Callable[[Any], Check | None]

_NUMBERS = {float, int}


class MalformedRecord(ValueError):
    """The data does not fit the record; the message names the field."""

    def __init__(self, reason: str, *path: str) -> None:
        self.reason, self.path = reason, path
        super().__init__(f"{'.'.join(path) or 'the message'} {reason}")

    def inside(self, name: str) -> "MalformedRecord":
        """Return the error as seen from the record that holds the field."""
        return MalformedRecord(self.reason, name, *self.path)


def without_none(hint: Any) -> Any:
    """Return the type that a field has where it is not null."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(each for each in get_args(hint) if each is not type(None))
    return hint


def checker(hint: Any, of_record: OfRecord) -> Check | None:
    """Return what checks and builds a value of type `hint`; None where the type alone says all.

    Parameters
    ----------
    of_record : returns what does so for a record; None for all other types.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list:
        return _list_checker(arguments[0], of_record)
    if origin is dict:
        return _dict_checker(arguments[1], of_record)
    if hint is float:
        return _check_number
    return of_record(hint)


def _check_number(value: Any) -> Any:
    if type(value) not in _NUMBERS:
        raise MalformedRecord("is not of type float")
    return value


def _item_checker(item: Any, of_record: OfRecord) -> Check:
    """Return what checks and builds one of many values of type `item`."""

    def check(value: Any) -> Any:
        if item is not Any and type(value) is not item:
            raise MalformedRecord(f"is not of type {item.__name__}")
        return value

    return checker(item, of_record) or check


def _list_checker(item: Any, of_record: OfRecord) -> Check:
    check_item = _item_checker(item, of_record)

    def check(value: Any) -> Any:
        if type(value) is not list:
            raise MalformedRecord("is not a list")
        if item is float:  # a vector: one pass, no call for each number
            if not set(map(type, value)) <= _NUMBERS:
                raise MalformedRecord("holds something that is no number")
            return value
        found: list[Any] = []
        try:
            for each in value:
                found.append(check_item(each))  # noqa: PERF401 -- says how far it came
        except MalformedRecord as error:
            raise error.inside(str(len(found))) from None
        return found

    return check


def _dict_checker(item: Any, of_record: OfRecord) -> Check:
    check_item = _item_checker(item, of_record)

    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise MalformedRecord("is not a JSON object")
        found, key = {}, ""
        try:
            for key, each in value.items():
                found[key] = check_item(each)
        except MalformedRecord as error:
            raise error.inside(key) from None
        return found

    return check
