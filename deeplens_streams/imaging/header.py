"""Opening pictures of strangers: what they are by content, and what their headers say."""

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import ExifTags, Image, ImageCms, ImageFile

from deeplens_streams.errors import TooLarge, UndecodableImage, UnsupportedFormat, UnsupportedKind
from deeplens_streams.imaging.decode_memory import check_pixels
from deeplens_streams.imaging.formats import (
    AVIF,
    HEAD_BYTES,
    HEIF,
    PNG,
    TIFF,
    PictureFormat,
    identify,
)
from deeplens_streams.imaging.frame_count import check_frames
from deeplens_streams.imaging.notes import notes
from deeplens_streams.imaging.pillow_limits import EXIF_BYTES, open_header, unsupported
from deeplens_streams.imaging.png_space import cicp_space
from deeplens_streams.imaging.preprocessing import PREPROCESSING
from deeplens_streams.imaging.unknown_kinds import unknown_kind

if TYPE_CHECKING:
    from models.events import PictureFacts

#: Where Pillow has it: as it is, or as hexadecimal text.
_EXIF_BLOCKS = ("exif", "Raw profile type exif")
_EXIF_TAGS = 64
_EXIF_TEXT = 200
_EXIF_NUMBERS = 16
_PROFILE_NAME = 100
#: By the decoder that opened it: of AVIF and HEIC the brand need not say what is in them.
_BOXED: dict[str | None, PictureFormat] = {each.name: each for each in (AVIF, HEIF)}
#: The EXIF orientation of a picture that is not to be turned.
UPRIGHT = 1
#: EXIF orientations that swap width and height.
TURNED_SIDEWAYS = frozenset({5, 6, 7, 8})
#: Sub-directories and what nobody may read from a picture that was passed on.
_UNTOLD = {
    ExifTags.Base.GPSInfo,
    ExifTags.Base.ExifOffset,
    ExifTags.Base.MakerNote,
    ExifTags.Base.UserComment,
}


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a file says of its picture before a pixel is decoded.

    Attributes
    ----------
    format : JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF, HEIF or JPEG2000.
    content_type, extension : by content; the extension with its dot.
    width, height : pixels, as shown (after EXIF orientation).
    color_profile : the ICC profile's name, or None if there is none.
    exif : named tags of JSON types, bounded in number and length; places, under ``GPSInfo``, only
        where they were asked for.
    notes : what is missing of a picture that can be shown all the same; mostly nothing.
    """

    format: str
    content_type: str
    extension: str
    width: int
    height: int
    color_profile: str | None
    exif: dict[str, Any] | None
    notes: list[str]

    def facts(self, file_name: str) -> "PictureFacts":
        """Return what an image's metadata object keeps of this."""
        # It brings Faust along, which the model's process has no use for.
        from models.events import PictureFacts  # noqa: PLC0415

        return PictureFacts(
            width=self.width,
            height=self.height,
            format=self.format,
            colorProfile=self.color_profile,
            originalFileName=file_name,
            exifData=self.exif,
            notes=self.notes or None,
            preprocessingVersion=PREPROCESSING,
        )


