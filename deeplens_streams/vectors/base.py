"""What the rest of the system asks of a vector engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.events import derived_id


def collection_name(*, tenant: str, model: str) -> str:
    """Return ``tenant_{tenant}_{model}_vectors``; both IDs stand as they are.

    Neither may hold an underscore (a tenant ID cannot, a model name is one of ours), so two
    pairs never share a name.
    """
    return f"tenant_{tenant}_{model}_vectors"


def point_id(*, image_id: str, model: str) -> str:
    """Return the UUID of an image's point, the same at every redelivery."""
    return derived_id("point", image_id, model)


@dataclass(frozen=True, slots=True)
class VectorPoint:
    """One image's vector as stored.

    Attributes
    ----------
    image_id : prefixed.
    vector : (dimension,) float32, L2-normalised.
    payload : what search answers need: ``imageId, fileName, contentType, uploadedBy,
        uploadedAt`` (ISO-8601 UTC), ``tags`` (object of strings), ``thumbnailUrl``, ``metadata``.
    """

    image_id: str
    vector: npt.NDArray[np.float32]
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; `score` is the cosine similarity, -1 to 1."""

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


class VectorStore(Protocol):
    """Vectors of many tenants, never two in one collection.

    Every method raises `VectorsUnavailable` when the engine does not answer. `upsert` returns
    when a SIGKILL of this process would lose nothing.
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
        """Return up to `limit` hits of at least `threshold`, best first; a collection that
        does not exist has none.
        """

    async def get_vector(
        self, *, tenant: str, model: str, image_id: str
    ) -> npt.NDArray[np.float32] | None:
        """Return an image's stored vector, or None."""

    async def delete(self, image_ids: Sequence[str], *, tenant: str, model: str) -> None:
        """Remove images' points; what is gone is no error."""

    async def count(self, *, tenant: str, model: str) -> int:
        """Return the number of points; 0 if there is no collection."""

    async def ping(self) -> None:
        """Raise `VectorsUnavailable` unless the engine answers."""

    async def close(self) -> None:
        """Write everything down and let go of files and threads."""
