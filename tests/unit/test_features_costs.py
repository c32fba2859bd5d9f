"""What decoding would take is known before it begins: memory, frames and pages."""

import io
import struct
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from pillow_heif import register_heif_opener

from deeplens_streams.errors import (
    TooManyFrames,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
)
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.host.cgroup_memory import MAPPED_BYTES
from deeplens_streams.imaging import decode as decoding
from deeplens_streams.imaging import frame_count
from deeplens_streams.imaging import header as pictures
from deeplens_streams.imaging.decode import decode
from deeplens_streams.imaging.decode_memory import DecodingBudget
from deeplens_streams.imaging.header import inspect

register_heif_opener()
SIDE = 64
TURNED = Image.Exif()
TURNED[ExifTags.Base.Orientation] = 6


def saved(mode: str, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "weight"),
    [
        (saved("RGB", "PNG"), 1),
        (saved("L", "PNG"), 1),
        (saved("1", "PNG"), 1),
        (saved("RGB", "JPEG", exif=TURNED), 1),
        (saved("RGB", "JPEG", progressive=True), 2),
        (saved("RGB", "JPEG").replace(b"\0\x0c\x03\1\0\2\x11\3\x11", b"\0\x08\1\1\0"), 2),
        (saved("CMYK", "JPEG"), 1),
        (saved("RGBA", "PNG"), 2),
        (saved("RGB", "PNG", exif=TURNED), 2),
        (saved("RGB", "TIFF", exif=TURNED), 2),
        (saved("RGB", "HEIF"), 2),
        (saved("RGB", "AVIF"), 10 / 4),
        (saved("RGB", "WEBP"), 4),
        (saved("F", "TIFF"), 29 / 4),
    ],
    ids=str,
)
def test_pixels_weigh_what_their_decoding_takes(data: bytes, weight: float) -> None:
    limit = int(SIDE * SIDE * weight)
    assert inspect(io.BytesIO(data), max_pixels=limit).width == SIDE
    with pytest.raises(TooManyPixels, match="megapixels"):
        inspect(io.BytesIO(data), max_pixels=limit - 1)


def test_a_tile_counts_however_little_of_it_is_seen() -> None:
    buffer = io.BytesIO()
    pixels = np.zeros((16, 16, 3), np.uint8)
    tifffile.imwrite(buffer, pixels, tile=(1024, 1024), photometric="rgb", compression="zlib")
    assert inspect(buffer, max_pixels=1024 * 1024).width == 16
    with pytest.raises(TooManyPixels):
        inspect(buffer, max_pixels=1024 * 1024 - 1)


def animated(format: str, frames: int) -> bytes:
    pictures = [Image.new("L", (1, 1), each * 37 % 256) for each in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, format, save_all=True, append_images=pictures[1:], lossless=True)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PNG", "WEBP", "AVIF"])
def test_frames_have_a_limit(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_count, "MAX_FRAMES", 5)
    assert inspect(io.BytesIO(animated(format, 5)), max_pixels=100).width == 1
    with pytest.raises(TooManyFrames):
        inspect(io.BytesIO(animated(format, 6)), max_pixels=100)


def test_big_tiffs_have_pages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_count, "MAX_FRAMES", 2)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((3, 4, 4), np.uint8), bigtiff=True, photometric="minisblack")
    with pytest.raises(TooManyFrames):
        inspect(buffer, max_pixels=100)


def test_pages_in_a_circle_end_at_the_limit() -> None:
    data = bytearray(animated("TIFF", 1))
    first = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    with pytest.raises(TooManyFrames):
        inspect(io.BytesIO(data), max_pixels=100)


@pytest.mark.parametrize("format", ["GIF", "TIFF"])
def test_damage_ends_the_count(format: str) -> None:
    data = animated(format, 20)
    for size in range(len(data)):
        with suppress(UndecodableImage, UnsupportedFormat):
            assert inspect(io.BytesIO(data[:size]), max_pixels=100).width == 1


def test_threads_share_a_budget() -> None:
    budget, lock, held, most = DecodingBudget(10), Lock(), 0, 0

    def use(pixels: int) -> None:
        nonlocal held, most
        with budget.hold(pixels):
            with lock:
                held += min(pixels, 10)
                most = max(most, held)
            with lock:
                held -= min(pixels, 10)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, [1, 9, 10, 3, 100, 5] * 200))
    assert 0 < most <= 10
    assert held == 0


