"""One decoding of a picture: what the model looks at, and the thumbnail."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from deeplens_streams.errors import DeepLensError, UndecodableImage
from deeplens_streams.host.cgroup_memory import MAPPED_BYTES, memory_left
from deeplens_streams.imaging.as_shown import as_shown
from deeplens_streams.imaging.colour import ToSrgb, to_srgb_of
from deeplens_streams.imaging.cut_jpeg import load as load_jpeg
from deeplens_streams.imaging.decode_memory import (
    DecodingBudget,
    hides_want_of_memory,
    pixel_cost,
)
from deeplens_streams.imaging.eight_bits import to_8_bits
from deeplens_streams.imaging.header import TURNED_SIDEWAYS, UPRIGHT, open_picture, orientation
from deeplens_streams.imaging.jpeg2000 import Jpeg2000

_THUMBNAIL_QUALITY = 80
#: A thumbnail of no longer side keeps the colour of each pixel: of icons and drawings, which such
#: small pictures are, half the resolution would smear what there is.
_EVERY_COLOUR_PX = 128
#: A JPEG, or a JPEG 2000, is decoded at reduced scale if that leaves this many times the size that
#: is needed. libjpeg's reduction is not quite torchvision's: vectors of a trained network, of
#: photographs, had cosines down to 0.9991 to the exact way at 3, to 0.9984 at 2 and 0.9964 at 1.5,
#: and 12 megapixels took 52, 43 and 43 ms of CPU; exactly 99. Of drawings, whose flat areas make
#: it sensitive to a level, it was down to 0.991 (docs/performance.md).
DRAFT_MARGIN: float = 3
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class InputSizes(Protocol):
    """What decoding has to know of a model."""

    @property
    def resize_size(self) -> int:
        """Pixels of the shorter side before the crop."""

    @property
    def input_size(self) -> int:
        """Pixels of a side after the crop."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture ready for the model.

    Attributes
    ----------
    pixels : (input_size, input_size, 3) uint8, RGB; not yet normalised.
    thumbnail : a JPEG, or None if none was asked for.
    width, height : of the whole picture in pixels, as shown.
    format : by content.
    """

    pixels: npt.NDArray[np.uint8]
    thumbnail: bytes | None
    width: int
    height: int
    format: str


def decode(
    data: bytes,
    model: InputSizes,
    *,
    max_pixels: int,
    thumbnail_px: int | None = None,
    budget: DecodingBudget | None = None,
    working: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Decoded:
    """Decode once, upright, and cut out what `model` sees; wait for the `budget`, if there is one.

    With a budget, what may have failed for want of memory is tried again with nothing beside it.

    Parameters
    ----------
    working : entered for as long as the picture is worked on, and not while it waits.

    Raises
    ------
    UnsupportedFormat, TooManyPixels, UndecodableImage
        As for `inspect`; the last one also when the pixels are damaged or cut short.
    MemoryError
        There was not enough memory now, which is no fault of the picture.
    """
    if budget is None:
        with working():
            return _decode(data, model, max_pixels, thumbnail_px)
    weight, may_be_memory = max_pixels, False
    try:
        with working():
            weight, may_be_memory = _weight(data, max_pixels)
        with budget.hold(weight), working():
            return _leaving_nothing(data, model, max_pixels, thumbnail_px)
    except MemoryError:
        pass
    except UndecodableImage:
        left = memory_left()
        if not may_be_memory or left is None or left >= max_pixels * MAPPED_BYTES:
            raise
    # Another picture may have taken the memory: once more without any beside it.
    with budget.hold_all(), working():
        left = memory_left()
        try:
            return _leaving_nothing(data, model, max_pixels, thumbnail_px)
        except UndecodableImage as error:
            if left is None or left >= weight * MAPPED_BYTES:
                raise
            raise MemoryError(error.message) from None


def _leaving_nothing(
    data: bytes, model: InputSizes, max_pixels: int, thumbnail_px: int | None
) -> Decoded:
    """Decode in a call of its own: its pictures are gone when the room is another's."""
    try:
        return _decode(data, model, max_pixels, thumbnail_px)
    except (DeepLensError, MemoryError) as error:
        # It would keep the frames that it came through, and they the picture.
        failure = error.with_traceback(None)
        failure.__cause__ = failure.__context__ = None
    raise failure


