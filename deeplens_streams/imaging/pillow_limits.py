"""Pillow's readers of headers, bounded: they run before anybody can look at a picture's size.

By itself Pillow keeps every piece of a header, decodes tags of any length, and prepares what comes
after the first frame: forty bytes then take gigabytes. The bounds are the same for all settings.
"""

import io
import math
from typing import IO, Any, BinaryIO, Final, cast

from PIL import (
    BmpImagePlugin,  # noqa: F401 -- it and that of WebP put themselves into `Image.OPEN`
    ExifTags,
    Image,
    ImageFile,
    PngImagePlugin,
    TiffImagePlugin,
    TiffTags,
    WebPImagePlugin,  # noqa: F401
)
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import APP, MARKER, SOF, JpegImageFile
from pillow_heif import register_heif_opener

from deeplens_streams.errors import UndecodableImage, UnsupportedFormat, UnsupportedKind
from deeplens_streams.imaging.clean_aperture import CroppedAvif, clean_aperture
from deeplens_streams.imaging.formats import (
    AVIF,
    AVIF_BRANDS,
    GIF,
    HEIF,
    HEIF_BRANDS,
    J2C,
    JP2,
    JPEG,
    PNG,
    TIFF,
    PictureFormat,
)
from deeplens_streams.imaging.isobmff import check_items
from deeplens_streams.imaging.item_coding import (
    AV1,
    HEVC,
    UNKNOWN_CODINGS,
    primary_coding,
    with_brand,
)
from deeplens_streams.imaging.jpeg2000 import Jpeg2000
from deeplens_streams.imaging.late_exif import late_exif
from deeplens_streams.imaging.lenient_png import LenientStream
from deeplens_streams.imaging.raw_files import RawFile, raw_file
from deeplens_streams.imaging.tiff import Tiff
from deeplens_streams.imaging.whole_png import WholePng

# Pillow's own limit is a constant of its makers', and half of it only warns: the limit of the
# settings is checked when the header is read, before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# Texts are unpacked when they are met, a thousandfold.
PngImagePlugin.MAX_TEXT_MEMORY = 16 * 1024 * 1024
register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

#: Pieces that a header is read in, at the most. A comment of megabytes fits; Pillow keeps up to a
#: hundred bytes for each.
_PIECES: Final = 65_536
#: Numbers of a tag, at the most.
_NUMBERS: Final = 16
#: Where more belong to a picture: its palette, and where its strips or tiles are.
_MORE_NUMBERS: Final[dict[int, int]] = {
    ExifTags.Base.ColorMap: 768,
    ExifTags.Base.StripOffsets: 65_536,
    ExifTags.Base.StripByteCounts: 65_536,
    ExifTags.Base.TileOffsets: 65_536,
    ExifTags.Base.TileByteCounts: 65_536,
}
#: Bytes of an EXIF block, at the most: in a JPEG, which has most of them, it is 64 KiB.
EXIF_BYTES: Final = 256 * 1024
#: Readers of ours, in place of those that Pillow has.
_OPENERS: Final = {TIFF: Tiff, PNG: WholePng, JP2: Jpeg2000, J2C: Jpeg2000}
#: Where Pillow has a picture's XMP.
_XMP: Final = ("xmp", "XML:com.adobe.xmp")
#: Types of tags that are kept as they are.
_PLAIN_TYPES: Final = {TiffTags.BYTE, TiffTags.ASCII, TiffTags.UNDEFINED}
#: The marker of a JPEG's segments of EXIF and XMP.
_APP1: Final = 0xFFE1
_KNOWN_TAGS: Final = TiffTags.TAGS_V2.keys() | ExifTags.TAGS.keys() | ExifTags.GPSTAGS.keys()


def open_header(file: BinaryIO, found: PictureFormat) -> ImageFile.ImageFile:
    """Open a picture of a known format; of its pixels nothing is read or prepared.

    Raises
    ------
    UndecodableImage
        Reading the header would take more than any picture's does.
    UnsupportedFormat
        It is a camera's raw file of which nothing but a stamp can be shown.
    UnsupportedKind
        It may well be whole, and no decoder here knows its kind.
    Exception
        Pillow cannot make anything of it.
    """
    file.seek(0)
    pieces = _Pieces(file)
    source = cast(BinaryIO, pieces)
    if found is GIF:
        image: ImageFile.ImageFile = _FirstFrame(source)
    elif found in {AVIF, HEIF}:
        image = _open_boxes(source, found)
    else:
        image = _open(source, found)
    pieces.left = math.inf  # what follows are pixels
    # No viewer turns a picture for its XMP, but Pillow would.
    for each in _XMP:
        image.info.pop(each, None)
    if found is PNG and "exif" not in image.info and (block := late_exif(file, EXIF_BYTES)):
        image.info["exif"] = block
    return image


