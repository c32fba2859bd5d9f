"""The OpenAPI 3.1 document: every route, with each answer that it can give."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from deeplens_streams import __version__
from deeplens_streams.client.models.json_schemas import Schema, choice, ref
from deeplens_streams.errors import (
    BadRequest,
    DeepLensError,
    HostRefused,
    InvalidKey,
    KeyRequired,
    MissingScope,
    OriginRefused,
    RegistryUnavailable,
    TenantDeleting,
    TenantSuspended,
    TooManyFailures,
    WrongTenant,
)
from deeplens_streams.web.openapi import (
    admin,
    collections,
    components,
    dead_letters,
    images,
    system,
    tenants,
    trash,
)
from deeplens_streams.web.openapi.operation import JSON, Answer, Operation
from deeplens_streams.web.openapi.record_schemas import nested_records, record_schema
from deeplens_streams.web.responses import Handler
from models.admin import AdminAction
from models.events import PictureFacts, ProcessingOptions
from models.records import WireRecord
from models.status import ImageRow
from models.tenants import Limits, Usage

if TYPE_CHECKING:
    from deeplens_streams.web.middleware.auth import Route

OPERATIONS: Final[Mapping[Handler, Operation]] = {
    each.handler: each
    for module in (images, dead_letters, tenants, admin, trash, collections, system)
    for each in module.OPERATIONS
}

#: Records that answers hold; what is inside them comes along.
_RECORDS: Final[tuple[type[WireRecord], ...]] = (
    ImageRow,
    PictureFacts,
    ProcessingOptions,
    Limits,
    Usage,
    AdminAction,
)

_DESCRIPTION: Final = """\
Pictures of many tenants, and what looks like them.

Every error is the endpoint's own object with `success: false`, a `message` for people and a
stable `errorCode`; its other fields are null or empty. 429, 503 and 507 carry `Retry-After` in
seconds. Where there is GET, there is HEAD. Every answer has `X-Request-ID`. Fields may be added;
none is renamed or removed. Where API keys are off, nothing asks for one.
"""

#: What keys add to every route that has a scope.
AUTHENTICATION_ERRORS: Final[tuple[type[DeepLensError], ...]] = (
    KeyRequired,
    InvalidKey,
    MissingScope,
    WrongTenant,
    TenantSuspended,
    TenantDeleting,
    TooManyFailures,
    RegistryUnavailable,
)
_BUSY: Final = frozenset({429, 503, 507})
_INTERNAL: Final = 500


def document(routes: Sequence["Route"]) -> dict[str, Any]:
    """Return the document of `routes`.

    Raises
    ------
    KeyError
        A route's handler is described nowhere.
    """
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    schemas: dict[str, Schema] = _named_schemas()
    for route in routes:
        operation = OPERATIONS[route.handler]
        schemas[_refusal(operation)] = components.refusing(route.answer)
        paths[route.path][route.method.lower()] = _operation(operation, route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DeepLens Streams",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(each.tag for each in OPERATIONS.values())],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _named_schemas() -> dict[str, Schema]:
    records = {inner for record in _RECORDS for inner in nested_records(record)}
    named = {
        record.__name__: record_schema(record)
        for record in sorted(records, key=lambda each: each.__name__)
    }
    action = named[AdminAction.__name__]  # as `known_fields` shows it
    action["properties"].pop("schemaVersion")
    action["required"].remove("schemaVersion")
    return {**named, **components.named()}


def _operation(operation: Operation, route: "Route") -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.details:
        described["description"] = operation.details
    if operation.parameters:
        described["parameters"] = [
            {
                "name": each.name,
                "in": each.place,
                "required": each.required,
                "description": each.description,
                "schema": each.schema,
            }
            for each in operation.parameters
        ]
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body.required,
            "content": {operation.body.media_type: {"schema": operation.body.schema}},
        }
    described["responses"] = _responses(operation, route)
    if route.scope is not None:
        # With a role, as OpenAPI 3.1 has it for schemes other than OAuth's.
        described["security"] = [{"apiKey": [route.scope]}, {"bearer": [route.scope]}]
    return described


def _responses(operation: Operation, route: "Route") -> dict[str, Any]:
    found: dict[int, Any] = {}
    for status in operation.statuses:
        found[status] = _answer("Done.", {JSON: components.succeeding(route.answer)})
    for status, answer in operation.answers.items():
        more = _answer(answer.description, answer.schemas)
        if status in found:  # the same in another media type
            more["content"] |= found[status]["content"]
        found[status] = more
    for status, (words, codes) in _refusals(operation, route).items():
        schema: Schema = ref(_refusal(operation))
        if codes:
            code = {"properties": {"errorCode": choice(*sorted(codes))}}
            schema = {"allOf": [schema, code]}
        if status in found:  # readiness says no with its own fields
            schema = {"anyOf": [schema, *_schemas_of(operation.answers[status])]}
        found[status] = _answer(words, {JSON: schema}, busy=status in _BUSY)
    return {str(status): found[status] for status in sorted(found)}


def _schemas_of(answer: Answer) -> list[Schema]:
    return list(answer.schemas.values())


def _refusals(operation: Operation, route: "Route") -> dict[int, tuple[str, set[str]]]:
    """Return words and codes of what may be refused, by status; no codes mean any."""
    by_status: dict[int, list[type[DeepLensError]]] = defaultdict(list)
    # Of every route: a query that names a parameter twice, a request that is none.
    errors: tuple[type[DeepLensError], ...] = (BadRequest, *operation.errors)
    if route.scope is not None:
        errors += AUTHENTICATION_ERRORS
    # Where keys are off: a name that is not this system's, a page that changes something.
    if not route.any_host:
        errors += (HostRefused,)
    if route.method != "GET":
        errors += (OriginRefused,)
    for error in dict.fromkeys(errors):
        by_status[error.http_status].append(error)
    found = {
        status: (
            " ".join(f"`{each.code}`: {each().message}" for each in errors),
            {each.code for each in errors},
        )
        for status, errors in by_status.items()
    }
    found[_INTERNAL] = ("A fault of this program; the log has it under `X-Request-ID`.", set())
    return found


def _answer(words: str, schemas: Mapping[str, Schema], *, busy: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": words}
    if schemas:
        answer["content"] = {kind: {"schema": schema} for kind, schema in schemas.items()}
    if busy:
        answer["headers"] = {
            "Retry-After": {
                "description": "Seconds after which the same request may succeed.",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return answer


def _refusal(operation: Operation) -> str:
    return f"{operation.name[0].upper()}{operation.name[1:]}Refusal"
