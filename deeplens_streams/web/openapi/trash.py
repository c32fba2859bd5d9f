"""What repairs took away."""

from typing import Final

from deeplens_streams.client.models.json_schemas import STRING, TENANT_ID
from deeplens_streams.errors import BadRequest, InvalidTenantId, VectorsUnavailable
from deeplens_streams.storage.trash import TrashOccupied
from deeplens_streams.storage.trash_entries import TrashDamaged
from deeplens_streams.web.handlers import trash
from deeplens_streams.web.openapi import parts
from deeplens_streams.web.openapi.operation import Operation, Parameter

_TAG: Final = "trash"
_ID: Final = Parameter(
    name="trash_id",
    schema=STRING,
    description="The `trashId` of a thing that is listed.",
    place="path",
    required=True,
)
_TENANT: Final = Parameter(
    name="tenantId", schema=TENANT_ID, description="Only this one's; else everybody's."
)

OPERATIONS: Final = (
    Operation(
        handler=trash.listing,
        name="listTrash",
        tag=_TAG,
        summary="What repairs took away, and is kept for a while",
        parameters=(_TENANT, parts.LIMIT, parts.CONTINUE),
        errors=(BadRequest, InvalidTenantId, *parts.STORAGE),
    ),
    Operation(
        handler=trash.empty,
        name="emptyTrash",
        tag=_TAG,
        summary="Remove for good what has been in the trash for so long",
        details="Up to 1,000 things; `more` says to ask again. What storage refuses to have "
        "removed stays: `notRemoved`, and `message` names one.",
        parameters=(
            _TENANT,
            Parameter(
                name="olderThanDays",
                schema={"type": "integer", "minimum": 0, "maximum": 36500},
                description="0 is all.",
                required=True,
            ),
        ),
        errors=(BadRequest, InvalidTenantId, *parts.STORAGE),
    ),
    Operation(
        handler=trash.bring_back,
        name="restoreFromTrash",
        tag=_TAG,
        summary="Bring a thing back to where it was",
        parameters=(
            _ID,
            Parameter(
                name="replace",
                schema={"type": "string", "enum": ["true", "false"], "default": "false"},
                description="What is there by now goes to the trash instead.",
            ),
        ),
        errors=(
            BadRequest,
            trash.TrashNotFound,
            TrashOccupied,
            TrashDamaged,
            VectorsUnavailable,
            *parts.STORAGE,
        ),
    ),
    Operation(
        handler=trash.remove,
        name="removeFromTrash",
        tag=_TAG,
        summary="Remove one thing for good",
        parameters=(_ID,),
        errors=(trash.TrashNotFound, *parts.STORAGE),
    ),
)
