"""What an operator asks for."""

from typing import Final

from deeplens_streams.client.models.json_schemas import TENANT_ID, ref
from deeplens_streams.errors import BadRequest, InvalidTenantId, NotFound
from deeplens_streams.web.handlers import audit, deletion
from deeplens_streams.web.openapi import parts
from deeplens_streams.web.openapi.operation import Answer, Operation, Parameter

_TAG: Final = "admin"

OPERATIONS: Final = (
    Operation(
        handler=deletion.delete_tenant,
        name="deleteTenant",
        tag=_TAG,
        summary="Delete a tenant with everything that it has",
        parameters=(
            parts.TENANT,
            Parameter(
                name="confirm",
                schema=TENANT_ID,
                description="The tenant's ID once more.",
                required=True,
            ),
        ),
        statuses=(202,),
        errors=(BadRequest, InvalidTenantId, *parts.WRITES),
    ),
    Operation(
        handler=deletion.tenant_purge,
        name="getTenantPurge",
        tag=_TAG,
        summary="How far the deletion of a tenant is",
        parameters=(parts.TENANT,),
        errors=(InvalidTenantId, NotFound, *parts.STORAGE),
    ),
    Operation(
        handler=audit.audit,
        name="audit",
        tag=_TAG,
        summary="Compare what storage, status table, vectors and dead letters have",
        details="One JSON object a line: findings, each tenant's ledger, how far it is while there "
        "is nothing else to say, the total; an `error` where it could not go on.",
        parameters=(
            Parameter(name="tenantId", schema=TENANT_ID, description="Only this one; else all."),
            Parameter(
                name="repair",
                schema={"type": "string", "enum": ["true", "false"], "default": "false"},
                description="Mend what can be mended.",
            ),
            Parameter(
                name="checksums",
                schema={"type": "string", "enum": ["true", "false"], "default": "false"},
                description="Read every original and compare its SHA-256.",
            ),
            Parameter(
                name="outdated",
                schema={"type": "string", "enum": ["true", "false"], "default": "false"},
                description="Find completed images, too, of which an older preprocessing made the "
                "vector, or what is told of the picture.",
            ),
        ),
        statuses=(),
        answers={
            200: Answer(
                description="The lines.", schemas={"application/x-ndjson": ref("AuditLine")}
            )
        },
        errors=(BadRequest, InvalidTenantId, *parts.STORAGE),
    ),
)
