"""What every engine refuses in the same words."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deeplens_streams.errors import CollectionLimit, DimensionConflict, DimensionMismatch
from deeplens_streams.vectors.base import VectorPoint


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


def check_existing(*, name: str, dimension: int, asked: int) -> None:
    """Raise `DimensionConflict` unless an existing collection is the one that was asked for."""
    if asked != dimension:
        raise DimensionConflict(
            f"{name} is there with vectors of {dimension} numbers, not {asked}; "
            f"ask for {dimension}, or delete it first."
        )


def check_limit(held: int, max_collections: int | None) -> None:
    """Raise `CollectionLimit` where a tenant that has `held` collections may have no more."""
    if max_collections is not None and held >= max_collections:
        raise CollectionLimit(
            f"This tenant has {held} of up to {max_collections} collections; delete one, or ask "
            "for a higher limit."
        )
