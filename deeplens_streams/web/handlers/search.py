"""``POST /api/v1/images/search``: by a picture or by an image that is stored already."""

import asyncio
import time
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.concurrency import ConcurrencyLimit
from deeplens_streams.config import Settings
from deeplens_streams.errors import (
    ExtractorUnavailable,
    ImageNotFound,
    ImageNotSearchable,
    TooManyRequests,
    VectorsUnavailable,
)
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.imaging.header import inspect
from deeplens_streams.ingest.spool import SpooledFile
from deeplens_streams.services import Services
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.vectors.base import Hit, VectorStore, has_thumbnail
from deeplens_streams.web import links
from deeplens_streams.web.app_keys import (
    ADMISSION,
    BODY_RATE,
    CONTEXT,
    QUERIES,
    QUOTAS,
    SEARCHES,
    SPOOL,
)
from deeplens_streams.web.forms.multipart import read_form
from deeplens_streams.web.forms.search import FILE_FIELD, SearchForm
from deeplens_streams.web.metrics import SEARCH_SECONDS
from deeplens_streams.web.responses import json_answer, success
from models.events import utc_now

#: Query pictures held in memory at once; more wait on the disk.
MAX_IN_MEMORY: Final = 8


async def search(request: web.Request) -> web.Response:
    started = time.perf_counter()
    with request.app[ADMISSION].admit_query(request.content_length):
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


async def _take(request: web.Request) -> tuple[SearchForm, npt.NDArray[np.float32]]:
    """Read what is asked for, and the vector that is like it."""
    services, spool = request.app[CONTEXT].services, request.app[SPOOL]
    async with spool.open() as file:
        # It ends with the body: searches that wait for a model must not keep uploads out.
        with request.app[BODY_RATE].acquire(request.remote):
            parts = await read_form(
                request,
                file_field=FILE_FIELD,
                into=file,
                max_bytes=services.settings.max_upload_bytes,
            )
        query = SearchForm.read(request, parts, size=file.size, model=services.model)
        # A picture is kept as long as it waits; a stored image waits for no model.
        with request.app[QUERIES].acquire() if query.image_id is None else nullcontext():
            await request.app[QUOTAS].search(query.tenant)
            engine = _engine(services)
            if query.image_id is not None:
                return query, await _stored_vector(services, engine, query, query.image_id)
            async with request.app[SEARCHES]:
                return query, await _picture_vector(request, file)


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
    services: Services, engine: VectorStore, query: SearchForm, image_id: str
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


def turns(settings: Settings) -> ConcurrencyLimit:
    refusal = "Too many searches by picture wait for the model; try again in a few seconds."
    return ConcurrencyLimit(settings.max_uploads, partial(TooManyRequests, refusal))


def search_slots() -> asyncio.Semaphore:
    return asyncio.Semaphore(MAX_IN_MEMORY)
