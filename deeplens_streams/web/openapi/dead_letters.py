"""What could not be processed."""

from typing import Final

from deeplens_streams.client.models.json_schemas import (
    BOOLEAN,
    LETTER_ID,
    STRING,
    TENANT_ID,
    TIME,
    Schema,
    array,
    choice,
    nullable,
)
from deeplens_streams.errors import (
    AlreadyResolved,
    BadRequest,
    ImageNotFound,
    InvalidTenantId,
    LetterNotFound,
    NotRetryable,
    RetryUnderWay,
)
from deeplens_streams.web.handlers import dead_letters as letters
from deeplens_streams.web.openapi import parts
from deeplens_streams.web.openapi.operation import Operation, Parameter, json_body
from models.letters import LetterState

_TAG: Final = "dead letters"
_WHOSE: Final[Schema] = {
    "anyOf": [TENANT_ID, {"const": letters.NOBODY}],
    "description": "`-` means messages that could not be read.",
}
_STATE: Final = choice(*LetterState, "all") | {"default": LetterState.WAITING.value}
_FILTERS: Final[dict[str, Schema]] = {
    "tenantId": _WHOSE,
    "step": STRING,
    "code": STRING,
    "since": TIME,
    "until": TIME,
    "state": _STATE,
}
_REASON: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": letters.MAX_REASON}
_MANY: Final[dict[str, Schema]] = {
    "ids": nullable(array(LETTER_ID) | {"maxItems": letters.MAX_AT_ONCE}),
    "cursor": nullable(STRING),
    **{name: nullable(schema) for name, schema in _FILTERS.items()},
}
_IN_PATH: Final = Parameter(
    name="letter_id",
    schema=LETTER_ID,
    description="The letter.",
    place="path",
    required=True,
)
_OF_TENANT: Final = Parameter(
    name="tenantId",
    schema=STRING,
    description="If it is given, a letter of another tenant is unknown.",
)
_ONE: Final[parts.Errors] = (BadRequest, InvalidTenantId, LetterNotFound, *parts.STORAGE)


OPERATIONS: Final = (
    Operation(
        handler=letters.listing,
        name="listDeadLetters",
        tag=_TAG,
        summary="List dead letters, the newest of each tenant first",
        parameters=(
            *(
                Parameter(name=name, schema=schema, description="Only these.")
                for name, schema in _FILTERS.items()
            ),
            parts.LIMIT,
            parts.CONTINUE,
        ),
        errors=(BadRequest, InvalidTenantId, *parts.STORAGE),
    ),
    Operation(
        handler=letters.retry_many,
        name="retryDeadLetters",
        tag=_TAG,
        summary="Retry up to 200 letters, by ID or by filter",
        body=json_body({**_MANY, "force": BOOLEAN}),
        errors=(*parts.JSON_BODY, InvalidTenantId, LetterNotFound, *parts.WRITES, *parts.ROWS),
    ),
    Operation(
        handler=letters.discard_many,
        name="discardDeadLetters",
        tag=_TAG,
        summary="Discard up to 200 letters, by ID or by filter",
        body=json_body({**_MANY, "reason": _REASON}, "reason"),
        errors=(*parts.JSON_BODY, InvalidTenantId, LetterNotFound, *parts.WRITES),
    ),
    Operation(
        handler=letters.inspect,
        name="getDeadLetter",
        tag=_TAG,
        summary="One letter, with its stack trace and the whole event",
        parameters=(_IN_PATH, _OF_TENANT),
        errors=_ONE,
    ),
    Operation(
        handler=letters.retry,
        name="retryDeadLetter",
        tag=_TAG,
        summary="Send a letter's event to the step that failed",
        parameters=(_IN_PATH, _OF_TENANT),
        body=json_body({"force": BOOLEAN}),
        errors=(
            *_ONE,
            *parts.JSON_BODY,
            AlreadyResolved,
            RetryUnderWay,
            NotRetryable,
            ImageNotFound,
            *parts.WRITES,
            *parts.ROWS,
        ),
    ),
    Operation(
        handler=letters.discard,
        name="discardDeadLetter",
        tag=_TAG,
        summary="Decide that a letter is not to be retried",
        parameters=(_IN_PATH, _OF_TENANT),
        body=json_body({"reason": _REASON}, "reason"),
        errors=(*_ONE, *parts.JSON_BODY, AlreadyResolved, RetryUnderWay, *parts.WRITES),
    ),
)
