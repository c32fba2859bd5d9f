"""Health, the status table, documents and pages."""

from typing import Final

from deeplens_streams.client.models.json_schemas import IMAGE_ID, STRING, Schema, array, ref
from deeplens_streams.errors import (
    BadRequest,
    InvalidImageId,
    NotFound,
    TableNotFound,
    TableRowNotFound,
)
from deeplens_streams.web.assets import TYPES
from deeplens_streams.web.handlers import documents, health, internal, pages, tables
from deeplens_streams.web.openapi import parts
from deeplens_streams.web.openapi.operation import JSON, Answer, Body, Operation, Parameter

_TEXT: Final[Schema] = {"type": "string"}
_PAGE: Final = Answer(description="The page.", schemas={"text/html": _TEXT})
_UNCHANGED: Final = Answer(description="The client has it (`If-None-Match`).")
_PAGE_TOO: Final = {200: _PAGE, 304: _UNCHANGED}
_TABLE: Final = Parameter(
    name="name", schema=STRING, description="The table.", place="path", required=True
)
_KEY: Final = Parameter(
    name="key", schema=STRING, description="The row's key.", place="path", required=True
)
_AFTER: Final = Parameter(
    name="after", schema=STRING, description="The `nextAfter` of the page before."
)

OPERATIONS: Final = (
    Operation(
        handler=health.live,
        name="isAlive",
        tag="health",
        summary="Whether the process can answer",
    ),
    Operation(
        handler=health.ready,
        name="isReady",
        tag="health",
        summary="Whether every part that this process needs answers",
        parameters=(
            Parameter(
                name="only",
                schema=STRING,
                description="Look at these checks alone, separated by commas.",
            ),
        ),
        answers={
            503: Answer(
                description="Some part does not answer (`NOT_READY`).",
                schemas={JSON: ref("NotReady")},
            )
        },
        errors=(BadRequest,),
    ),
    Operation(
        handler=health.metrics,
        name="getMetrics",
        tag="health",
        summary="Counters in Prometheus's text form",
        statuses=(),
        answers={200: Answer(description="The counters.", schemas={"text/plain": _TEXT})},
    ),
    Operation(
        handler=internal.rows,
        name="getHeldRows",
        tag="internal",
        summary="Between workers: the rows that this one holds",
        body=Body(
            media_type=JSON,
            schema={
                "type": "object",
                "properties": {"ids": array(IMAGE_ID) | {"maxItems": internal.MAX_IDS}},
                "required": ["ids"],
            },
        ),
        errors=(*parts.JSON_BODY, InvalidImageId, *parts.ROWS),
    ),
    Operation(
        handler=internal.share,
        name="getHeldShare",
        tag="internal",
        summary="Between workers: what this one holds of a table",
        parameters=(_TABLE, parts.LIMIT, _AFTER),
        errors=(InvalidImageId, TableNotFound),
    ),
    Operation(
        handler=internal.entry,
        name="getHeldEntry",
        tag="internal",
        summary="Between workers: a row of any table that this one holds",
        parameters=(_TABLE, _KEY),
        errors=(InvalidImageId, TableNotFound, TableRowNotFound, *parts.ROWS),
    ),
    Operation(
        handler=tables.listing,
        name="listTables",
        tag="tables",
        summary="Which tables there are; a page for browsers",
        answers=_PAGE_TOO,
    ),
    Operation(
        handler=tables.page,
        name="getTable",
        tag="tables",
        summary="A table's partitions and some of its rows, of every worker, in key order",
        details="`complete` is false while some partition's owner is changing, does not answer or "
        "recovers it; its rows are missing then. `rows` are the values of `keys`.",
        parameters=(_TABLE, parts.LIMIT, _AFTER),
        answers=_PAGE_TOO,
        errors=(InvalidImageId, TableNotFound),
    ),
    Operation(
        handler=tables.row,
        name="getTableRow",
        tag="tables",
        summary="One row, whichever worker holds it",
        parameters=(_TABLE, _KEY),
        answers=_PAGE_TOO,
        errors=(InvalidImageId, TableNotFound, TableRowNotFound, *parts.ROWS),
    ),
    Operation(
        handler=pages.index,
        name="showPictures",
        tag="pages",
        summary="The page of the pictures",
        statuses=(),
        answers={200: _PAGE, 304: _UNCHANGED},
    ),
    Operation(
        handler=pages.api_page,
        name="showInterface",
        tag="pages",
        summary="The page to try this interface with",
        statuses=(),
        answers={200: _PAGE, 304: _UNCHANGED},
    ),
    Operation(
        handler=pages.asset,
        name="getPageFile",
        tag="pages",
        summary="A file that a page loads",
        parameters=(
            Parameter(
                name="name", schema=STRING, description="Its name.", place="path", required=True
            ),
        ),
        statuses=(),
        answers={
            200: Answer(
                description="The file.",
                schemas=dict.fromkeys(sorted(set(TYPES.values())), _TEXT),
            ),
            304: _UNCHANGED,
        },
        errors=(NotFound,),
    ),
    Operation(
        handler=documents.openapi,
        name="getOpenApi",
        tag="documents",
        summary="This interface as OpenAPI 3.1",
        statuses=(),
        answers={
            200: Answer(description="The document.", schemas={JSON: {"type": "object"}}),
            304: _UNCHANGED,
        },
    ),
    Operation(
        handler=documents.asyncapi,
        name="getAsyncApi",
        tag="documents",
        summary="The topics as AsyncAPI 3",
        statuses=(),
        answers={
            200: Answer(description="The document.", schemas={JSON: {"type": "object"}}),
            304: _UNCHANGED,
        },
    ),
)
