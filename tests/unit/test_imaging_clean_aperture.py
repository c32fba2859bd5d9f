"""A cropped AVIF is shown cropped, before it is turned, and weighed whole."""

import io
import struct

import pytest
from PIL import ExifTags, Image

from deeplens_streams.errors import TooManyPixels
from deeplens_streams.imaging.clean_aperture import clean_aperture
from deeplens_streams.imaging.header import inspect
from tests.support.odd_headers import box, boxes
from tests.support.pictures import decoded, quadrants, saved, sizes

#: So many bytes of a profile make a box that is as long as that of an aperture.
_PROFILE = bytes(28)


def clap(width: int, height: int, across: tuple[int, int], down: tuple[int, int]) -> bytes:
    told = struct.pack(">IIIIiIiI", width, 1, height, 1, *across, *down)
    return box(b"clap", told)


def cropped(crop: bytes, **options: object) -> bytes:
    """Return an AVIF of quarters whose box of a profile was exchanged for this one."""
    data = saved(quadrants(), "AVIF", icc_profile=_PROFILE, quality=95, **options)
    profile = box(b"colr", b"prof" + _PROFILE)
    assert data.count(profile) == 1
    meta = dict(boxes(dict(boxes(data))[b"meta"][4:]))
    properties = dict(boxes(meta[b"iprp"]))
    kinds = [kind for kind, _ in boxes(properties[b"ipco"])]
    number = 1 + kinds.index(b"colr")  # of two that of the profile comes first
    links = properties[b"ipma"]
    at = links.index(bytes([number]), 11)
    essential = links[:at] + bytes([number | 0x80]) + links[at + 1 :]
    return data.replace(profile, crop).replace(links, essential)


BLUE = clap(160, 120, (-80, 1), (60, 1))


def test_what_is_cropped_away_is_not_shown() -> None:
    data = cropped(BLUE)
    assert sizes(data) == ((160, 120), (160, 120))
    assert abs(decoded(data).astype(int) - (0, 0, 255)).max() < 16


def test_the_crop_comes_before_the_turn() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = cropped(BLUE, exif=exif)
    assert sizes(data) == ((120, 160), (120, 160))
    assert abs(decoded(data).astype(int) - (0, 0, 255)).max() < 16


def test_the_whole_picture_is_weighed() -> None:
    data = cropped(clap(1, 1, (0, 1), (0, 1)))
    with pytest.raises(TooManyPixels):
        inspect(io.BytesIO(data), max_pixels=320 * 240)


@pytest.mark.parametrize(
    "crop",
    [
        clap(320, 240, (0, 1), (0, 1)),
        clap(400, 120, (0, 1), (0, 1)),
        clap(160, 120, (-81, 1), (60, 1)),
        clap(160, 120, (0, 0), (60, 1)),
        clap(0, 120, (0, 1), (60, 1)),
    ],
    ids=["all", "wider", "outside", "no fraction", "empty"],
)
def test_an_aperture_that_cannot_be_is_none(crop: bytes) -> None:
    data = cropped(BLUE).replace(BLUE, crop)
    assert clean_aperture(memoryview(data), (320, 240)) is None


def test_halves_of_pixels_are_rounded_to_whole_ones() -> None:
    data = cropped(BLUE).replace(BLUE, clap(159, 119, (-161, 2), (1, 2)))
    assert clean_aperture(memoryview(data), (320, 240)) == (0, 61, 159, 180)


def test_what_is_no_container_has_no_aperture() -> None:
    for data in (b"", b"\0\0\0\x0cmeta\0\0\0\0", b"\0\0\0\x0cpitm\0\0\0\0"):
        assert clean_aperture(memoryview(data), (320, 240)) is None
