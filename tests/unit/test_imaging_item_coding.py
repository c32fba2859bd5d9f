"""AVIF and HEIC are read by the decoder of what is in them, whatever their brands say."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from deeplens_streams.errors import UnsupportedKind
from deeplens_streams.imaging.header import inspect
from deeplens_streams.imaging.item_coding import AV1, HEVC, primary_coding
from tests.support.image_grids import SIDE, flat_grid
from tests.support.pictures import LIMIT, decoded, quadrants, saved, sizes

_AVIF = saved(quadrants(), "AVIF", quality=95)
_HEIC = saved(quadrants(), "HEIF", quality=95)


def branded(data: bytes, major: bytes, other: bytes) -> bytes:
    """Return the file with other brands, in as many bytes."""
    length = struct.unpack_from(">I", data)[0]
    others = other * ((length - 16) // 4)
    return data[:8] + major + bytes(4) + others + data[length:]


def told(data: bytes) -> tuple[str, str]:
    header = inspect(io.BytesIO(data), max_pixels=LIMIT)
    return header.format, header.content_type


@pytest.mark.parametrize(
    "brands",
    [(b"heic", b"mif1"), (b"heic", b"heic"), (b"mif1", b"mif1"), (b"mif1", b"miaf")],
    ids=lambda brands: b" ".join(brands).decode(),
)
def test_av1_under_brands_of_heic(brands: tuple[bytes, bytes]) -> None:
    data = branded(_AVIF, *brands)
    assert (decoded(data) == decoded(_AVIF)).all()
    assert told(data) == ("AVIF", "image/avif")


@pytest.mark.parametrize(
    "brands",
    [(b"avif", b"mif1"), (b"avif", b"avif"), (b"mif1", b"avif"), (b"mif1", b"miaf")],
    ids=lambda brands: b" ".join(brands).decode(),
)
def test_hevc_under_brands_of_avif(brands: tuple[bytes, bytes]) -> None:
    data = branded(_HEIC, *brands)
    assert (decoded(data) == decoded(_HEIC)).all()
    assert told(data) == ("HEIF", "image/heic")


@pytest.mark.parametrize("turn", range(1, 9))
def test_it_is_turned_as_by_its_own_brand(turn: int) -> None:
    exif = Image.Exif()
    exif[274] = turn
    for name, brand in (("AVIF", b"heic"), ("HEIF", b"avif")):
        data = saved(quadrants(), name, exif=exif)
        assert sizes(branded(data, brand, brand)) == sizes(data)
        assert (decoded(branded(data, brand, brand)) == decoded(data)).all()


def test_a_picture_of_tiles_is_coded_as_they_are() -> None:
    data = flat_grid(2, 2, Image.new("RGB", (SIDE, SIDE), "red"))
    assert primary_coding(memoryview(data)) == AV1
    assert np.abs(decoded(branded(data, b"heic", b"mif1")).astype(int) - (255, 0, 0)).max() < 8


def test_a_coding_that_no_decoder_here_knows_is_named() -> None:
    assert primary_coding(memoryview(_HEIC)) == HEVC
    data = _HEIC.replace(b"\0\0hvc1", b"\0\0avc1", 1)
    assert primary_coding(memoryview(data)) == b"avc1"
    with pytest.raises(UnsupportedKind, match=r"This kind of HEIF is not supported \(H\.264\)"):
        inspect(io.BytesIO(data), max_pixels=LIMIT)


def test_what_is_damaged_tells_no_coding() -> None:
    for length in range(0, len(_HEIC), 50):
        assert primary_coding(memoryview(_HEIC[:length])) in {None, HEVC}
    assert primary_coding(memoryview(_HEIC.replace(b"pitm", b"free"))) is None
