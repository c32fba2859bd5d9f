"""TIFFs of every type of sample and order of bytes, and of layouts that Pillow alone misreads."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from deeplens_streams.errors import UnsupportedKind
from deeplens_streams.imaging.header import inspect
from tests.support.pictures import LIMIT, decoded, difference, quadrants, saved, sizes

SIDE = 64
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
EXPECTED = decoded(saved(Image.fromarray((RAMP * 255).round().astype(np.uint8)), "PNG"))
_EXACT = 1.5


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def ramp(kind: str) -> np.ndarray:
    """Return the ramp in this type, from its least number to its greatest, or from 0 to 1."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return RAMP.astype(dtype)
    limits = np.iinfo(dtype)
    return (limits.min + RAMP * (int(limits.max) - limits.min) * 0.9999999).astype(dtype)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "f8"])
def test_a_ramp_is_a_ramp_in_every_type(kind: str, order: str, compression: str | None) -> None:
    options = {"byteorder": order, "compression": compression}
    data = tiff(ramp(kind), photometric="minisblack", **options)
    assert sizes(data) == ((SIDE, SIDE), (SIDE, SIDE))
    assert difference(decoded(data), EXPECTED) < _EXACT
    if kind != "i1":
        negative = tiff(ramp(kind), photometric="miniswhite", **options)
        assert difference(255 - decoded(negative), EXPECTED) < _EXACT


@pytest.mark.parametrize(
    ("samples", "shown"),
    [
        (np.full((8, 8), 3_000_000_000, np.uint32), 178),
        (np.full((8, 8), 0.5, np.float32), 128),
        (np.full((8, 8), 7.0, np.float32), 0),
        (np.full((8, 8), np.nan, np.float16), 0),
        (np.full((8, 8), -5, np.int32), 0),
    ],
)
def test_a_flat_picture_is_as_bright_as_its_range_says(samples: np.ndarray, shown: int) -> None:
    assert decoded(tiff(samples)).tolist() == np.full((224, 224, 3), shown).tolist()


def test_what_is_no_number_spoils_no_other() -> None:
    samples = (RAMP * 8 - 3).astype(np.float32)
    samples[0, 0], samples[0, 1], samples[-1, -1] = np.nan, -np.inf, np.inf
    assert difference(decoded(tiff(samples)), EXPECTED) < _EXACT


def test_numbers_of_any_size_are_spread() -> None:
    samples = ((RAMP - 0.5) * 2 * np.finfo(np.float32).max).astype(np.float32)
    assert difference(decoded(tiff(samples)), EXPECTED) < _EXACT


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [8, 16])
def test_planes_are_put_together(bits: int, order: str, compression: str | None) -> None:
    colours = np.asarray(quadrants((SIDE, SIDE)))
    samples = colours if bits == 8 else colours.astype(np.uint16) * 257
    options = {"photometric": "rgb", "byteorder": order, "compression": compression}
    separate = tiff(np.moveaxis(samples, 2, 0), planarconfig="separate", **options)
    tiled = tiff(np.moveaxis(samples, 2, 0), planarconfig="separate", tile=(32, 32), **options)
    expected = decoded(saved(quadrants((SIDE, SIDE)), "PNG"))
    for data in (separate, tiled):
        assert difference(decoded(data), expected) < _EXACT


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_grey_that_its_alpha_was_multiplied_into_is_on_white(alpha: int) -> None:
    grey = 100 * alpha // 255
    samples = np.full((SIDE, SIDE, 2), (grey, alpha), np.uint8)
    data = tiff(samples, photometric="minisblack", extrasamples=["assocalpha"])
    assert np.abs(decoded(data).astype(int) - (grey + 255 - alpha)).max() <= 1


@pytest.mark.parametrize("across", [1, 2])
def test_colours_of_fewer_samples_than_brightness_are_read(across: int) -> None:
    """Uncompressed: of each block the brightnesses, then its two colours."""
    colours = np.asarray(quadrants((SIDE, SIDE)).convert("YCbCr"))
    blocks = colours.reshape(SIDE // across, across, SIDE // across, across, 3).swapaxes(1, 2)
    bright = blocks[..., 0].reshape(SIDE // across, SIDE // across, across * across)
    packed = np.concatenate([bright, blocks[:, :, 0, 0, 1:]], axis=2).astype(np.uint8)
    written = tiff(np.zeros((SIDE, SIDE, 3), np.uint8), photometric="ycbcr", metadata=None)
    with tifffile.TiffFile(io.BytesIO(written)) as file:
        tags = file.pages[0].aspage().tags
        at = file.pages[0].dataoffsets[0]
        told = tags["YCbCrSubSampling"].valueoffset if "YCbCrSubSampling" in tags else None
    data = bytearray(written)
    data[at : at + packed.size] = packed.tobytes()
    if told is None:
        pytest.fail("the writer tells no subsampling")
    data[told : told + 4] = np.array([across, across], "<u2").tobytes()
    expected = decoded(saved(quadrants((SIDE, SIDE)), "PNG"))
    assert difference(decoded(bytes(data)), expected) < 2


def test_bits_of_an_odd_number_are_scaled() -> None:
    samples = (RAMP * 4095).round().astype(np.uint16)
    packed = np.unpackbits(samples.astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 4:]
    written = bytearray(tiff(np.zeros((SIDE, SIDE * 3 // 2), np.uint8), metadata=None))
    with tifffile.TiffFile(io.BytesIO(bytes(written))) as file:
        page = file.pages[0].aspage()
        at = page.dataoffsets[0]
        width, bits = page.tags["ImageWidth"], page.tags["BitsPerSample"]
        written[width.valueoffset : width.valueoffset + 2] = SIDE.to_bytes(2, "little")
        written[bits.valueoffset : bits.valueoffset + 2] = (12).to_bytes(2, "little")
    written[at : at + SIDE * SIDE * 3 // 2] = np.packbits(packed).tobytes()
    assert difference(decoded(bytes(written)), EXPECTED) < _EXACT


def test_a_large_tiff_is_one() -> None:
    data = tiff((RAMP * 255).round().astype(np.uint8), bigtiff=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pillow looks for EXIF that is not there
        assert difference(decoded(data), EXPECTED) < _EXACT


@pytest.mark.parametrize(
    ("samples", "options", "told"),
    [
        (np.zeros((8, 8), np.uint8), {"bigtiff": True, "byteorder": ">"}, "BigTIFF"),
        (np.zeros((8, 8, 3), np.float32), {"photometric": "rgb"}, "bits"),
        (np.zeros((8, 8, 2), np.uint16), {"extrasamples": ["unassalpha"]}, "bits"),
    ],
    ids=["BigTIFF", "colours in floating point", "16 bits with alpha"],
)
def test_a_kind_that_nothing_here_reads_is_named(
    samples: np.ndarray, options: dict[str, object], told: str
) -> None:
    data = tiff(samples, **({"photometric": "minisblack"} | options))
    with pytest.raises(UnsupportedKind, match=f"This kind of TIFF is not supported .*{told}"):
        inspect(io.BytesIO(data), max_pixels=LIMIT)


def test_a_compression_that_nothing_here_reads_is_named() -> None:
    data = bytearray(saved(Image.new("L", (8, 8)), "TIFF"))
    at = data.index(b"\3\1\3\0\1\0\0\0\1\0")  # the tag 259, one short number, 1
    data[at + 8 : at + 10] = (34887).to_bytes(2, "little")
    with pytest.raises(UnsupportedKind, match="compression 34887"):
        inspect(io.BytesIO(bytes(data)), max_pixels=LIMIT)
