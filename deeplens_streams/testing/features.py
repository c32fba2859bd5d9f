"""A small deterministic model for tests: real decoding, then projections instead of a network.

It is never chosen by settings.
"""

import asyncio
import time
from functools import cache

import numpy as np
import numpy.typing as npt

from deeplens_streams.features.base import Extraction, ModelSpec, Seed
from deeplens_streams.features.models import RESNET50
from deeplens_streams.imaging.decode import decode
from deeplens_streams.imaging.preprocessing import PREPROCESSING

_CELLS = 16
_SEED = 7
_MEMORY_MODEL = ModelSpec(
    name="memory-projections",
    version="1",
    architecture=RESNET50.architecture,
    precision="f32",
    dimension=RESNET50.dimension,
    input_size=RESNET50.input_size,
    resize_size=RESNET50.resize_size,
    mean=RESNET50.mean,
    std=RESNET50.std,
    weights=Seed(_SEED),
    licence="none",
    warning="These vectors are for tests: they tell colours and edges, not things.",
)


class MemoryFeatures:
    """A `FeatureExtractor` that loads nothing; near-duplicates are each other's first hits."""

    def __init__(self, *, max_pixels: int = 100_000_000, model: ModelSpec = _MEMORY_MODEL) -> None:
        self._max_pixels = max_pixels
        self._model = model

    @property
    def model(self) -> ModelSpec:
        return self._model

    async def start(self) -> None: ...

    async def ready(self) -> None: ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...

    async def extract(
        self,
        data: bytes,
        *,
        thumbnail_px: int | None = None,
        urgent: bool = False,
    ) -> Extraction:
        began = time.perf_counter()
        decoded = await asyncio.to_thread(
            decode, data, self._model, max_pixels=self._max_pixels, thumbnail_px=thumbnail_px
        )
        projected = _describe(decoded.pixels) @ _projection(self._model.dimension)
        return Extraction(
            vector=projected / np.linalg.norm(projected),
            thumbnail=decoded.thumbnail,
            width=decoded.width,
            height=decoded.height,
            format=decoded.format,
            processing_ms=(time.perf_counter() - began) * 1000,
            preprocessing=PREPROCESSING,
        )


def _describe(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return coarse colours and gradients, centred."""
    side = pixels.shape[0] // _CELLS
    cells = pixels.reshape(_CELLS, side, _CELLS, side, 3).mean(axis=(1, 3), dtype=np.float32)
    grey = cells.mean(axis=2)
    parts = (cells - cells.mean(), np.diff(grey, axis=0), np.diff(grey, axis=1))
    flat = np.concatenate([part.ravel() for part in parts])
    # A constant last number keeps a picture of one colour from having no direction at all.
    return np.append(flat, np.float32(1.0))


@cache
def _projection(dimension: int) -> npt.NDArray[np.float32]:
    """Return (features, dimension) float32; a random projection about keeps angles."""
    features = _CELLS * _CELLS * 3 + 2 * _CELLS * (_CELLS - 1) + 1
    return np.random.default_rng(_SEED).standard_normal((features, dimension), dtype=np.float32)
