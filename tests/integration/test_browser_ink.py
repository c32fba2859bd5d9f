"""Ink on a canvas of a browser's, which differs from ours on purpose."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.canvas import blocks, colours, drawn, ours
from tests.support.pictures import saved
from tests.support.profiles import in_ink, press_profile

pytestmark = pytest.mark.browser

COLOURS = colours(0, 70, 150, 255)


def jpeg(image: Image.Image, **options: object) -> bytes:
    return saved(image, "JPEG", quality=100, subsampling=0, **options)


async def test_ink_is_nearer_to_what_it_was_made_of_than_in_a_browser(tmp_path: Path) -> None:
    """Chromium compensates no black point: a press's black is a grey of about 50 there."""
    ink = in_ink(blocks(COLOURS), press_profile())
    pictures = {"press": jpeg(ink, icc_profile=press_profile()), "any": jpeg(ink)}
    theirs = await drawn(tmp_path, pictures)
    press = ours(pictures["press"])
    assert np.abs(press - COLOURS).mean() < 0.9 * np.abs(theirs["press"] - COLOURS).mean()
    assert press[0, 0].max() < 16
    assert theirs["press"][0, 0].min() > 40
    assert np.abs(ours(pictures["any"]) - theirs["any"]).max() <= 2
