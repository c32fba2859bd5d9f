"""Colours told by numbers: what the standards make of them, in sRGB, and which of them counts."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging import curves
from deeplens_streams.imaging.colour import _as_it_is, to_srgb_of
from deeplens_streams.imaging.decode import decode
from deeplens_streams.imaging.header import inspect, open_picture
from deeplens_streams.imaging.heif_space import nclx_space
from deeplens_streams.imaging.isobmff import primary_properties
from deeplens_streams.imaging.primaries import BT709, BT2020, Primaries, between
from tests.support.odd_headers import chunk
from tests.support.pictures import LIMIT, decoded
from tests.support.profiles import P3, SRGB, grey_profile, rgb_profile
from tests.support.told_colours import (
    TO_BT2020,
    TO_P3,
    WHITE,
    avif,
    chrm,
    cicp,
    clli,
    gama,
    heic,
    hlg,
    levels,
    light,
    mdcv,
    png,
    pq,
    srgb_level,
)

#: Levels of 255: a picture is rounded to 8 bits before it is converted and after; where it is
#: compressed as well; and in PQ, of which one sample is up to three levels, the same again.
_ROUNDED, _LOSSY, _COARSE, _COARSE_AND_LOSSY = 3, 7, 5, 12
COLOURS = np.array([[(180, 90, 60), (60, 140, 90)], [(90, 100, 170), (128, 128, 128)]], np.uint8)
UNSPECIFIED = 2
SRGB_CHUNK = chunk(b"sRGB", b"\0")
WIDE = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)

Numbered = Callable[[Image.Image, int, int], bytes]


def numbered_png(image: Image.Image, primaries: int, curve: int) -> bytes:
    return png(image, cicp(primaries, curve))


FORMATS = pytest.mark.parametrize(
    ("made", "tolerance"),
    [(numbered_png, _ROUNDED), (avif, _LOSSY), (heic, _LOSSY)],
    ids=["PNG", "AVIF", "HEIC"],
)


def blocks(samples: np.ndarray) -> Image.Image:
    """Return four quarters, one colour each."""
    return Image.fromarray(samples.repeat(128, axis=0).repeat(128, axis=1))


def corners(data: bytes) -> np.ndarray:
    """Return (2, 2, 3): what the model sees of each quarter."""
    return decoded(data)[[[40], [180]], [40, 180]].astype(int)


def off(data: bytes, expected: np.ndarray | np.floating[Any] = COLOURS) -> int:
    """Return the levels by which the worst quarter is off."""
    return int(np.abs(corners(data) - expected.astype(int)).max())


def srgb_in(matrix: np.ndarray) -> np.ndarray:
    return levels(_srgb_curve(light(COLOURS) @ matrix.T))


def _srgb_curve(linear: np.ndarray) -> np.ndarray:
    return np.vectorize(srgb_level)(linear) / 255


def grey(level: int, size: int = 256) -> Image.Image:
    return Image.new("RGB", (size, size), (level, level, level))


@FORMATS
@pytest.mark.parametrize(("primaries", "matrix"), [(9, TO_BT2020), (12, TO_P3)])
def test_primaries(made: Numbered, tolerance: int, primaries: int, matrix: np.ndarray) -> None:
    assert off(made(blocks(srgb_in(matrix)), primaries, 13)) <= tolerance


@FORMATS
@pytest.mark.parametrize(
    ("curve", "coded"),
    [
        (4, lambda linear: linear ** (1 / 2.2)),
        (5, lambda linear: linear ** (1 / 2.8)),
        (7, lambda linear: 1.1115 * linear**0.45 - 0.1115),
        (8, lambda linear: linear),
        (13, _srgb_curve),
        (17, lambda linear: (48 * linear / 52.37) ** (1 / 2.6)),
    ],
)
def test_curves(
    made: Numbered, tolerance: int, curve: int, coded: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert off(made(blocks(levels(coded(light(COLOURS)))), 1, curve)) <= tolerance


@pytest.mark.parametrize("curve", [1, 6, 11, 14, 15])
def test_what_a_camera_coded_for_bt709_is_shown_as_bt1886_says(curve: int) -> None:
    assert off(numbered_png(blocks(levels(light(COLOURS) ** (1 / 2.4))), 1, curve)) <= _ROUNDED


@pytest.mark.parametrize("curve", [1, 6, 14, 15])
@pytest.mark.parametrize("made", [avif, heic])
def test_in_avif_and_heic_cameras_curves_are_that_of_srgb(made: Numbered, curve: int) -> None:
    assert off(made(blocks(COLOURS), 1, curve)) <= _LOSSY
    assert off(made(blocks(srgb_in(TO_P3)), 12, curve)) <= _LOSSY


@FORMATS
def test_pq_of_no_more_than_white_is_as_it_was(made: Numbered, tolerance: int) -> None:
    data = made(blocks(levels(pq(WHITE * light(COLOURS) @ TO_BT2020.T))), 9, 16)
    # Half the light, as it would be if the picture went to 1,000 nits.
    dim = np.round(np.vectorize(srgb_level)(light(COLOURS) / 2))
    assert off(data, dim) <= (_COARSE if tolerance == _ROUNDED else _COARSE_AND_LOSSY)


def test_what_is_no_brighter_than_white_is_not_dimmed() -> None:
    picture = blocks(levels(pq(WHITE * light(COLOURS) @ TO_BT2020.T)))
    for peak in (clli(WHITE), clli(100), mdcv(WHITE), clli(0) + mdcv(WHITE)):
        assert off(png(picture, cicp(9, 16), peak)) <= _COARSE
    assert off(avif(picture, 9, 16, peak=WHITE)) <= _COARSE_AND_LOSSY
    for peak in (b"", clli(0), clli(1000) + mdcv(WHITE), mdcv(1000), clli(4000)):
        assert off(png(picture, cicp(9, 16), peak)) > 30


@pytest.mark.parametrize(
    ("nits", "expected"),
    [
        (0, 0.0),
        (50.75, 0.125),
        (203, 0.5),
        (468.2, 0.7875),  # the middle of the shoulder
        (1000, 1.0),
        (10_000, 1.0),
    ],
)
def test_how_bright_light_becomes(nits: float, expected: float) -> None:
    sample = int(levels(pq(np.array(nits, float))))
    found = decoded(png(grey(sample), cicp(9, 16)))[100, 100]
    assert len(set(found.tolist())) == 1
    # One sample of PQ is up to three levels.
    assert found[0] == pytest.approx(srgb_level(expected), abs=2.5)


def test_the_brighter_it_was_the_brighter_it_is() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(256, axis=0))
    for curve in (16, 18):
        for peak in (100, 204, 400, 1000, 4000, 10_000):
            with Image.open(io.BytesIO(png(ramp, cicp(9, curve), clli(peak)))) as image:
                image.info["cICP"], image.info["cLLI"] = bytes((9, curve, 0, 1)), clli(peak)[8:16]
                found = np.asarray(to_srgb_of(image, b"")(image))[0]
            assert (np.diff(found.astype(int), axis=0) >= 0).all()
            assert (found == found[:, :1]).all()
            assert found[0, 0] == 0
            assert curve == 18 or found[255, 0] == 255


@FORMATS
def test_the_thumbnail_is_of_the_same_colours(made: Numbered, tolerance: int) -> None:
    data = made(blocks(levels(pq(WHITE * light(COLOURS) @ TO_BT2020.T))), 9, 16)
    found = decode(data, UNTRAINED, max_pixels=LIMIT, thumbnail_px=256)
    with Image.open(io.BytesIO(found.thumbnail or b"")) as thumbnail:
        small = np.asarray(thumbnail)[[[40], [180]], [40, 180]].astype(int)
    assert np.abs(small - found.pixels[[[40], [180]], [40, 180]]).max() <= tolerance


def test_a_png_that_says_something_else_as_well_is_not_called_srgb() -> None:
    for chunks, name in (((), None), ((cicp(9, 16),), None), ((cicp(2, 2),), "sRGB")):
        data = png(grey(9, 16), *chunks, *([SRGB_CHUNK] if chunks else []))
        assert inspect(io.BytesIO(data), max_pixels=LIMIT).color_profile == name


def test_white_of_hlg_is_white_paper() -> None:
    """ITU-R BT.2408: three quarters of the signal are 203 nits on a screen of 1,000."""
    for made in (numbered_png, avif, heic):
        found = decoded(made(grey(191), 9, 18))[100, 100].astype(int)
        assert np.abs(found - srgb_level(0.5)).max() <= 2


def test_hlg_colours_are_those_of_a_screen_of_1000_nits() -> None:
    wide = light(COLOURS) @ TO_BT2020.T
    luminance = (wide @ (0.2627, 0.6780, 0.0593))[..., None]
    # Back from what is to be shown through the screen's gamma: BT.2100 with a system gamma of 1.2.
    scene = wide * WHITE / 1000 * (luminance * WHITE / 1000) ** (1 / 1.2 - 1)
    dim = np.round(np.vectorize(srgb_level)(light(COLOURS) / 2))
    assert off(numbered_png(blocks(levels(hlg(scene))), 9, 18), dim) <= _ROUNDED


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "I;16"])
def test_numbers_count_for_every_kind_of_png(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((256, 256), 55 * 257, np.uint16))
    else:
        image = Image.new("L", (256, 256), 55).convert(mode)
    found = decoded(png(image, cicp(1, 8)))
    assert np.abs(found.astype(int) - srgb_level(55 / 255)).max() <= 1


def looks_like(data: bytes) -> str:
    """Tell by what became of a grey of 55 which of what was told counts."""
    found = int(decoded(data)[100, 40, 0])
    grey = 55 / 255
    makes = {"sRGB": 55.0, "linear": srgb_level(grey), "gamma 1.8": srgb_level(grey**1.8)}
    return next((name for name, level in makes.items() if abs(found - level) <= 1), str(found))


def icc(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], "sRGB"),
        ([gama(1)], "linear"),
        ([gama(1 / 1.8)], "gamma 1.8"),
        ([gama(1), SRGB_CHUNK], "sRGB"),
        ([gama(1), icc(grey_profile(1.8))], "gamma 1.8"),
        ([SRGB_CHUNK, icc(grey_profile(1.8))], "gamma 1.8"),
        ([icc(grey_profile(1.8)), cicp(1, 8)], "linear"),
        ([cicp(1, 13), gama(1)], "sRGB"),
        ([cicp(1, 8), SRGB_CHUNK], "linear"),
        # What cannot be used counts as if it were not there.
        ([cicp(UNSPECIFIED, 8), SRGB_CHUNK], "sRGB"),
        ([cicp(1, UNSPECIFIED), icc(grey_profile(1.8))], "gamma 1.8"),
        ([cicp(1, 8, matrix=9)], "sRGB"),
        ([cicp(1, 8, full=0)], "sRGB"),
        ([chunk(b"cICP", b"\1\x08\0")], "sRGB"),
        ([cicp(1, 8), cicp(1, 13)], "linear"),
        ([icc(grey_profile(1.8)[:60]), gama(1)], "linear"),
        ([icc(b""), gama(1), SRGB_CHUNK], "sRGB"),
        ([gama(0)], "sRGB"),
        ([gama(1), chrm(*[0] * 8)], "sRGB"),
        ([gama(1), chrm(0.3127, 0, *WIDE[2:])], "sRGB"),
        ([gama(1), chrm(*WIDE[:2], 2, *WIDE[3:])], "sRGB"),
    ],
)
def test_which_of_a_pngs_numbers_counts(chunks: list[bytes], expected: str) -> None:
    assert looks_like(png(Image.new("L", (256, 256), 55), *chunks)) == expected


def test_a_pngs_primaries_count_beside_a_gamma_alone() -> None:
    wide = levels((light(COLOURS) @ TO_P3.T) ** (1 / 2.2))
    assert off(png(blocks(wide), chrm(*WIDE), gama(1 / 2.2))) <= _ROUNDED
    assert off(png(blocks(COLOURS), chrm(*WIDE))) == 0
    # With a gamma alone, what is near to sRGB's is taken for it.
    assert off(png(blocks(COLOURS), gama(0.45))) == 0
    assert off(png(blocks(levels(light(COLOURS) ** 0.4)), gama(0.4))) <= _ROUNDED


def test_a_profile_counts_before_the_numbers_of_an_avif() -> None:
    picture = blocks(srgb_in(TO_P3))
    assert off(avif(picture, 9, 16, profile=rgb_profile(P3))) <= _LOSSY
    assert off(avif(blocks(COLOURS), 9, 16, profile=rgb_profile(SRGB))) <= _LOSSY
    assert off(avif(picture, 12, 13, profile=rgb_profile(P3)[:100])) <= _LOSSY


@pytest.mark.parametrize("made", [avif, heic])
def test_numbers_that_name_nothing_are_those_of_srgb(made: Numbered) -> None:
    for primaries, curve in ((UNSPECIFIED, UNSPECIFIED), (1, 10), (1, 12)):
        assert off(made(blocks(COLOURS), primaries, curve)) <= _LOSSY
    assert off(made(blocks(srgb_in(TO_P3)), 12, UNSPECIFIED)) <= _LOSSY


@pytest.mark.parametrize(
    "data",
    [
        png(grey(9, 16)),
        png(grey(9, 16), SRGB_CHUNK),
        png(grey(9, 16), cicp(1, 13)),
        png(grey(9, 16), gama(1 / 2.2)),
        png(grey(9, 16), icc(rgb_profile(SRGB))),
        avif(grey(9, 16), 1, 13),
        avif(grey(9, 16), UNSPECIFIED, UNSPECIFIED),
        avif(grey(9, 16), 1, 1),
        heic(grey(9, 64), 1, 13),
    ],
)
def test_what_is_srgb_is_not_touched(data: bytes) -> None:
    with open_picture(io.BytesIO(data), max_pixels=LIMIT) as (image, _):
        assert to_srgb_of(image, data) is _as_it_is


def test_numbers_that_are_damaged_are_none() -> None:
    whole = avif(grey(9, 16), 12, 8)
    told = nclx_space(memoryview(whole))
    assert told is not None
    assert not told.is_srgb
    kinds = [kind for kind, _ in primary_properties(memoryview(whole))]
    assert b"colr" in kinds
    assert nclx_space(memoryview(whole.replace(b"colrnclx", b"colrxxxx"))) is None
    assert nclx_space(memoryview(b"")) is None
    for end in range(0, len(whole), 7):
        cut = nclx_space(memoryview(whole[:end]))
        assert cut in (None, told)


def test_the_properties_of_another_item_are_none() -> None:
    whole = avif(grey(9, 16), 12, 8)
    at = whole.index(b"pitm") + 8
    number = struct.unpack_from(">H", whole, at)[0]
    other = whole[:at] + struct.pack(">H", number + 1) + whole[at + 2 :]
    assert nclx_space(memoryview(other)) is None


def test_matrices_are_those_that_the_standards_print() -> None:
    assert np.abs(between(BT709, BT2020) - TO_BT2020).max() < 1e-4
    assert np.abs(between(BT709, Primaries(*P3, (0.3127, 0.3290))) - TO_P3).max() < 2e-4
    # White stays white where it is another one.
    film = Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), (0.310, 0.316))
    assert between(film, BT709).sum(axis=1) == pytest.approx([1, 1, 1])


def test_curves_begin_at_nothing_and_end_at_white() -> None:
    ends = np.array([0.0, 1.0])
    for number, curve in curves.NUMBERED.items():
        found = curve(ends)
        assert found[0] == pytest.approx(0, abs=1e-9)
        assert found[1] == pytest.approx(
            {16: 10_000 / WHITE, 17: 52.37 / 48}.get(number, 1), abs=1e-6
        )
