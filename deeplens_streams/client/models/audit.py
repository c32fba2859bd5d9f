"""The lines of an audit, as they come."""

from typing import Annotated, Literal

from pydantic import Field, RootModel, WithJsonSchema

from deeplens_streams.client.models.base import Answer, Time, one_of
from deeplens_streams.client.models.json_schemas import INTEGER, choice
from models.audit import Fault


class AuditFinding(Answer):
    """Something that is wrong with an image."""

    type: Literal["finding"]
    tenant_id: str
    image_id: str
    fault: Annotated[str, one_of(*Fault)]
    detail: str
    repaired: bool


class AuditProgress(Answer):
    """How far the audit is, while there is nothing else to say."""

    type: Literal["progress"]
    tenant_id: str | None
    checked: int


class AuditLedger(Answer):
    """What was accepted, and what became of it."""

    accepted: int
    completed: int
    deleted: int
    failed: int
    partial: int
    in_flight: int
    unknown: int
    balanced: bool
    faults: Annotated[
        dict[str, int],
        WithJsonSchema(
            {
                "type": "object",
                "propertyNames": choice(*Fault),
                "additionalProperties": INTEGER,
            }
        ),
    ]
    repaired: int
    outdated: int = Field(
        description="Completed images of which an older preprocessing made the vector, or what "
        "is told of the picture; faults only with `outdated`."
    )


class AuditTenant(AuditLedger):
    """The ledger of one tenant."""

    type: Literal["tenant"]
    tenant_id: str


class AuditTotal(AuditLedger):
    """The ledger of all; the last line."""

    type: Literal["total"]
    audit_id: str
    tenants: int
    vectors_checked: bool
    read_up_to: Time | None


class AuditError(Answer):
    """Why an audit could not go on."""

    type: Literal["error"]
    error_code: str
    message: str


class AuditLine(
    RootModel[
        Annotated[
            AuditFinding | AuditProgress | AuditTenant | AuditTotal | AuditError,
            Field(discriminator="type"),
        ]
    ]
):
    """One line of an audit."""
