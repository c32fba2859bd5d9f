"""Colours: whatever a file says of them, the model and the thumbnail get sRGB."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging import icc
from deeplens_streams.imaging.decode import Decoded, decode
from deeplens_streams.imaging.icc import icc_transform
from tests.support.pictures import LIMIT, saved
from tests.support.profiles import (
    ADOBE,
    D50,
    D65,
    P3,
    PROPHOTO,
    SRGB,
    SRGB_CURVE,
    Chromaticities,
    encoded,
    grey_profile,
    in_ink,
    press_profile,
    rgb_profile,
)

#: Levels of 255: a picture is rounded to 8 bits before it is converted and after.
_ROUNDED = 3
COLOURS = np.array([[(180, 90, 60), (60, 140, 90)], [(90, 100, 170), (128, 128, 128)]], np.uint8)


def blocks(colours: np.ndarray) -> Image.Image:
    """Return four quarters, one colour each."""
    return Image.fromarray(colours.repeat(128, axis=0).repeat(128, axis=1))


def shown(data: bytes) -> Decoded:
    return decode(data, UNTRAINED, max_pixels=LIMIT, thumbnail_px=256)


def corners(found: Decoded) -> list[np.ndarray]:
    """Return (2, 2, 3) of the model's input and of the thumbnail: each quarter's colour."""
    with Image.open(io.BytesIO(found.thumbnail or b"")) as thumbnail:
        both = found.pixels, np.asarray(thumbnail)
    return [each[[[40], [180]], [40, 180]].astype(int) for each in both]


def changes_nothing(profile: bytes) -> bool:
    transform = icc_transform(profile)
    assert transform is not None
    return transform.changes_nothing


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize(
    ("primaries", "white", "gamma"),
    [(P3, D65, None), (ADOBE, D65, 2.2), (PROPHOTO, D50, 1.8)],
    ids=["P3", "Adobe RGB", "ProPhoto"],
)
def test_colours_of_a_profile_are_the_same_in_srgb(
    format: str, primaries: Chromaticities, white: tuple[float, float], gamma: float | None
) -> None:
    profile = rgb_profile(primaries, white, gamma or SRGB_CURVE)
    picture = blocks(encoded(COLOURS, primaries, white, gamma))
    options = {"lossless": True} if format == "WEBP" else {"quality": 100}
    for seen in corners(shown(saved(picture, format, icc_profile=profile, **options))):
        assert np.abs(seen - COLOURS).max() <= (_ROUNDED if format in {"PNG", "TIFF"} else 7)


def test_a_profile_is_judged_by_what_it_does_and_not_by_its_name() -> None:
    liar = rgb_profile(P3, name="DCI-P3 D65 Gamut with sRGB Transfer")
    seen = shown(saved(Image.new("RGB", (256, 256), (200, 60, 40)), "PNG", icc_profile=liar))
    assert np.abs(seen.pixels[100, 100].astype(int) - (217, 42, 23)).max() <= 2
    assert changes_nothing(rgb_profile(SRGB, name="my very own"))


def test_srgb_in_effect_costs_no_conversion() -> None:
    lcms = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (lcms, rgb_profile(SRGB)):
        assert changes_nothing(profile)
    for profile in (rgb_profile(SRGB, curve=1.8), rgb_profile(SRGB, D65, 2.6), rgb_profile(ADOBE)):
        assert not changes_nothing(profile)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profiles_count_for_grey(mode: str) -> None:
    grey = Image.new("L", (256, 256), 100)
    if mode == "I;16":
        image = Image.fromarray(np.full((256, 256), 100 * 257, np.uint16))
    else:
        image = grey.convert(mode)
    for gamma, expected in ((1.0, 167), (1.8, 119)):
        seen = shown(saved(image, "PNG", icc_profile=grey_profile(gamma)))
        assert np.abs(seen.pixels.astype(int) - expected).max() <= 1


def test_grey_may_have_a_profile_for_colours() -> None:
    profile = rgb_profile(PROPHOTO, D50, 1.8)
    seen = shown(saved(Image.new("L", (256, 256), 100), "JPEG", icc_profile=profile))
    assert np.abs(seen.pixels.astype(int) - 119).max() <= 1


def test_a_profile_for_other_pixels_is_none() -> None:
    for mode, colour, profile in (
        ("RGB", (200, 60, 40), grey_profile(1.0)),
        ("CMYK", (0, 0, 0, 155), rgb_profile(P3)),
    ):
        with_it = shown(saved(Image.new(mode, (256, 256), colour), "TIFF", icc_profile=profile))
        without = shown(saved(Image.new(mode, (256, 256), colour), "TIFF"))
        assert np.array_equal(with_it.pixels, without.pixels)


def test_a_profile_is_looked_at_once_and_only_some_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remembered = icc._Remembered()
    monkeypatch.setattr(icc, "_remembered", remembered)
    profiles = [rgb_profile(P3, name=str(each)) for each in range(icc._REMEMBERED + 1)]
    first = icc_transform(profiles[0])
    assert first is not None
    assert icc_transform(profiles[0]) is first
    for each in profiles[1:]:
        icc_transform(each)
    assert len(remembered._made) == icc._REMEMBERED
    assert icc_transform(profiles[0]) is not first


def test_a_profile_that_is_too_large_or_damaged_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = rgb_profile(P3)
    assert icc_transform(profile[:200]) is None
    assert icc_transform(b"") is None
    monkeypatch.setattr(icc, "LARGEST_PROFILE", len(profile) - 1)
    assert icc_transform(profile) is None


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_ink_of_a_press_is_what_it_was_made_of(format: str) -> None:
    ink = in_ink(blocks(COLOURS), press_profile())
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    data = saved(ink, format, icc_profile=press_profile(), **options)
    for seen in corners(shown(data)):
        # Through the press's tables and back; grey comes back as grey, if a little darker.
        assert np.abs(seen - COLOURS).max() <= 10
        assert np.ptp(seen[1, 1]) <= 2
    plain = corners(shown(saved(ink, format, **options)))[0]
    assert np.abs(plain - COLOURS).max() > 30


def without_adobe_marker(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def test_ink_is_upside_down_where_adobes_marker_says_so() -> None:
    red = Image.new("CMYK", (640, 640), (0, 255, 255, 0))
    upside_down = red.point(lambda level: 255 - level)
    for data in (saved(red, "JPEG"), without_adobe_marker(saved(upside_down, "JPEG"))):
        assert np.abs(shown(data).pixels.astype(int) - (255, 0, 0)).max() <= 1
