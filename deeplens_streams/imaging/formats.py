"""The accepted picture formats, told by their first bytes and by nothing else."""

from dataclasses import dataclass

#: Bytes that `identify` wants to see.
HEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """A format of pictures that is taken.

    Attributes
    ----------
    name : Pillow's name for the format, and ours.
    content_type : IANA media type.
    extension : with its dot, lower case.
    """

    name: str
    content_type: str
    extension: str


JPEG = PictureFormat("JPEG", "image/jpeg", ".jpg")
PNG = PictureFormat("PNG", "image/png", ".png")
WEBP = PictureFormat("WEBP", "image/webp", ".webp")
BMP = PictureFormat("BMP", "image/bmp", ".bmp")
TIFF = PictureFormat("TIFF", "image/tiff", ".tiff")
GIF = PictureFormat("GIF", "image/gif", ".gif")
AVIF = PictureFormat("AVIF", "image/avif", ".avif")
HEIF = PictureFormat("HEIF", "image/heic", ".heic")
JP2 = PictureFormat("JPEG2000", "image/jp2", ".jp2")
#: The same without boxes around it.
J2C = PictureFormat("JPEG2000", "image/j2c", ".j2c")

FORMATS = (JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF, HEIF, JP2, J2C)

#: What files of a format are called, too.
_OTHER_EXTENSIONS = {
    JPEG: (".jpeg", ".jpe", ".jfif"),
    PNG: (".apng",),
    BMP: (".dib",),
    TIFF: (".tif",),
    AVIF: (".avifs",),
    HEIF: (".heif", ".hif"),
    JP2: (".jpx", ".jpf", ".jph"),
    J2C: (".j2k", ".jpc", ".jhc"),
}

_PREFIXES: tuple[tuple[bytes, PictureFormat], ...] = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),  # BigTIFF
    (b"MM\0+", TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JP2),
    (b"\xff\x4f\xff\x51", J2C),
)
AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis"),
    *(b"hevc", b"hevx", b"hevm", b"hevs"),
    b"mif1",
)
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}


def identify(head: bytes) -> PictureFormat | None:
    """Return the format of a file that begins with `head` (up to `HEAD_BYTES`), or None."""
    for prefix, found in _PREFIXES:
        if head.startswith(prefix):
            return found
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    # Two letters are little to go by: a text may begin with them.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return BMP
    if head[4:8] == b"ftyp":
        return _identify_boxed(head)
    return None


def _identify_boxed(head: bytes) -> PictureFormat | None:
    """Tell AVIF from HEIC by the brands of the file type box, and both from video."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    major, others = head[8:12], {head[at : at + 4] for at in range(16, end - 3, 4)}
    if major in AVIF_BRANDS:
        return AVIF
    if major not in HEIF_BRANDS and not (major == b"msf1" or others.intersection(HEIF_BRANDS)):
        return None
    if major in {b"mif1", b"msf1"} and others.intersection(AVIF_BRANDS):
        return AVIF
    return HEIF


def extensions(content_type: str) -> tuple[str, ...]:
    """Return the extensions that fit a format's media type, the usual one first."""
    found = next(each for each in FORMATS if each.content_type == content_type)
    return (found.extension, *_OTHER_EXTENSIONS.get(found, ()))
