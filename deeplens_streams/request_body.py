"""What is wrong with a request's body, in this system's own words."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from deeplens_streams.errors import BadRequest


@contextmanager
def body_faults() -> Iterator[None]:
    """Raise `BadRequest` for what aiohttp raises where a body is not coded as its headers say."""
    try:
        yield
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise BadRequest("The request's body is malformed or ends early.") from error
