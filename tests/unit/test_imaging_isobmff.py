"""Items of AVIF and HEIC that lie over one another: grids and layers do, and bombs do more."""

import io

import pytest
from PIL import Image

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.imaging import isobmff
from deeplens_streams.imaging.header import inspect
from tests.support.image_grids import SIDE, flat_grid
from tests.support.pictures import LIMIT, decoded, sizes


def test_a_flat_grid_is_a_picture() -> None:
    data = flat_grid(8, 6, Image.new("RGB", (SIDE, SIDE), "red"))
    assert sizes(data) == ((512, 384), (512, 384))
    assert abs(decoded(data).astype(int) - (255, 0, 0)).max() < 8


def test_items_that_tell_more_than_the_floor_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.effect_noise((SIDE, SIDE), 100).convert("RGB")
    data = flat_grid(16, 16, noise)
    assert sizes(data) == ((1024, 1024), (1024, 1024))
    monkeypatch.setattr(isobmff, "_FLOOR", 0)
    with pytest.raises(UndecodableImage):
        inspect(io.BytesIO(data), max_pixels=LIMIT)
