"""What is missing of a picture that can be shown all the same, in sentences for people."""

from typing import BinaryIO, Final

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from deeplens_streams.imaging.cut_jpeg import lacks_end
from deeplens_streams.imaging.lenient_png import LenientStream

NO_END: Final = "The end of the file is missing; up to a row of blocks at the bottom may be, too."


def notes(image: Image.Image, file: BinaryIO) -> list[str]:
    """Return what is missing of a picture whose header is read from `file`; mostly nothing."""
    if isinstance(image, JpegImageFile):
        return [NO_END] if lacks_end(file) else []
    if isinstance(image, PngImageFile) and isinstance(image.png, LenientStream):
        return list(image.png.notes)
    return []
