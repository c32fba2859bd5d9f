"""Bodies in JSON: an object, whose fields are checked one by one."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from deeplens_streams.errors import BadRequest, UploadTooSlow
from deeplens_streams.request_body import body_faults

#: Seconds that a whole body may take: it is short.
DEADLINE_S: Final = 10.0


async def read_raw(request: web.Request) -> bytes:
    """Return the body as it came.

    Raises
    ------
    BadRequest
        It is not coded as its headers say.
    UploadTooSlow
        It is not there in time.
    """
    try:
        async with asyncio.timeout(DEADLINE_S):
            with body_faults():
                return await request.read()
    except TimeoutError:
        raise UploadTooSlow from None


async def read_body(request: web.Request) -> dict[str, Any]:
    """Return the JSON object that came, or an empty one if nothing did."""
    raw = await read_raw(request)
    try:
        body = orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise BadRequest("The body is a JSON object, or empty.")
    return body


def allow_only(body: dict[str, Any], names: Sequence[str]) -> None:
    """Raise for a field that nobody knows: it is a slip that would go unseen."""
    for name in body:
        if name not in names:
            raise BadRequest(f"There is no field {name[:60]!r}; there are {', '.join(names)}.")


def text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} is a string.")
    return value


def line(body: dict[str, Any], name: str, *, most: int) -> str:
    """Return one line of up to `most` characters that can be shown, or an empty one."""
    value = (text(body, name) or "").strip()
    if len(value) > most or not value.isprintable():
        raise BadRequest(f"{name} is one line of up to {most} characters.")
    return value


def flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} is true or false.")
    return value


def whole(body: dict[str, Any], name: str, *, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise BadRequest(f"{name} is a whole number from {low:,} to {high:,}, or null.")
    return value