def inspect(source: Path | BinaryIO, *, max_pixels: int, keep_gps: bool = False) -> PictureHeader:
    """Read a picture's header; `source` is read from its start and not to its end.

    (WebP, AVIF, HEIC and JPEG 2000 cannot be opened in part: their compressed bytes are read.)

    Raises
    ------
    UnsupportedFormat
        By its content it is none of the accepted formats.
    UnsupportedKind
        It is of one of them, and of a kind that no decoder here knows.
    TooManyPixels
        It has more than `max_pixels`, or decoding takes more memory than so many plain ones.
    TooManyFrames
        It has more than `MAX_FRAMES`.
    UndecodableImage
        It begins like a picture, and its header is damaged.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return inspect(file, max_pixels=max_pixels, keep_gps=keep_gps)
    try:
        return _inspect(source, max_pixels, keep_gps=keep_gps)
    except MemoryError as error:  # a header that takes so much is no picture's
        raise UndecodableImage from error


def _inspect(source: BinaryIO, max_pixels: int, *, keep_gps: bool) -> PictureHeader:
    with open_picture(source, max_pixels=max_pixels) as (image, found):
        check_frames(source, image, found)
        width, height = image.size
        if orientation(image) in TURNED_SIDEWAYS:
            width, height = height, width
        return PictureHeader(
            format=found.name,
            content_type=found.content_type,
            extension=found.extension,
            width=width,
            height=height,
            color_profile=_profile_name(image),
            exif=_named_exif(image, keep_gps=keep_gps),
            notes=notes(image, source),
        )


@contextmanager
def open_picture(
    file: BinaryIO, *, max_pixels: int
) -> Iterator[tuple[ImageFile.ImageFile, PictureFormat]]:
    """Open a picture by content and check its size; what fails inside is one of our errors.

    All but `MemoryError`, which says nothing of the picture.
    """
    file.seek(0)
    found = identify(file.read(HEAD_BYTES))
    if found is None:
        raise UnsupportedFormat
    try:
        with open_header(file, found) as image:
            found = _BOXED.get(image.format, found)
            check_pixels(image, found, max_pixels, turned=orientation(image) != UPRIGHT)
            yield image, found
    except (TooLarge, UnsupportedFormat, UndecodableImage, MemoryError):
        raise
    except Exception as error:  # decoders raise anything at all on what strangers send
        if kind := unknown_kind(file, found.name):
            raise UnsupportedKind(unsupported(found, kind)) from error
        raise UndecodableImage from error


def orientation(image: Image.Image) -> int:
    """Return how the picture is to be turned, as EXIF says it, 1 to 8; 1 is upright.

    Who is obeyed: in HEIC and AVIF the container's own turn, in all else EXIF, and XMP nowhere.
    libheif turns HEIC itself, Pillow TIFFs; for AVIF Pillow writes the container's turn into its
    EXIF. What cannot be read is 1.
    """
    if image.format in {TIFF.name, HEIF.name}:
        return UPRIGHT
    if image.format == PNG.name and "exif" not in image.info:
        return UPRIGHT  # that in a text is obeyed by no browser
    try:
        value = _exif(image).get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # a damaged EXIF block is no damage to the picture
        return UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT  # noqa: PLR2004 -- EXIF's range


def _exif(image: Image.Image) -> Image.Exif:
    if any(len(image.info.get(each) or "") > EXIF_BYTES for each in _EXIF_BLOCKS):
        return Image.Exif()
    # A PNG may carry its EXIF after its pixels: its own method would decode all of them.
    return Image.Image.getexif(image) if image.format == PNG.name else image.getexif()


def _profile_name(image: Image.Image) -> str | None:
    icc = image.info.get("icc_profile")
    if not icc:
        return "sRGB" if "srgb" in image.info and cicp_space(image.info) is None else None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        name = ImageCms.getProfileDescription(profile)
    except Exception:  # a damaged profile is no damage to the picture
        return None
    return _text(name, _PROFILE_NAME)


def _named_exif(image: Image.Image, *, keep_gps: bool) -> dict[str, Any] | None:
    try:
        exif = _exif(image)
        raw = dict(exif) | dict(exif.get_ifd(ExifTags.IFD.Exif))
        places = dict(exif.get_ifd(ExifTags.IFD.GPSInfo)) if keep_gps else {}
    except Exception:  # a damaged EXIF block is no damage to the picture
        return None
    told = {tag: value for tag, value in raw.items() if tag not in _UNTOLD}
    named = _named(told, ExifTags.TAGS)
    if found := _named(places, ExifTags.GPSTAGS):
        named["GPSInfo"] = found
    return named or None


def _named(raw: Mapping[int, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """Return the tags that have a name and a plain value, up to a number."""
    named: dict[str, Any] = {}
    for tag, value in raw.items():
        name, plain = names.get(tag), _plain(value)
        if name is not None and plain is not None:
            named[name] = plain
        if len(named) == _EXIF_TAGS:
            break
    return named


def _plain(value: Any) -> str | int | float | list[int | float] | None:
    """Return an EXIF value as JSON knows it, or None for what is skipped."""
    if isinstance(value, str):
        return _text(value, _EXIF_TEXT)
    if isinstance(value, bytes) and len(value) == 1:  # EXIF's BYTE: which way an altitude counts
        return value[0]
    if isinstance(value, tuple):
        if not 0 < len(value) <= _EXIF_NUMBERS:
            return None
        numbers = [_number(each) for each in value]
        return [each for each in numbers if each is not None] if None not in numbers else None
    return _number(value)


def _number(value: Any) -> int | float | None:
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bytes) else None


def _text(value: str, limit: int) -> str | None:
    printable = "".join(char for char in value[: 10 * limit] if char.isprintable())
    return printable.encode(errors="ignore").decode().strip()[:limit] or None
