"""A PNG's chunks beside its pixels, taken as browsers take them: a damaged one is left out.

Pillow refuses the whole picture for one wrong checksum, one short chunk or one long text.
"""

import struct
import zlib
from typing import Final

from PIL import ImageFile, PngImagePlugin

from deeplens_streams.imaging.icc import LARGEST_PROFILE
from deeplens_streams.imaging.png_space import NUMBERS

_TEXTS: Final = {b"tEXt", b"zTXt", b"iTXt"}
_PROFILE: Final = b"iCCP"
#: Pixels, and those of an animation, which are ancillary by name only.
_PIXELS: Final = b"IDAT"
_LATER_PIXELS: Final = b"fdAT"
#: One for each colour of a palette; Pillow finds too many only when it converts the pixels.
_ALPHA: Final = b"tRNS"
_COLOURS: Final = 256
_FRAME: Final = b"fcTL"
#: What Pillow raises at a chunk that is too short, or holds what it may not.
_MALFORMED: Final = (ValueError, SyntaxError, IndexError, struct.error)
#: The only way in which a profile may be packed.
_DEFLATE: Final = b"\0"
#: Chunks without which there is no picture have a capital letter in front.
_ANCILLARY: Final = 0x20

DAMAGED_CHUNK: Final = "A chunk beside the pixels is damaged and was left out."
LONG_TEXT: Final = "A text beside the pixels cannot be unpacked, or is too long, and was left out."


class LenientStream(PngImagePlugin.PngStream):
    """Pillow's reader of chunks, which leaves out what no pixel depends on.

    Chunks of colours that Pillow does not know are kept with the rest that a picture says.

    Attributes
    ----------
    notes : what was left out, each sentence once.
    """

    def __init__(self, fp: object) -> None:
        super().__init__(fp)  # type: ignore[arg-type] # Pillow hands on what it was given
        self.notes: dict[str, None] = {}
        self._begun = False
        self._profile_met = False

    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        if self.fp is not None and self._begun and cid in {_PIXELS, _LATER_PIXELS}:
            self.fp.seek(length, 1)  # behind the first picture, which is all that is looked at
            return b""
        self._begun = self._begun or cid == _PIXELS
        if not cid[0] & _ANCILLARY or cid == _LATER_PIXELS or self.fp is None:
            return super().call(cid, pos, length)
        return self._beside(cid, pos, length)

    def _beside(self, cid: bytes, pos: int, length: int) -> bytes:
        assert self.fp is not None
        if not self._is_whole(cid, length) or (cid == _ALPHA and length > _COLOURS):
            self.notes[DAMAGED_CHUNK] = None
            return self.fp.read(length)  # less, where the file ends in it
        if cid in NUMBERS:
            body: bytes = ImageFile._safe_read(self.fp, length)  # noqa: SLF001
            if length == NUMBERS[cid]:
                self.im_info.setdefault(cid.decode(), body)
            else:
                self.notes[DAMAGED_CHUNK] = None
            return body
        if cid == _PROFILE:
            return self._read_profile(ImageFile._safe_read(self.fp, length))  # noqa: SLF001
        text = cid in _TEXTS
        if not text or self.text_memory <= PngImagePlugin.MAX_TEXT_MEMORY:
            try:
                return super().call(cid, pos, length)
            except _MALFORMED:
                if cid == _FRAME and not self._begun:
                    raise  # it tells where the pixels belong
                self.fp.seek(pos)
        self.notes[LONG_TEXT if text else DAMAGED_CHUNK] = None
        return ImageFile._safe_read(self.fp, length)  # noqa: SLF001

    def _read_profile(self, body: bytes) -> bytes:
        """Unpack the first profile, if it is no longer than one is obeyed; Pillow takes 1 MiB."""
        if self._begun or self._profile_met:
            return body  # one counts, and it lies in front of the pixels
        self._profile_met = True
        _name, _, packed = body.partition(b"\0")
        try:
            if packed[:1] != _DEFLATE:
                raise zlib.error
            profile = zlib.decompressobj().decompress(packed[1:], LARGEST_PROFILE + 1)
        except zlib.error:
            self.notes[DAMAGED_CHUNK] = None
            return body
        if len(profile) <= LARGEST_PROFILE:
            self.im_info["icc_profile"] = profile
        return body

    def crc(self, cid: bytes, data: bytes) -> None:
        if cid[0] & _ANCILLARY:
            self.crc_skip(cid, data)  # it was looked at before
        else:
            super().crc(cid, data)

    def _is_whole(self, cid: bytes, length: int) -> bool:
        """Tell whether the checksum is right; the file is left where it was."""
        assert self.fp is not None
        at = self.fp.tell()
        right = zlib.crc32(self.fp.read(length), zlib.crc32(cid))
        told = self.fp.read(4)
        self.fp.seek(at)
        return told == struct.pack(">I", right)
