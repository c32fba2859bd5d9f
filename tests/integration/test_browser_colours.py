"""Colours as a browser draws them on a canvas in sRGB: a second opinion on ours."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.canvas import blocks, colours, drawn, ours
from tests.support.odd_headers import chunk
from tests.support.pictures import saved
from tests.support.profiles import (
    ADOBE,
    D50,
    D65,
    P3,
    PROPHOTO,
    grey_profile,
    rgb_profile,
)
from tests.support.told_colours import avif, chrm, cicp, clli, gama, mdcv, png

pytestmark = pytest.mark.browser

#: Levels of 255, at the most of any channel of 64 colours. Both round to 8 bits.
TOLERANCE = 2
#: A profile goes through two libraries, littleCMS and skcms, and tables of theirs.
OF_PROFILES = 3
PICTURE = blocks(colours(0, 70, 150, 255))
GREY = PICTURE.convert("L")


def icc(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


def jpeg(image: Image.Image, **options: object) -> bytes:
    return saved(image, "JPEG", quality=100, subsampling=0, **options)


WIDE = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE_PROFILE = rgb_profile(ADOBE, D65, 2.2)


def by_numbers() -> dict[str, bytes]:
    """Return pictures by what they say; each is off by `TOLERANCE` at the most."""
    pngs = {f"PNG, cICP {primaries}/{curve}": cicp(primaries, curve) for primaries, curve in CICP}
    chunks = {
        **pngs,
        "PNG, cICP before a profile": icc(ADOBE_PROFILE) + cicp(12, 13),
        "PNG, cICP of no meaning": cicp(2, 16) + gama(1),
        "PNG, PQ up to 400": cicp(9, 16) + clli(400),
        "PNG, PQ on a screen of 400": cicp(9, 16) + mdcv(400),
        "PNG, HLG up to 500 on a screen of 4,000": cicp(9, 18) + clli(500) + mdcv(4000),
        "PNG, sRGB before gAMA": chunk(b"sRGB", b"\0") + gama(1),
        "PNG, gAMA": gama(1 / 1.8),
        "PNG, gAMA near sRGB's": gama(0.45),
        "PNG, cHRM": chrm(*WIDE),
        "PNG, gAMA and cHRM": gama(1 / 2.2) + chrm(*WIDE),
        "PNG, gAMA and cHRM of nothing": gama(1) + chrm(*[0] * 8),
        "PNG, gAMA behind a damaged profile": icc(ADOBE_PROFILE[:60]) + gama(1),
    }
    avifs = {f"AVIF, nclx {primaries}/{curve}": (primaries, curve) for primaries, curve in NCLX}
    return {
        **{name: png(PICTURE, told) for name, told in chunks.items()},
        "PNG, grey in PQ": png(GREY, cicp(9, 16)),
        **{name: avif(PICTURE, *numbers) for name, numbers in avifs.items()},
        "AVIF, PQ up to 400": avif(PICTURE, 9, 16, peak=400),
        "AVIF, PQ in grey": avif(GREY, 9, 16),
    }


CICP = ((1, 1), (1, 4), (1, 8), (4, 13), (9, 13), (9, 14), (12, 13), (9, 16), (12, 16), (9, 18))
NCLX = ((1, 1), (2, 2), (1, 8), (9, 1), (12, 13), (12, 2), (9, 16), (2, 16), (9, 18))


def by_profiles() -> dict[str, bytes]:
    wide, large = rgb_profile(P3), rgb_profile(PROPHOTO, D50, 1.8)
    return {
        "PNG, Display P3": png(PICTURE, icc(wide)),
        "PNG, ProPhoto": png(PICTURE, icc(large)),
        "PNG, grey": png(GREY, icc(grey_profile(1.8))),
        "JPEG, Adobe RGB": jpeg(PICTURE, icc_profile=ADOBE_PROFILE),
        "WebP, Adobe RGB": saved(PICTURE, "WEBP", lossless=True, icc_profile=ADOBE_PROFILE),
        "AVIF, a profile before nclx": avif(PICTURE, 9, 16, profile=wide),
    }


#: In PQ these are 0.5, 46, 316 and 2,770 nits.
BRIGHT = blocks(colours(30, 110, 160, 220))
#: What is off by more on purpose, and by how much at the most.
ACCEPTED = {
    # The shoulder is drawn as the standard has it. Chromium draws it through eight points, and
    # far beyond 1,000 nits its curve is off, and not steadily rising.
    "PNG, PQ up to 10,000": (png(BRIGHT, cicp(9, 16) + clli(10_000)), 12),
    "PNG, HLG up to 4,000": (png(BRIGHT, cicp(9, 18) + clli(4000)), 4),
    # Light that neither dims, of colours that sRGB does not have.
    "PNG, PQ up to white paper": (png(BRIGHT, cicp(9, 16) + clli(203)), 5),
}


async def test_colours_are_those_of_a_browser(tmp_path: Path) -> None:
    numbers, profiles = by_numbers(), by_profiles()
    accepted = {name: data for name, (data, _) in ACCEPTED.items()}
    pictures = numbers | profiles | accepted
    theirs = await drawn(tmp_path, pictures)
    off = {name: int(np.abs(ours(data) - theirs[name]).max()) for name, data in pictures.items()}
    allowed = (
        dict.fromkeys(numbers, TOLERANCE)
        | dict.fromkeys(profiles, OF_PROFILES)
        | {name: most for name, (_, most) in ACCEPTED.items()}
    )
    assert not {name: levels for name, levels in off.items() if levels > allowed[name]}
    # An allowance that nothing needs is not to stay.
    assert not {name: off[name] for name in accepted if off[name] <= TOLERANCE}