def test_a_failure_keeps_no_picture_in_memory() -> None:
    data = saved("RGB", "PNG")
    with pytest.raises(UndecodableImage) as caught:
        decode(data[:-40], UNTRAINED, max_pixels=10_000, budget=DecodingBudget(10_000))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(caught.tb)]
    assert not any(isinstance(each, Image.Image) for held in frames[1:] for each in held.values())
    assert len(frames) == 3  # this test, and `decode` with one call that holds nothing


@pytest.mark.parametrize(("place", "name"), [(pictures, "check_pixels"), (decoding, "_thumbnail")])
def test_too_little_memory_now_is_no_fault_of_the_picture(
    place: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, _out_of_memory)
    data, budget = saved("RGB", "PNG"), DecodingBudget(10_000)
    with pytest.raises(MemoryError):
        decode(data, UNTRAINED, max_pixels=10_000, thumbnail_px=64, budget=budget)


PIXELS, WEBP = 100_000, 4 * SIDE * SIDE
#: Bytes: for all that is decoded at once, for this picture, and not even for that.
AMPLE, PLENTY, LITTLE = PIXELS * MAPPED_BYTES, WEBP * MAPPED_BYTES, WEBP * MAPPED_BYTES - 1
BUDGET = DecodingBudget(PIXELS)


@pytest.mark.parametrize("left", [None, AMPLE, PLENTY, LITTLE])
@pytest.mark.parametrize("error", [MemoryError, UndecodableImage])
@pytest.mark.parametrize(("format", "weight"), [("PNG", SIDE * SIDE), ("WEBP", WEBP)])
def test_what_may_have_failed_for_want_of_memory_is_tried_with_nothing_beside_it(
    format: str,
    weight: int,
    error: type[Exception],
    left: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A picture is damaged at once where its decoder can tell, or there is memory for all."""
    free = _failing(monkeypatch, error, times=1, left=left)
    if error is MemoryError or (format == "WEBP" and left in {PLENTY, LITTLE}):
        assert _small_thumbnail(format)
        assert free == [PIXELS - weight, 0]
    else:
        with pytest.raises(UndecodableImage):
            _small_thumbnail(format)
        assert free == [PIXELS - weight]


@pytest.mark.parametrize(
    ("error", "left", "told"),
    [
        (MemoryError, PLENTY, MemoryError),
        (UndecodableImage, PLENTY, UndecodableImage),
        (UndecodableImage, LITTLE, MemoryError),
    ],
)
def test_a_picture_is_damaged_only_where_there_was_memory_for_it(
    error: type[Exception], left: int, told: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    _failing(monkeypatch, error, times=2, left=left)
    with pytest.raises(told):
        _small_thumbnail("WEBP")


@pytest.mark.parametrize("left", [None, AMPLE, LITTLE])
def test_a_header_that_is_damaged_is_read_once(
    left: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = _failing(monkeypatch, UndecodableImage, times=0, left=left)
    with pytest.raises(UndecodableImage):
        decode(saved("RGB", "WEBP")[:30], UNTRAINED, max_pixels=PIXELS, budget=BUDGET)
    assert free == []


def _small_thumbnail(format: str) -> bytes | None:
    picture = saved("RGB", format)
    return decode(picture, UNTRAINED, max_pixels=PIXELS, thumbnail_px=64, budget=BUDGET).thumbnail


def _failing(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], *, times: int, left: int | None
) -> list[int]:
    """Have the first decodings fail; the list returned gets the budget that each of all left."""
    thumbnail, free = decoding._thumbnail, list[int]()

    def fail(*arguments: Any) -> bytes:
        free.append(BUDGET._free)
        if len(free) <= times:
            raise error
        return thumbnail(*arguments)

    monkeypatch.setattr(decoding, "_thumbnail", fail)
    monkeypatch.setattr(decoding, "memory_left", lambda: left)
    return free


def test_a_header_that_takes_too_much_memory_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody comes back to an upload."""
    monkeypatch.setattr(pictures, "check_pixels", _out_of_memory)
    with pytest.raises(UndecodableImage):
        inspect(io.BytesIO(saved("RGB", "PNG")), max_pixels=10_000)


def _out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError
