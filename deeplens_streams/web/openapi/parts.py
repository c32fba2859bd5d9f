"""Schemas, parameters and errors that several operations share."""

from typing import Final

from deeplens_streams.audit.report import COLUMNS
from deeplens_streams.errors import (
    BadRequest,
    BrokerUnavailable,
    DeepLensError,
    ImageNotFound,
    InvalidImageId,
    InvalidTenantId,
    RegistryUnavailable,
    RowMoving,
    StorageFull,
    StorageUnavailable,
    TooLarge,
    UploadTooSlow,
)
from deeplens_streams.json_schemas import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    Schema,
    array,
    choice,
    nullable,
    ref,
    written,
)
from deeplens_streams.web.openapi.operation import Parameter
from models.audit import Fault
from models.collections import CollectionStatus
from models.deletion import PurgeStep
from models.status import ImageState, Step, StepStatus
from models.tables import PartitionState
from models.tenants import Scope, TenantState
from models.trash import TrashKind

Errors = tuple[type[DeepLensError], ...]

IMAGE_ID: Final[Schema] = {
    "type": "string",
    "pattern": "^(img_)?[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
    "examples": ["img_6f6cf1a4-1d0b-4d0c-9c55-9a1f0c3b7e11"],
}
TENANT_ID: Final[Schema] = {
    "type": "string",
    "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "examples": ["demo"],
}
LETTER_ID: Final[Schema] = {
    "type": "string",
    "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
MODEL: Final[Schema] = STRING
CURSOR: Final[Schema] = nullable(
    {"type": "string", "description": "For the next page; null at the end."}
)
STATE: Final[Schema] = choice(*ImageState)

IN_PATH: Final = Parameter(
    name="image_id",
    schema=IMAGE_ID,
    description="With or without `img_`.",
    place="path",
    required=True,
)
OF_TENANT: Final = Parameter(
    name="tenantId",
    schema=TENANT_ID,
    description="If it is given, an image of another tenant is unknown.",
)
TENANT: Final = Parameter(
    name="tenant_id", schema=TENANT_ID, description="The tenant.", place="path", required=True
)
CONTINUE: Final = Parameter(
    name="cursor", schema=STRING, description="The `nextCursor` of the page before."
)

STORAGE: Final[Errors] = (StorageUnavailable,)
#: Of what asks the registry of tenants, or changes it.
REGISTRY: Final[Errors] = (RegistryUnavailable, BrokerUnavailable)
COLLECTION_STATUS: Final[Schema] = choice(*CollectionStatus)
ROWS: Final[Errors] = (RowMoving,)
#: Of what writes to storage and sends an event.
WRITES: Final[Errors] = (StorageUnavailable, StorageFull, BrokerUnavailable)
ONE_IMAGE: Final[Errors] = (InvalidImageId, InvalidTenantId, ImageNotFound, StorageUnavailable)
JSON_BODY: Final[Errors] = (BadRequest, TooLarge, UploadTooSlow)


def limit(default: int, high: int) -> Parameter:
    """Return the parameter that says how long a page may be."""
    schema = {"type": "integer", "minimum": 1, "maximum": high, "default": default}
    return Parameter(name="limit", schema=schema, description="Up to so many.")


_LEDGER: Final[dict[str, Schema]] = {
    **dict.fromkeys(COLUMNS, INTEGER),
    "balanced": BOOLEAN,
    "faults": {
        "type": "object",
        "propertyNames": choice(*Fault),
        "additionalProperties": INTEGER,
    },
    "repaired": INTEGER,
    "outdated": INTEGER
    | {
        "description": "Completed images of which an older preprocessing made the vector, or what "
        "is told of the picture; faults only with `outdated`."
    },
}

#: Named schemas that are no records, as the handlers write them.


def _step(name: Schema) -> Schema:
    return written(
        {
            "step": name,
            "status": choice(*StepStatus),
            "duration": nullable(NUMBER | {"description": "Milliseconds."}),
            "attempt": INTEGER,
            "modelName": nullable(STRING),
            "collectionName": nullable(STRING),
            "errorMessage": nullable(STRING),
        }
    )


SCHEMAS: Final[dict[str, Schema]] = {
    "Image": written(
        {
            "imageId": IMAGE_ID,
            "tenantId": TENANT_ID,
            "fileName": STRING,
            "contentType": STRING,
            "fileSize": INTEGER,
            "checksumSha256": STRING,
            "uploadedAt": TIME,
            "uploadedBy": nullable(STRING),
            "tags": {"type": "object", "additionalProperties": STRING},
            "metadata": ref("PictureFacts"),
            "processingOptions": ref("ProcessingOptions"),
            "correlationId": STRING,
            "status": nullable(STATE),
            "contentUrl": STRING,
            "thumbnailUrl": nullable(STRING),
            "statusCheckUrl": STRING,
        }
    ),
    "ProcessingStep": _step(choice(*Step)),
    "OtherStep": _step(STRING | {"description": "One that only a newer version knows."}),
    "SearchResult": written(
        {
            "imageId": IMAGE_ID,
            "similarityScore": NUMBER | {"description": "Cosine, -1 to 1."},
            "fileName": nullable(STRING),
            "thumbnailUrl": nullable(STRING),
            "uploadedAt": nullable(STRING),
            "metadata": {"type": "object"},
        }
    ),
    "DeletionStep": written(
        {
            "step": choice(*PurgeStep),
            "status": choice("pending", "completed"),
            "at": nullable(TIME),
        }
    ),
    "TenantSummary": written(
        {
            "tenantId": TENANT_ID,
            "state": choice(*TenantState),
            "provisioned": {"type": "boolean"},
            "createdAt": TIME,
            "updatedAt": TIME,
            "limits": ref("Limits"),
            "usage": ref("Usage"),
            "keys": INTEGER,
        }
    ),
    "TenantStep": written(
        {"step": STRING, "status": choice("completed", "skipped", "failed"), "message": STRING}
    ),
    "TenantNotReady": written(
        {
            "success": {"const": False},
            "message": STRING,
            "tenant": nullable(ref("TenantSummary")),
            "steps": array(ref("TenantStep")),
            "apiKey": nullable(STRING),
            "errorCode": STRING,
        }
    ),
    "KeySummary": written(
        {
            "keyId": STRING,
            "scopes": array(choice(*Scope)),
            "createdAt": TIME,
            "name": STRING,
            "expiresAt": nullable(TIME),
            "revokedAt": nullable(TIME),
            "lastUsedAt": nullable(TIME),
        }
    ),
    "CollectionSummary": written(
        {
            "modelName": STRING,
            "collectionName": STRING,
            "vectorCount": INTEGER,
            "vectorDimension": INTEGER,
            "status": COLLECTION_STATUS,
        }
    ),
    "SkippedLetter": written({"letterId": LETTER_ID, "errorCode": STRING, "message": STRING}),
    "HealthCheck": written(
        {
            "ok": {"type": "boolean"},
            "detail": STRING,
            "breaker": choice("closed", "open", "half-open"),
        }
    ),
    "HealthModel": written(
        {"name": STRING, "version": STRING, "dimension": INTEGER, "licence": STRING}
    ),
    "Table": written(
        {
            "name": STRING,
            "purpose": STRING,
            "partitions": INTEGER,
            "changelog": STRING | {"description": "The topic that it is recovered from."},
            "valueType": STRING,
        }
    ),
    "TablePartition": written(
        {
            "partition": INTEGER,
            "worker": nullable(STRING | {"description": "Who has it."}),
            "state": choice(*PartitionState),
            "rows": nullable(INTEGER | {"description": "As RocksDB estimates it."}),
            "sizeBytes": nullable(INTEGER),
            "changelogLag": nullable(
                INTEGER | {"description": "Messages of the changelog that it does not have yet."}
            ),
        }
    ),
    "TableEntry": written({"key": STRING, "value": {}}),
    "TrashEntry": written(
        {
            "trashId": STRING,
            "kind": choice(*TrashKind),
            "key": STRING | {"description": "Where it was; of a vector, its model."},
            "tenantId": STRING | {"description": "Empty for what is of nobody."},
            "imageId": nullable(STRING),
            "reason": STRING,
            "at": TIME,
            "auditId": STRING,
            "size": INTEGER,
            "sha256": STRING,
        }
    ),
    "AuditLine": {
        "oneOf": [
            ref(f"Audit{kind}") for kind in ("Finding", "Progress", "Tenant", "Total", "Error")
        ]
    },
    "AuditFinding": written(
        {
            "type": choice("finding"),
            "tenantId": STRING,
            "imageId": STRING,
            "fault": choice(*Fault),
            "detail": STRING,
            "repaired": BOOLEAN,
        }
    ),
    "AuditProgress": written(
        {"type": choice("progress"), "tenantId": nullable(STRING), "checked": INTEGER}
    ),
    "AuditTenant": written({"type": choice("tenant"), "tenantId": STRING, **_LEDGER}),
    "AuditTotal": written(
        {
            "type": choice("total"),
            "auditId": STRING,
            "tenants": INTEGER,
            "vectorsChecked": BOOLEAN,
            "readUpTo": nullable(TIME),
            **_LEDGER,
        }
    ),
    "AuditError": written({"type": choice("error"), "errorCode": STRING, "message": STRING}),
}

STEPS: Final[Schema] = array(ref("ProcessingStep"))
