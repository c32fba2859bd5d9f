"""Vectors on a Qdrant server or cluster."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import structlog
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from deeplens_streams.errors import DimensionMismatch, VectorsUnavailable
from deeplens_streams.vectors.base import Hit, SearchFilter, VectorPoint, point_id
from deeplens_streams.vectors.checks import (
    check_dimension,
    checked_collection,
    checked_points,
    checked_vector,
)
from deeplens_streams.vectors.conditions import (
    TERMS,
    TIME_FIELD,
    Conditions,
    conditions,
    stored_payload,
    to_hit,
)

log = structlog.get_logger()

_TIMEOUT_S = 10
_BATCH = 256
"""Points in one request; 2 MB of 2048 numbers each."""
_NOT_FOUND = 404
_CONFLICT = 409


def connect(url: str, api_key: str | None) -> AsyncQdrantClient:
    """Return a client; it calls nothing yet."""
    if api_key and urlsplit(url).scheme == "http":
        log.warning("the vector engine's key goes over a connection without TLS", url=url)
    with warnings.catch_warnings():
        # Said above, once and in the log.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return AsyncQdrantClient(
            url=url, api_key=api_key, timeout=_TIMEOUT_S, check_compatibility=False
        )


class _Missing(VectorsUnavailable):
    """The vector engine has no such collection now; try again later."""


class _Exists(VectorsUnavailable):
    """The vector engine has such a collection already; try again later."""


class ServerVectors:
    """`VectorStore` through a client, which it owns."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        #: Of collections that were seen. One that is removed is seen to be gone at its next use.
        self._dimensions: dict[str, int] = {}

    async def start(self) -> None:
        pass

    async def upsert(self, points: Sequence[VectorPoint], *, tenant: str, model: str) -> None:
        name = checked_collection(tenant=tenant, model=model)
        vectors = checked_points(points)
        if not vectors:
            return
        made = [
            models.PointStruct(
                id=point_id(image_id=point.image_id, model=model),
                vector=vector.tolist(),
                payload=stored_payload(point.payload),
            )
            for point, vector in zip(points, vectors, strict=True)
        ]
        dimension = await self._dimension(name)
        if dimension is None:
            dimension = await self._create(name, vectors[0].size)
        check_dimension(vectors[0], dimension)
        for begin in range(0, len(made), _BATCH):
            await self._write(name, made[begin : begin + _BATCH], dimension)

    async def search(
        self,
        vector: npt.NDArray[np.float32],
        *,
        tenant: str,
        model: str,
        limit: int,
        threshold: float,
        where: SearchFilter = SearchFilter(),  # noqa: B008 - frozen
    ) -> list[Hit]:
        name = checked_collection(tenant=tenant, model=model)
        query = checked_vector(vector)
        wanted = _filter(conditions(where, model=model))
        dimension = await self._dimension(name)
        if dimension is None:
            return []
        check_dimension(query, dimension)
        try:
            with _faults():
                found = await self._client.query_points(
                    name,
                    query=query.tolist(),
                    query_filter=wanted,
                    limit=limit,
                    score_threshold=threshold if threshold > -1 else None,
                    with_payload=True,
                )
        except _Missing:
            self._dimensions.pop(name, None)
            return []
        return [to_hit(point.payload or {}, point.score) for point in found.points]

    async def get_vector(
        self, *, tenant: str, model: str, image_id: str
    ) -> npt.NDArray[np.float32] | None:
        name = checked_collection(tenant=tenant, model=model)
        try:
            with _faults():
                found = await self._client.retrieve(
                    name,
                    [point_id(image_id=image_id, model=model)],
                    with_payload=False,
                    with_vectors=True,
                )
        except _Missing:
            return None
        return np.array(found[0].vector, dtype=np.float32) if found else None

    async def delete(self, image_ids: Sequence[str], *, tenant: str, model: str) -> None:
        name = checked_collection(tenant=tenant, model=model)
        gone: list[models.ExtendedPointId] = [
            point_id(image_id=image_id, model=model) for image_id in image_ids
        ]
        if not gone:
            return
        try:
            with _faults():
                await self._client.delete(name, models.PointIdsList(points=gone), wait=True)
        except _Missing:
            return

    async def count(self, *, tenant: str, model: str) -> int:
        name = checked_collection(tenant=tenant, model=model)
        try:
            with _faults():
                return (await self._client.count(name, exact=True)).count
        except _Missing:
            return 0

    async def ping(self) -> None:
        with _faults():
            await self._client.get_collections()

    async def close(self) -> None:
        await self._client.close()

    async def _dimension(self, name: str) -> int | None:
        """Return how many numbers the collection's vectors have, or None if there is none."""
        known = self._dimensions.get(name)
        if known is not None:
            return known
        try:
            with _faults():
                vectors = (await self._client.get_collection(name)).config.params.vectors
        except _Missing:
            return None
        if not isinstance(vectors, models.VectorParams):
            raise VectorsUnavailable(
                f"The collection {name} was not made by this system; remove or rename it."
            )
        self._dimensions[name] = vectors.size
        return vectors.size

    async def _create(self, name: str, dimension: int) -> int:
        """Make the collection unless another worker does, and return its dimension."""
        params = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
        indexes = {
            TERMS: models.PayloadSchemaType.KEYWORD,
            TIME_FIELD: models.PayloadSchemaType.DATETIME,
        }
        try:
            with _faults():
                await self._client.create_collection(name, vectors_config=params)
        except _Exists:
            pass
        with _faults():
            for field, schema in indexes.items():
                await self._client.create_payload_index(name, field, schema)
        made = await self._dimension(name)
        if made is None:
            raise VectorsUnavailable
        return made

    async def _write(self, name: str, batch: list[models.PointStruct], dimension: int) -> None:
        try:
            with _faults():
                await self._client.upsert(name, batch, wait=True)
        except _Missing:  # removed since it was seen
            self._dimensions.pop(name, None)
            await self._create(name, dimension)
            with _faults():
                await self._client.upsert(name, batch, wait=True)


@contextmanager
def _faults() -> Iterator[None]:
    """Raise this system's errors for the client's."""
    try:
        yield
    except UnexpectedResponse as error:
        text = error.content.decode(errors="replace")
        if error.status_code == _NOT_FOUND:
            raise _Missing from error
        if error.status_code == _CONFLICT or "already exists" in text:
            raise _Exists from error
        if "Vector dimension error" in text:
            raise DimensionMismatch from error
        log.warning("the vector engine failed", status=error.status_code, reason=text)
        raise VectorsUnavailable from error
    except ApiException as error:  # no connection, no answer in time
        log.warning("the vector engine does not answer", reason=str(error))
        raise VectorsUnavailable from error
    except ValueError as error:  # the client's own local mode, which the tests run on
        if str(error).endswith("not found"):
            raise _Missing from error
        if str(error).endswith("already exists"):
            raise _Exists from error
        raise


def _filter(wanted: Conditions) -> models.Filter | None:
    must: list[models.Condition] = [
        models.FieldCondition(key=TERMS, match=models.MatchAny(any=list(terms)))
        for terms in wanted.any_of
    ]
    if wanted.uploaded_from is not None or wanted.uploaded_before is not None:
        between = models.DatetimeRange(gte=wanted.uploaded_from, lt=wanted.uploaded_before)
        must.append(models.FieldCondition(key=TIME_FIELD, range=between))
    must_not: list[models.Condition] = (
        [models.HasIdCondition(has_id=[wanted.excluded_point])] if wanted.excluded_point else []
    )
    return models.Filter(must=must, must_not=must_not) if must or must_not else None
