"""Where a tenant's vectors are."""

from typing import Final

from deeplens_streams.client.models.json_schemas import STRING, TENANT_ID
from deeplens_streams.errors import (
    BadRequest,
    CollectionLimit,
    CollectionNotFound,
    DimensionConflict,
    InvalidTenantId,
    TenantNotFound,
    UnknownModel,
    VectorsUnavailable,
)
from deeplens_streams.web.handlers import collections
from deeplens_streams.web.openapi import parts
from deeplens_streams.web.openapi.operation import Operation, Parameter, json_body

_TAG: Final = "collections"
_MODEL: Final = Parameter(
    name="model_name", schema=STRING, description="The model.", place="path", required=True
)
_ENGINE: Final[parts.Errors] = (VectorsUnavailable, *parts.STORAGE)
_ONE: Final[parts.Errors] = (
    BadRequest,
    InvalidTenantId,
    UnknownModel,
    CollectionNotFound,
    *_ENGINE,
)

OPERATIONS: Final = (
    Operation(
        handler=collections.create,
        name="createCollection",
        tag=_TAG,
        summary="Make a collection, or say that it is there already",
        body=json_body(
            {
                "tenantId": TENANT_ID,
                "modelName": STRING,
                "vectorDimension": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": collections.MAX_DIMENSION,
                },
            },
            *("tenantId", "modelName", "vectorDimension"),
        ),
        errors=(
            *parts.JSON_BODY,
            InvalidTenantId,
            TenantNotFound,
            UnknownModel,
            CollectionLimit,
            DimensionConflict,
            *_ENGINE,
        ),
    ),
    Operation(
        handler=collections.listing,
        name="listCollections",
        tag=_TAG,
        summary="A tenant's collections, by model",
        parameters=(parts.TENANT,),
        errors=(InvalidTenantId, *_ENGINE),
    ),
    Operation(
        handler=collections.figures,
        name="getCollection",
        tag=_TAG,
        summary="One collection's figures, as they are now",
        parameters=(parts.TENANT, _MODEL),
        errors=_ONE,
    ),
    Operation(
        handler=collections.delete,
        name="deleteCollection",
        tag=_TAG,
        summary="Remove a collection with all its vectors; the pictures stay",
        parameters=(parts.TENANT, _MODEL),
        errors=_ONE,
    ),
    Operation(
        handler=collections.optimize,
        name="optimizeCollection",
        tag=_TAG,
        summary="Have a collection indexed; the answer does not wait for that",
        parameters=(parts.TENANT, _MODEL),
        statuses=(202,),
        errors=_ONE,
    ),
)
