"""JPEGs without their end: browsers show them, and so are they if a row of blocks is missing."""

import io
from functools import cache

import numpy as np
import pytest
from PIL import ExifTags, Image

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging.decode import decode
from deeplens_streams.imaging.header import inspect
from deeplens_streams.imaging.notes import NO_END
from tests.support.photographs import photographs
from tests.support.pictures import LIMIT, decoded, difference, saved

KINDS: dict[str, dict[str, object]] = {
    "baseline": {},
    "every colour": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "grey": {},
}
_BLOCKS = 16


@cache
def photograph(kind: str, height: int = 240) -> bytes:
    with Image.open(io.BytesIO(photographs()[0].data)) as opened:
        image = opened.convert("L" if kind == "grey" else "RGB").resize((320, 240))
    return saved(image.crop((0, 0, 320, height)), "JPEG", quality=90, **KINDS[kind])


def told(data: bytes) -> list[str]:
    return inspect(io.BytesIO(data), max_pixels=LIMIT).notes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", [1, 2])
def test_without_its_end_marker_a_jpeg_is_the_same_picture(kind: str, lost: int) -> None:
    data = photograph(kind)
    assert (decoded(data[:-lost]) == decoded(data)).all()
    assert told(data) == []
    assert told(data[:-lost]) == [NO_END]


@pytest.mark.parametrize("kind", ["baseline", "every colour", "restarts", "grey"])
def test_a_last_row_that_is_short_is_shown_up_to_there(kind: str) -> None:
    data = photograph(kind)[:-60]
    found = decode(data, UNTRAINED, max_pixels=LIMIT, thumbnail_px=320)
    whole = decode(photograph(kind), UNTRAINED, max_pixels=LIMIT, thumbnail_px=320)
    pictures = []
    for each in (found, whole):
        with Image.open(io.BytesIO(each.thumbnail or b"")) as thumbnail:
            pictures.append(np.asarray(thumbnail))
    kept = slice(0, 240 - _BLOCKS - 16)
    assert difference(pictures[0][kept], pictures[1][kept]) < 1
    assert (pictures[0] != pictures[1])[-_BLOCKS:].any()
    assert told(data) == [NO_END]


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_a_row_of_blocks_may_not_be_missing(kind: str) -> None:
    data = photograph(kind)
    missing = len(data) - len(photograph(kind, 240 - 3 * _BLOCKS))
    for keep in (len(data) - missing, len(data) // 2):
        with pytest.raises(UndecodableImage):
            decoded(data[:keep])


def test_a_progressive_jpeg_may_lack_no_scan() -> None:
    """Where a scan ends, nothing in it tells that others are to come."""
    data = photograph("progressive")
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last)
    for keep in (last, tables):
        with pytest.raises(UndecodableImage):
            decoded(data[:keep])


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_it_counts_at_reduced_scale_too(kind: str) -> None:
    with Image.open(io.BytesIO(photograph(kind))) as opened:
        large = saved(opened.resize((3200, 2400)), "JPEG", quality=80, **KINDS[kind])
    assert (decoded(large[:-2]) == decoded(large)).all()
    with pytest.raises(UndecodableImage):
        decoded(large[: len(large) * 9 // 10])


def test_a_thumbnail_inside_has_an_end_of_its_own() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "like an end: \xff\xd9"
    data = photograph("baseline")
    segment = b"\xff\xe2\0\x0a" + b"\xff\xd8abc\xff\xd9x"
    with_end = data[:2] + segment + data[2:]
    assert told(with_end) == []
    assert told(with_end[:-2]) == [NO_END]


def test_what_follows_the_end_is_no_lack_of_it() -> None:
    data = photograph("baseline") + b"a trailer as phones write it" * 10
    assert told(data) == []
    assert (decoded(data) == decoded(photograph("baseline"))).all()


def shortened(kind: str, rows: int, image: Image.Image | None = None) -> bytes:
    """Return a JPEG that tells of 240 rows of pixels, and ends properly behind some of them."""
    whole = image or Image.open(io.BytesIO(photograph(kind)))
    part = saved(whole.crop((0, 0, 320, rows)), "JPEG", quality=90, **KINDS[kind])
    frame = b"\xff\xc2" if kind == "progressive" else b"\xff\xc0"
    at = part.index(frame) + 5
    assert part[at : at + 2] == rows.to_bytes(2, "big")
    return part[:at] + (240).to_bytes(2, "big") + part[at + 2 :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", [b"", b"a trailer\xff\xd8\xff\xd9"], ids=["", "trailer"])
def test_rows_may_not_be_missing_in_front_of_an_end_marker(kind: str, behind: bytes) -> None:
    for rows in (208, 112, 16):
        with pytest.raises(UndecodableImage):
            decoded(shortened(kind, rows) + behind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_blocks_may_be(kind: str) -> None:
    tall = 8 if kind in {"every colour", "grey"} else 16
    assert difference(decoded(shortened(kind, 240 - tall)), decoded(photograph(kind))) < 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_is_grey_at_its_end_is_whole(kind: str) -> None:
    grey = Image.new("L" if kind == "grey" else "RGB", (320, 240), "#808080")
    assert (decoded(saved(grey, "JPEG", **KINDS[kind])) == 128).all()
    mixed = grey.copy()
    mixed.paste("white", (0, 0, 320, 100))
    data = saved(mixed, "JPEG", quality=90, **KINDS[kind])
    assert (decoded(data + b"a trailer") == decoded(data)).all()


def test_ink_may_not_be_missing_either() -> None:
    ink = Image.open(io.BytesIO(photograph("baseline"))).convert("CMYK")
    with pytest.raises(UndecodableImage):
        decoded(shortened("baseline", 112, ink))


def test_rows_are_missed_at_reduced_scale_too() -> None:
    with Image.open(io.BytesIO(photograph("baseline"))) as opened:
        part = saved(opened.resize((3200, 1600)), "JPEG", quality=80)
    at = part.index(b"\xff\xc0") + 5
    with pytest.raises(UndecodableImage):
        decoded(part[:at] + (2400).to_bytes(2, "big") + part[at + 2 :])


@pytest.mark.parametrize("rows", [208, 112])
def test_what_ends_where_it_would_restart_lacks_rows(rows: int) -> None:
    with pytest.raises(UndecodableImage):
        decoded(shortened("restarts", rows)[:-2])