def _weight(data: bytes, max_pixels: int) -> tuple[int, bool]:
    """Return its plain pixels, and whether its decoder calls it damaged when memory is short."""
    with open_picture(io.BytesIO(data), max_pixels=max_pixels) as (image, found):
        weight = pixel_cost(image, found, turned=orientation(image) != UPRIGHT)
        return weight, hides_want_of_memory(image, found)


def _decode(data: bytes, model: InputSizes, max_pixels: int, thumbnail_px: int | None) -> Decoded:
    longer = thumbnail_px
    with _upright(data, model.resize_size, longer, max_pixels) as (upright, whole, name, to_srgb):
        return Decoded(
            pixels=np.asarray(to_srgb(model_input(upright, model, whole))),
            thumbnail=_thumbnail(upright, longer, to_srgb) if longer else None,
            width=whole[0],
            height=whole[1],
            format=name,
        )


@contextmanager
def _upright(
    data: bytes, shorter: int, longer: int | None, max_pixels: int
) -> Iterator[tuple[Image.Image, tuple[int, int], str, ToSrgb]]:
    """Decode and turn; yield the picture, its whole size as shown, its format and way to sRGB.

    It may be reduced, but for its `shorter` and its `longer` side there are pixels enough.
    """
    with open_picture(io.BytesIO(data), max_pixels=max_pixels) as (image, found):
        whole, turned, to_srgb = image.size, orientation(image), to_srgb_of(image, data)
        enough = max(shorter, math.ceil((longer or 0) * min(whole) / max(whole)))
        enough = math.ceil(enough * DRAFT_MARGIN)
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            _draft(image, enough)
            _as_stored(image)
            load_jpeg(image)
        elif isinstance(image, Jpeg2000):
            image.halve(max(0, (min(whole) // enough).bit_length() - 1))
            image.load()
        else:
            image.load()
            whole = image.size  # some headers tell another size than the pixels have
        upright = to_8_bits(as_shown(image, data))
        if turned in _TRANSPOSE:
            upright = upright.transpose(_TRANSPOSE[turned])
        if turned in TURNED_SIDEWAYS:
            whole = whole[1], whole[0]
        yield upright, whole, found.name, to_srgb


def model_input(upright: Image.Image, model: InputSizes, whole: tuple[int, int]) -> Image.Image:
    """Resize the shorter side to ``resize_size`` and cut the centre, in one pass.

    Only the pixels that the crop keeps are computed. `whole` is the size of the picture before
    any reduced decoding: sizes and offsets are rounded as torchvision's transforms round them.
    """
    width, height = whole
    side, crop = model.resize_size, model.input_size
    if width <= height:
        wide, high = side, int(side * height / width)
    else:
        wide, high = int(side * width / height), side
    left, top = round((wide - crop) / 2.0), round((high - crop) / 2.0)
    across, down = upright.width / wide, upright.height / high
    box = (left * across, top * down, (left + crop) * across, (top + crop) * down)
    return upright.resize((crop, crop), Image.Resampling.BILINEAR, box=box)


def _draft(image: JpegImagePlugin.JpegImageFile, enough: int) -> None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 if that leaves `enough` of the shorter side."""
    share = enough / min(image.size)
    if share < 1:
        image.draft(None, (math.ceil(image.width * share), math.ceil(image.height * share)))


def _as_stored(image: JpegImagePlugin.JpegImageFile) -> None:
    """Ink is stored upside down by those who write Adobe's marker, and by nobody else."""
    if image.mode == "CMYK" and "adobe" not in image.info:
        image.tile = [each._replace(args=("CMYK", "")) for each in image.tile]


def _thumbnail(upright: Image.Image, longer: int, to_srgb: ToSrgb) -> bytes:
    scale = min(1.0, longer / max(upright.size))
    size = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
    small = upright.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
    buffer = io.BytesIO()
    coarse = "4:4:4" if max(size) <= _EVERY_COLOUR_PX else "4:2:0"
    to_srgb(small).save(buffer, "JPEG", quality=_THUMBNAIL_QUALITY, subsampling=coarse)
    return buffer.getvalue()
