"""``/api/v1/admin/collections``: where a tenant's vectors are, made, measured and removed."""

from typing import Any, Final

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.errors import (
    BadRequest,
    CollectionNotFound,
    DimensionConflict,
    VectorsUnavailable,
)
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.services import Services
from deeplens_streams.vectors import Collection, VectorStore, collection_name
from deeplens_streams.web.app_keys import CONTEXT, QUOTAS
from deeplens_streams.web.forms.json_body import read_body
from deeplens_streams.web.middleware import admin_log
from deeplens_streams.web.middleware.auth import tenant_of
from deeplens_streams.web.responses import json_answer, success

MAX_DIMENSION: Final = 4096
_MB: Final = 1_000_000


async def create(request: web.Request) -> web.Response:
    """Make a collection, or say that it is there already."""
    services = request.app[CONTEXT].services
    body = await read_body(request)
    tenant = tenant_of(request, check_tenant_id(body.get("tenantId")))
    model, dimension = _model(body.get("modelName")), _dimension(body.get("vectorDimension"))
    if model == services.model.name and dimension != services.model.dimension:
        raise DimensionConflict(
            f"{model} makes vectors of {services.model.dimension} numbers, not {dimension}."
        )
    await admin_log.about(request, tenantId=tenant, modelName=model, vectorDimension=dimension)
    made = await _engine(services).create(
        tenant=tenant,
        model=model,
        dimension=dimension,
        max_collections=request.app[QUOTAS].max_collections(tenant),
    )
    count = await _engine(services).count(tenant=tenant, model=model)
    answer = {
        **success(models.CollectionMade),
        "message": "The collection is made." if made else "The collection was there already.",
        "collectionName": collection_name(tenant=tenant, model=model),
        "vectorCount": count,
        "alreadyExisted": not made,
    }
    return json_answer(answer)


async def listing(request: web.Request) -> web.Response:
    """Answer a tenant's collections, by model."""
    tenant = check_tenant_id(request.match_info["tenant_id"])
    engine = _engine(request.app[CONTEXT].services)
    held = [
        await engine.describe(tenant=tenant, model=model)
        for model in await engine.models_of(tenant=tenant)
    ]
    answer = {
        **success(models.Collections),
        "tenantId": tenant,
        # One may have been removed since it was listed.
        "collections": [_summary(each) for each in held if each is not None],
    }
    return json_answer(answer)


async def figures(request: web.Request) -> web.Response:
    """Answer one collection's figures, as they are now."""
    tenant, model = _named(request)
    found = await _engine(request.app[CONTEXT].services).describe(tenant=tenant, model=model)
    if found is None:
        raise _not_found(tenant, model)
    memory = found.memory_bytes
    answer = {
        **success(models.CollectionFigures),
        "message": found.trouble,
        "collectionName": found.name,
        "vectorCount": found.vectors,
        "vectorDimension": found.dimension,
        "status": found.status,
        "indexedVectorCount": found.indexed,
        "memoryUsageMB": None if memory is None else round(memory / _MB, 3),
    }
    return json_answer(answer)


async def delete(request: web.Request) -> web.Response:
    """Remove a collection with all its vectors; the pictures stay."""
    tenant, model = _named(request)
    if not await _engine(request.app[CONTEXT].services).drop(tenant=tenant, model=model):
        raise _not_found(tenant, model)
    message = "The collection is removed. Its pictures are stored still, and cannot be found."
    return json_answer({**success(models.Reply), "message": message})


async def optimize(request: web.Request) -> web.Response:
    """Have a collection indexed; the answer does not wait for that."""
    tenant, model = _named(request)
    if not await _engine(request.app[CONTEXT].services).optimize(tenant=tenant, model=model):
        raise _not_found(tenant, model)
    message = "The collection is being optimized; its status is yellow until that is done."
    return json_answer({**success(models.Reply), "message": message}, status=202)


def _engine(services: Services) -> VectorStore:
    if services.vectors is None:
        raise VectorsUnavailable(
            "This worker has no vectors: the embedded vector engine belongs to the worker with "
            "the index role. Ask that one, or set DEEPLENS_QDRANT_URL."
        )
    return services.vectors


def _named(request: web.Request) -> tuple[str, str]:
    """Return the tenant and the model of an address; what is no model's name, engines refuse."""
    tenant = check_tenant_id(request.match_info["tenant_id"])
    return tenant, request.match_info["model_name"]


def _model(value: Any) -> str:
    if not isinstance(value, str):
        raise BadRequest("modelName is a string, such as resnet50.")
    return value


def _dimension(value: Any) -> int:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not 1 <= value <= MAX_DIMENSION:
        raise BadRequest(f"vectorDimension is a whole number from 1 to {MAX_DIMENSION}.")
    return int(value)


def _not_found(tenant: str, model: str) -> CollectionNotFound:
    return CollectionNotFound(f"There is no {collection_name(tenant=tenant, model=model)}.")


def _summary(found: Collection) -> dict[str, Any]:
    return {
        "modelName": found.model,
        "collectionName": found.name,
        "vectorCount": found.vectors,
        "vectorDimension": found.dimension,
        "status": found.status,
    }
