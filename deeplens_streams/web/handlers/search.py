"""``POST /api/v1/images/search``: by a picture or by an image that is stored already."""

import asyncio
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.concurrency import Turns
from deeplens_streams.config import Settings
from deeplens_streams.errors import (
    BadRequest,
    ExtractorUnavailable,
    ImageNotFound,
    ImageNotSearchable,
    TooManyRequests,
    VectorsUnavailable,
)
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.imaging.header import inspect
from deeplens_streams.ingest.spool import SpooledFile
from deeplens_streams.services import Services
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.vectors.base import Hit, SearchFilter, VectorStore, has_thumbnail
from deeplens_streams.web import links
from deeplens_streams.web.app_keys import CONTEXT, GATE, QUERIES, QUOTAS, READING, SEARCHES, SPOOL
from deeplens_streams.web.forms import fields
from deeplens_streams.web.forms.filters import parse_filters
from deeplens_streams.web.forms.multipart import Form, read_form
from deeplens_streams.web.metrics import SEARCH_SECONDS
from deeplens_streams.web.middleware.auth import tenant_of
from deeplens_streams.web.responses import json_answer, success
from models.events import utc_now

FILE_FIELD: Final = "queryImage"


#: Query pictures held in memory at once; more wait on the disk.
MAX_IN_MEMORY: Final = 8


@dataclass(frozen=True, slots=True)
class _Query:
    """The form's fields, checked."""

    tenant: str
    model: ModelSpec
    limit: int
    threshold: float
    #: None when the query is a picture.
    image_id: str | None
    where: SearchFilter


async def search(request: web.Request) -> web.Response:
    started = time.perf_counter()
    with request.app[GATE].let_query_in(request.content_length):
        query, vector = await _take(request)
    hits = await _engine(request.app[CONTEXT].services).search(
        vector,
        tenant=query.tenant,
        model=query.model.name,
        limit=query.limit,
        threshold=query.threshold,
        where=query.where,
    )
    took = time.perf_counter() - started
    SEARCH_SECONDS.observe(took)
    answer = {
        **success(models.SearchResults),
        "message": _message(len(hits), query.model),
        "modelName": query.model.name,
        "queryProcessingTimeMs": round(took * 1000, 3),
        "resultCount": len(hits),
        "results": [_result(hit) for hit in hits],
        "timestamp": utc_now(),
    }
    return json_answer(answer)


async def _take(request: web.Request) -> tuple[_Query, npt.NDArray[np.float32]]:
    """Read what is asked for, and the vector that is like it."""
    services, spool = request.app[CONTEXT].services, request.app[SPOOL]
    async with spool.open() as file:
        # It ends with the body: searches that wait for a model must not keep uploads out.
        with request.app[READING].turn(request.remote):
            form = await read_form(
                request,
                file_field=FILE_FIELD,
                into=file,
                max_bytes=services.settings.max_upload_bytes,
            )
        query = _check(request, form, file)
        # A picture is kept as long as it waits; a stored image waits for no model.
        with request.app[QUERIES].turn() if query.image_id is None else nullcontext():
            await request.app[QUOTAS].search(query.tenant)
            engine = _engine(services)
            if query.image_id is not None:
                return query, await _stored_vector(services, engine, query, query.image_id)
            async with request.app[SEARCHES]:
                return query, await _picture_vector(request, file)


def _check(request: web.Request, form: Form, file: SpooledFile) -> _Query:
    known = request.app[CONTEXT].services.model
    tenant = tenant_of(request, form.one("tenantId", exact=True))
    given_id = form.one("imageId")
    if form.has_file == (given_id is not None):
        raise BadRequest(f"Send either a picture in {FILE_FIELD!r} or an 'imageId'.")
    if form.has_file and file.size == 0:
        raise BadRequest(f"The picture in the field {FILE_FIELD!r} is empty.")
    image_id = None if given_id is None else check_image_id(given_id)
    name = form.one("modelName")
    if name is not None:
        fields.check_model(name, known)
    return _Query(
        tenant=tenant,
        model=known,
        limit=fields.whole_number(form.one("limit"), "limit", default=10, low=1, high=100),
        threshold=fields.number(form, "threshold", default=0.7, low=-1, high=1),
        image_id=image_id,
        where=parse_filters(form.one("filters"), exclude_image_id=image_id),
    )


def _engine(services: Services) -> VectorStore:
    if services.vectors is None:
        raise VectorsUnavailable(
            "This worker cannot search: the embedded vector engine belongs to the worker with "
            "the index role. Ask that one, or set DEEPLENS_QDRANT_URL."
        )
    return services.vectors


async def _picture_vector(request: web.Request, file: SpooledFile) -> npt.NDArray[np.float32]:
    services = request.app[CONTEXT].services
    if services.features is None:
        raise ExtractorUnavailable(
            "This worker has no model; search by imageId, or ask a worker that has one."
        )

    def checked(content: BinaryIO) -> bytes:
        data = content.read()
        # The same refusals as for uploads, before anything is decoded.
        inspect(content, max_pixels=services.settings.max_pixels)
        return data

    _, data = await file.finish(checked)
    return (await services.features.extract(data, urgent=True)).vector


async def _stored_vector(
    services: Services, engine: VectorStore, query: _Query, image_id: str
) -> npt.NDArray[np.float32]:
    with suppress(DamagedMetadata):  # its vector is its vector
        image = await services.storage.get_metadata(tenant=query.tenant, image_id=image_id)
        if image is None:
            raise ImageNotFound
    vector = await engine.get_vector(tenant=query.tenant, model=query.model.name, image_id=image_id)
    if vector is None:
        raise ImageNotSearchable
    return vector


def _message(count: int, model: ModelSpec) -> str:
    pictures = "picture" if count == 1 else "pictures"
    sentence = f"Found {count} {pictures}." if count else "Found no picture like it."
    return f"{sentence} {model.warning}" if model.warning else sentence


def _result(hit: Hit) -> dict[str, Any]:
    payload = hit.payload
    return {
        "imageId": hit.image_id,
        "similarityScore": hit.score,
        "fileName": payload.get("fileName"),
        "thumbnailUrl": links.thumbnail_url(hit.image_id) if has_thumbnail(payload) else None,
        "uploadedAt": payload.get("uploadedAt"),
        "metadata": payload.get("metadata") or {},
    }


def turns(settings: Settings) -> Turns:
    refusal = "Too many searches by picture wait for the model; try again in a few seconds."
    return Turns(settings.max_uploads, partial(TooManyRequests, refusal))


def search_slots() -> asyncio.Semaphore:
    return asyncio.Semaphore(MAX_IN_MEMORY)
