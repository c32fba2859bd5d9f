"""JPEG 2000 as Pillow reads it, held against its codestream, and reduced where that suffices."""

import math
from typing import BinaryIO, Final

from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from deeplens_streams.errors import UndecodableImage, UnsupportedKind
from deeplens_streams.imaging.codestream import Codestream, read_codestream
from deeplens_streams.imaging.isobmff import boxes

#: Bytes that OpenJPEG keeps of each sample, as measured, and of each tile.
_SAMPLE, _TILE = 5.5, 12_000
_BITS: Final = 16
_COMPONENTS: Final = 4
#: A colour specification that is an ICC profile.
_PROFILES: Final = {2, 3}


class Jpeg2000(Jpeg2KImageFile):
    """A JPEG 2000 picture.

    Attributes
    ----------
    levels : how often its sides can be halved without decoding all of it.
    decoder_bytes : what its decoder takes for itself, of each pixel.
    """

    levels: int
    decoder_bytes: int

    def __init__(self, source: BinaryIO, name: str = "") -> None:
        """Open it; all of it is read.

        Raises
        ------
        UndecodableImage
            Its codestream is damaged, or another picture than its header tells.
        UnsupportedKind
            It has more components, or more bits of a sample, than are read.
        """
        stream, profile = _contents(memoryview(source.read()))
        told = read_codestream(stream)
        if len(told.bits) > _COMPONENTS or max(told.bits) > _BITS:
            raise UnsupportedKind(
                f"This kind of JPEG 2000 is not supported ({len(told.bits)} components of up to "
                f"{max(told.bits)} bits); convert it to a usual one."
            )
        source.seek(0)
        super().__init__(source, name)
        # The header in front tells what a client sees; what is decoded is the codestream.
        if self.size != (told.width, told.height):
            raise UndecodableImage
        if profile is not None:
            self.info["icc_profile"] = profile
        # Between two numbers of a palette's colours there is no colour between them.
        self.levels = 0 if self.mode in {"P", "PA"} else told.levels
        self.decoder_bytes = _bytes_a_pixel(told)

    def halve(self, times: int) -> None:
        """Have it decoded at half its sides, `times` over, or as often as it can be."""
        self.reduce = min(times, self.levels)


def _contents(data: memoryview) -> tuple[memoryview, bytes | None]:
    """Return the codestream, and the profile of its colours if there is one."""
    if data[:2].tobytes() == b"\xff\x4f":
        return data, None
    profile: bytes | None = None
    for kind, body in boxes(data):
        if kind == b"jp2h":
            for inner, told in boxes(body):
                if inner == b"colr" and profile is None and told[0] in _PROFILES:
                    profile = bytes(told[3:])
        if kind == b"jp2c":
            return body, profile
    raise UndecodableImage


def _bytes_a_pixel(told: Codestream) -> int:
    of_tiles = _TILE * told.tiles / (told.width * told.height)
    return math.ceil(len(told.bits) * (_SAMPLE + told.records) + of_tiles)
