"""Schemas, parameters and errors that several operations share."""

from typing import Final

from deeplens_streams.client.models.json_schemas import IMAGE_ID, STRING, TENANT_ID, Schema
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
from deeplens_streams.web.forms.page import DEFAULT_LIMIT, MAX_LIMIT
from deeplens_streams.web.openapi.operation import Parameter

Errors = tuple[type[DeepLensError], ...]

MODEL: Final[Schema] = STRING

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
ROWS: Final[Errors] = (RowMoving,)
#: Of what writes to storage and sends an event.
WRITES: Final[Errors] = (StorageUnavailable, StorageFull, BrokerUnavailable)
ONE_IMAGE: Final[Errors] = (InvalidImageId, InvalidTenantId, ImageNotFound, StorageUnavailable)
JSON_BODY: Final[Errors] = (BadRequest, TooLarge, UploadTooSlow)


#: How long a page may be.
LIMIT: Final = Parameter(
    name="limit",
    schema={"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    description="Up to so many.",
)
