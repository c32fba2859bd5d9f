"""What decoding takes: a few kilobytes can say that they are a hundred megapixels.

Memory is what a bomb is after, and a pixel is not a pixel: one of a plain PNG takes 4 bytes while
it is decoded, one of a WebP 16, one of a float TIFF 29, one of a JPEG hardly any, because only its
reduced size is ever there. So pictures are weighed in plain pixels of 4 bytes. The bytes were
measured as the growth of a process that decodes 25 megapixels of each kind.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Condition, Lock
from typing import Final

from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin

from deeplens_streams.errors import TooManyPixels, UndecodableImage
from deeplens_streams.host import malloc
from deeplens_streams.imaging.formats import AVIF, HEIF, WEBP, PictureFormat
from deeplens_streams.imaging.jpeg2000 import Jpeg2000

_PLAIN: Final = 4
#: Bytes a pixel of a JPEG, and of one whose coefficients have to be complete before a pixel is.
_JPEG: Final = 1
_SCANS: Final = 8
_SCAN: Final = b"\xff\xda"
#: Bytes a pixel that a decoder keeps for itself.
_DECODER: Final = {WEBP: 12, AVIF: 6, HEIF: 4}
#: Bytes a pixel of a decoded picture and of its RGB, by Pillow's mode; and of any other mode.
_MODES: Final = {"RGB": 4, "1": 2, "L": 1, "P": 5, "I;16": 7, "RGBA": 8, "I": 29, "F": 29}
_OTHER: Final = 12
#: Bytes a pixel of a copy of it: with its transparency, or turned.
_COPY: Final = 4
#: Plain pixels after which freed memory is given back: glibc keeps what a thread freed for that
#: thread, so three of them would hold three large pictures long after.
_LARGE: Final = 4_000_000
_TILE: Final = (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)


def pixel_cost(image: Image.Image, found: PictureFormat, *, turned: bool) -> int:
    """Return how many plain pixels take as much memory as decoding `image`, which is open."""
    return _pixels(image) * max(_PLAIN, _bytes_a_pixel(image, found, turned=turned)) // _PLAIN


def check_pixels(
    image: Image.Image, found: PictureFormat, max_pixels: int, *, turned: bool
) -> None:
    """Raise `TooManyPixels` if decoding takes more memory than `max_pixels` plain ones."""
    pixels, weight = _pixels(image), pixel_cost(image, found, turned=turned)
    if weight <= max_pixels:
        return
    raise TooManyPixels(
        f"The picture has {image.width:,} x {image.height:,} pixels, which is "
        f"{pixels / 1e6:,.1f} megapixels; of this kind of {found.name} this system takes up to "
        f"{max_pixels * pixels / weight / 1e6:,.1f} megapixels."
    )


def _pixels(image: Image.Image) -> int:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        # What is cropped away is decoded all the same.
        width, height = getattr(image, "decoded_size", image.size)
        return int(width * height)
    # A tile is decoded whole, however little of it is in the picture.
    wide, high = (image.tag_v2.get(tag, 0) for tag in _TILE)
    if not (isinstance(wide, int) and isinstance(high, int)):
        raise UndecodableImage
    return max(image.width * image.height, wide * high)


def _bytes_a_pixel(image: Image.Image, found: PictureFormat, *, turned: bool) -> int:
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return _JPEG if _has_one_scan(image) else _SCANS
    own = image.decoder_bytes if isinstance(image, Jpeg2000) else _DECODER.get(found, 0)
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # which Pillow turns as it decodes
        turned = image.tag_v2.get(ExifTags.Base.Orientation, 1) != 1
    copies = ("transparency" in image.info) + turned
    return own + _MODES.get(mode, _OTHER) + copies * _COPY


def hides_want_of_memory(image: Image.Image, found: PictureFormat) -> bool:
    """Tell whether its decoder says the same when memory is short and when it is damaged."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return not _has_one_scan(image)
    return found in _DECODER or isinstance(image, (TiffImagePlugin.TiffImageFile, Jpeg2000))


def _has_one_scan(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Tell whether all colours come together, as opposed to one after another or bit by bit."""
    if "progressive" in image.info or image.fp is None:
        return False
    # Pillow has just read the first scan's header, which says how many colours it has.
    size = 6 + 2 * image.layers
    end = image.fp.tell()
    image.fp.seek(max(0, end - size - len(_SCAN)))
    header = image.fp.read(size + len(_SCAN))
    image.fp.seek(end)
    expected = _SCAN + size.to_bytes(2, "big") + bytes([image.layers])
    return header.startswith(expected) and header.rfind(_SCAN) == 0


class DecodingBudget:
    """Plain pixels that all threads of a process may decode at once."""

    def __init__(self, pixels: int) -> None:
        self._free = self._all = pixels
        self._changed = Condition()
        # One asker waits at a time: others, smaller, would take the room from under it.
        self._turn = Lock()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait for room and hold it; more than there is takes all."""
        wanted = min(pixels, self._all)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            if wanted >= _LARGE:
                malloc.trim()
            with self._changed:
                self._free += wanted
                self._changed.notify()

    def hold_all(self) -> AbstractContextManager[None]:
        """Wait until nothing is decoded, and keep it so."""
        return self.hold(self._all)