def unsupported(found: PictureFormat, kind: str) -> str:
    """Return what is said of a kind that no decoder here knows."""
    return f"This kind of {found.name} is not supported ({kind}); convert it to a usual one."


def _open(source: BinaryIO, found: PictureFormat) -> ImageFile.ImageFile:
    """Open by the format's own class: `Image.open` keeps to itself what that has to say."""
    if found is TIFF and (raw := raw_file(source)):
        return _open_raw(source, raw)
    source.seek(0)
    opener: Any = _OPENERS.get(found) or Image.OPEN[found.name][0]
    image: ImageFile.ImageFile = opener(source, "")
    return image


def _open_boxes(source: BinaryIO, found: PictureFormat) -> ImageFile.ImageFile:
    """Open by the decoder of what is in it; where that is not told, by that of its brand."""
    source.seek(0)
    data = memoryview(source.read())
    check_items(data)
    coding = primary_coding(data)
    if coding in UNKNOWN_CODINGS:
        raise UnsupportedKind(unsupported(found, UNKNOWN_CODINGS[coding]))
    if coding == AV1 or (coding != HEVC and found is AVIF):
        image = CroppedAvif(_branded(source, with_brand(data, *AVIF_BRANDS)))
        image.crop_to(clean_aperture(data, image.size))
        return image
    return _open(_branded(source, with_brand(data, *HEIF_BRANDS)), HEIF)


def _branded(source: BinaryIO, changed: bytes | None) -> BinaryIO:
    if changed is not None:
        return io.BytesIO(changed)
    source.seek(0)
    return source


def _open_raw(source: BinaryIO, raw: RawFile) -> ImageFile.ImageFile:
    """Open the JPEG of full size that a camera's raw file carries."""
    if raw.jpeg is None:
        raise UnsupportedFormat(
            "This is a raw file of a camera without a JPEG of full size in it; "
            "export it as JPEG and upload that."
        )
    place, length = raw.jpeg
    source.seek(place)
    image = _open(io.BytesIO(source.read(length)), JPEG)
    told = Image.Exif()
    told[ExifTags.Base.Orientation] = raw.orientation
    for tag, text in ((ExifTags.Base.Make, raw.make), (ExifTags.Base.Model, raw.model)):
        if text:
            told[tag] = text
    image.info["exif"] = told.tobytes()
    return image


class _Pieces:
    """A file that is read in so many pieces and no more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left: float = _PIECES

    def read(self, size: int = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise UndecodableImage
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _FirstFrame(GifImageFile):
    """A GIF's first frame.

    The area that the next one would begin with is not made: it would be at open, of the size that
    the header tells, and before anybody can look at that.
    """

    @property
    def disposal_method(self) -> int:
        return 0

    @disposal_method.setter
    def disposal_method(self, _told: int) -> None: ...


class _Directory(TiffImagePlugin.ImageFileDirectory_v2):
    """A directory of TIFF or EXIF without the tags that nobody looks at or that are too long.

    Pillow decodes a tag when it is asked for, which takes thirty times its length for fractions.
    """

    def load(self, fp: IO[bytes]) -> None:
        super().load(fp)
        for tag, data in list(self._tagdata.items()):
            kind = self.tagtype[tag]
            numbers = 0 if kind in _PLAIN_TYPES else len(data) // self._load_dispatch[kind][0]
            if tag not in _KNOWN_TAGS or numbers > _MORE_NUMBERS.get(tag, _NUMBERS):
                del self[tag]


def _read_first_exif(self: JpegImageFile, marker: int) -> None:
    """Read a segment; EXIF is one, and each more would be copied behind all before it."""
    first = self.info.get("exif")
    APP(self, marker)
    if first is not None:
        self.info["exif"] = first


def _read_only_frame(self: JpegImageFile, marker: int) -> None:
    """Read the frame's header; each more would add to the list of its components."""
    if self.layer:
        raise UndecodableImage
    SOF(self, marker)


# By this name a PNG makes its reader of chunks.
PngImagePlugin.PngStream = LenientStream  # type: ignore[misc] # it is one
# Every reader of EXIF makes its directories by this name, those of JPEG, AVIF and HEIC at open.
TiffImagePlugin.ImageFileDirectory_v2 = _Directory  # type: ignore[misc] # it is one
MARKER[_APP1] = (*MARKER[_APP1][:2], _read_first_exif)
for _marker in [each for each, (*_, reader) in MARKER.items() if reader is SOF]:
    MARKER[_marker] = (*MARKER[_marker][:2], _read_only_frame)
