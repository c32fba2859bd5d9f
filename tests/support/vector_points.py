"""Points as tests store them in a vector engine, and where."""

import asyncio
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplens_streams.identifiers import new_image_id
from deeplens_streams.vectors import VectorPoint, VectorStore
from models.collections import CollectionStatus

DIMENSION = 32
HERE: dict[str, Any] = {"tenant": "acme-corp", "model": "resnet50"}


def unit(seed: int, dimension: int = DIMENSION) -> npt.NDArray[np.float32]:
    row = np.random.default_rng(seed).normal(size=dimension)
    return (row / np.linalg.norm(row)).astype(np.float32)


def point(vector: npt.NDArray[np.float32], **payload: Any) -> VectorPoint:
    image_id = payload.pop("imageId", None) or new_image_id()
    return VectorPoint(
        image_id,
        vector,
        {
            "imageId": image_id,
            "fileName": "a.jpg",
            "contentType": "image/jpeg",
            "uploadedBy": None,
            "uploadedAt": "2025-03-09T12:00:00.000Z",
            "tags": {},
            "hasThumbnail": True,
            "metadata": {"width": 640, "exifData": {"Make": "Größe", "list": [1, 2.5, None]}},
        }
        | payload,
    )


NAME = "tenant_acme-corp_resnet50_vectors"
THERE: dict[str, Any] = {"tenant": "acmecorp", "model": "resnet50"}


async def settled(vectors: VectorStore, seconds: float = 120) -> None:
    """Wait until the collection is not yellow any more."""
    async with asyncio.timeout(seconds):
        while True:
            found = await vectors.describe(**HERE)
            assert found is not None
            if found.status is not CollectionStatus.YELLOW:
                return
            await asyncio.sleep(0.05)
