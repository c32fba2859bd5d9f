"""What every engine refuses in the same words."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deeplens_streams.errors import DimensionMismatch, UnknownModel
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.vectors.base import VectorPoint, collection_name

_MODEL = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)


def checked_collection(*, tenant: str, model: str) -> str:
    """Return the collection's name; it is safe as a folder's name, too.

    Raises
    ------
    InvalidTenantId, UnknownModel
        An ID that no tenant or no model can have.
    """
    if not _MODEL.fullmatch(model):
        raise UnknownModel(f"{model!r} is no model name.")
    return collection_name(tenant=check_tenant_id(tenant), model=model)


def checked_vector(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return `vector` as contiguous (dimension,) float32.

    Raises
    ------
    DimensionMismatch
        It is no row of finite numbers with a direction.
    """
    row = np.ascontiguousarray(vector, dtype=np.float32)
    if row.ndim != 1 or not np.isfinite(row).all() or not row.any():
        raise DimensionMismatch("A vector is a row of finite numbers that are not all zero.")
    return row


def checked_points(points: Sequence[VectorPoint]) -> list[npt.NDArray[np.float32]]:
    """Return the vectors of `points`, which all have one dimension."""
    vectors = [checked_vector(point.vector) for point in points]
    for vector in vectors[1:]:
        check_dimension(vector, vectors[0].size)
    return vectors


def check_dimension(vector: npt.NDArray[np.float32], dimension: int) -> None:
    if vector.size != dimension:
        raise DimensionMismatch(
            f"This collection's vectors have {dimension} numbers; this one has {vector.size}."
        )
