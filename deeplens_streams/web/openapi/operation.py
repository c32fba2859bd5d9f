"""What a route says of itself to machines: typed, beside nothing that is not in the code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from deeplens_streams.client.models.json_schemas import Schema
from deeplens_streams.errors import DeepLensError
from deeplens_streams.web.responses import Handler

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One value of the address or its query."""

    name: str
    schema: Schema
    description: str
    place: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a request carries."""

    media_type: str
    schema: Schema
    required: bool = True


def json_body(properties: Mapping[str, Schema], *required: str, closed: bool = False) -> Body:
    """Return a body that is a JSON object; `closed` refuses fields that are not named."""
    schema: Schema = {"type": "object", "properties": properties, "required": list(required)}
    if closed:
        schema["additionalProperties"] = False
    return Body(media_type=JSON, schema=schema, required=bool(required))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is not the endpoint's own object, or is it under another status.

    Attributes
    ----------
    schemas : by media type; empty for an answer without a body.
    """

    description: str
    schemas: Mapping[str, Schema] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route.

    Attributes
    ----------
    handler : whose operation it is.
    name : the ``operationId``, by which generated clients call it.
    statuses : with which the endpoint's own object answers a success; none where it has none.
    answers : all others, by status.
    errors : what may be refused, and as which classes.
    """

    handler: Handler
    name: str
    tag: str
    summary: str
    details: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    statuses: tuple[int, ...] = (200,)
    answers: Mapping[int, Answer] = field(default_factory=dict)
    errors: tuple[type[DeepLensError], ...] = ()
