"""What the rest of the system asks of a vector engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.collections import CollectionStatus


def collection_name(*, tenant: str, model: str) -> str:
    """Return ``tenant_{tenant}_{model}_vectors``; both IDs stand as they are.

    Neither may hold an underscore (a tenant ID cannot, a model name is one of ours), so two
    pairs never share a name.
    """
    return f"tenant_{tenant}_{model}_vectors"


@dataclass(frozen=True, slots=True)
class VectorPoint:
    """One image's vector as stored.

    Attributes
    ----------
    image_id : prefixed.
    vector : (dimension,) float32, L2-normalised.
    payload : what search answers need: ``imageId, fileName, contentType, uploadedBy,
        uploadedAt`` (ISO-8601 UTC), ``tags`` (object of strings), ``hasThumbnail``, ``metadata``,
        ``preprocessingVersion`` (whole number, absent or null of before there was one).
    """

    image_id: str
    vector: npt.NDArray[np.float32]
    payload: dict[str, Any]


def has_thumbnail(payload: Mapping[str, Any]) -> bool:
    """Tell whether a thumbnail of a stored point's image was asked for.

    Points of before ``hasThumbnail`` have its address instead, which is null without one.
    """
    told = payload.get("hasThumbnail")
    if isinstance(told, bool):
        return told
    return "thumbnailUrl" not in payload or payload["thumbnailUrl"] is not None


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; `score` is the cosine similarity, -1 to 1, rounded to six digits."""

    image_id: str
    score: float
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """Conditions that all must hold.

    Attributes
    ----------
    equals : payload path (``fileName``, ``contentType``, ``uploadedBy``, ``tags.KEY``) to the
        values of which one must be equal.
    uploaded_from, uploaded_before : ISO-8601 UTC; from is inclusive, before is not.
    exclude_image_id : the query's own image, when the query is a stored image.
    """

    equals: Mapping[str, Sequence[str]] = field(default_factory=dict)
    uploaded_from: str | None = None
    uploaded_before: str | None = None
    exclude_image_id: str | None = None


@dataclass(frozen=True, slots=True)
class PointPage:
    """Some of a collection's points.

    Attributes
    ----------
    images : image ID and upload time (ISO-8601 UTC, empty where none is said) of each.
    after : what continues behind them, or None at the end.
    damaged : IDs of points whose payload names no image.
    """

    images: list[tuple[str, str]]
    after: str | None
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """A tenant's vectors of one model, as the engine has them now.

    Attributes
    ----------
    name : on the wire, whatever the engine calls it.
    vectors, dimension, indexed : None where the engine cannot read the collection. Vectors that
        are not indexed are compared one by one.
    memory_bytes : None where that cannot be told. Of a shared collection, `indexed` and this are
        the tenant's share by its number of vectors.
    trouble : what is wrong with a red one, a sentence.
    """

    model: str
    name: str
    status: CollectionStatus
    vectors: int | None = None
    dimension: int | None = None
    indexed: int | None = None
    memory_bytes: int | None = None
    trouble: str | None = None


class VectorStore(Protocol):
    """Vectors of many tenants, none of whom finds another's.

    Every method raises `VectorsUnavailable` when the engine does not answer, or answers that it
    cannot now, and `VectorsRefused` when it will not do this very thing. `upsert` returns when a
    SIGKILL of this process would lose nothing.
    """

    async def start(self) -> None:
        """Take what is this process's alone.

        Raises
        ------
        ConfigurationError
            Another process has it, or it cannot be written.
        """

    async def upsert(self, points: Sequence[VectorPoint], *, tenant: str, model: str) -> None:
        """Store points, creating the collection at the first; a repeat replaces."""

    async def search(
        self,
        vector: npt.NDArray[np.float32],
        *,
        tenant: str,
        model: str,
        limit: int,
        threshold: float,
        where: SearchFilter = SearchFilter(),
    ) -> list[Hit]:
        """Return up to `limit` hits of at least `threshold`, best first, equal scores in the order
        of image IDs; a collection that does not exist has none.
        """

    async def get_vector(
        self, *, tenant: str, model: str, image_id: str
    ) -> npt.NDArray[np.float32] | None:
        """Return an image's stored vector, or None."""

    async def get_point(self, *, tenant: str, model: str, image_id: str) -> VectorPoint | None:
        """Return an image's vector with its payload, as `upsert` takes it, or None."""

    async def present(self, image_ids: Sequence[str], *, tenant: str, model: str) -> set[str]:
        """Return those images that have a point."""

    async def preprocessing(
        self, image_ids: Sequence[str], *, tenant: str, model: str
    ) -> dict[str, int]:
        """Return the version of the preprocessing of each image that has a point."""

    async def page(
        self, *, tenant: str, model: str, limit: int, after: str | None = None
    ) -> PointPage:
        """Return up to `limit` images that have a point, in the order of point IDs."""

    async def delete(self, image_ids: Sequence[str], *, tenant: str, model: str) -> None:
        """Remove images' points; what is gone is no error."""

    async def count(self, *, tenant: str, model: str) -> int:
        """Return the number of points; 0 if there is no collection."""

    async def create(
        self, *, tenant: str, model: str, dimension: int, max_collections: int | None = None
    ) -> bool:
        """Make a collection, and tell whether there was none.

        Parameters
        ----------
        max_collections : how many the tenant may have, this one included.

        Raises
        ------
        DimensionConflict
            There is one, or a shared one, of another dimension.
        CollectionLimit
            The tenant has as many as it may have.
        """

    async def models_of(self, *, tenant: str) -> list[str]:
        """Return the models that the tenant has a collection of, sorted."""

    async def tenants(self) -> list[str]:
        """Return every tenant that has a collection, sorted."""

    async def describe(self, *, tenant: str, model: str) -> Collection | None:
        """Return a collection's figures, or None if there is none."""

    async def drop(self, *, tenant: str, model: str) -> bool:
        """Remove a collection with all its points, and tell whether there was one."""

    async def optimize(self, *, tenant: str, model: str) -> bool:
        """Have a collection indexed for faster searches, and tell whether there is one.

        It returns when that has begun; the status is yellow until it is done.
        """

    async def damaged(self, *, tenant: str) -> list[str]:
        """Return the models, sorted, of which vectors of the tenant were found damaged.

        Searches of these raise `VectorsUnavailable` until `give_up_damaged`.
        """

    async def give_up_damaged(self, *, tenant: str, model: str) -> None:
        """Have searches go on without the vectors that are damaged; they are to be made anew.

        In a shared collection, those of other tenants are given up as well.
        """

    async def ping(self) -> None:
        """Raise `VectorsUnavailable` unless the engine answers."""

    async def close(self) -> None:
        """Write everything down and let go of files and threads."""
