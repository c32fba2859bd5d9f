"""What is to be seen of a decoded picture where Pillow's pixels are not it."""

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from deeplens_streams.imaging.png_transparency import cut_out
from deeplens_streams.imaging.tiff_samples import settled

_BMP, _GIF, _PNG = "BMP", "GIF", "PNG"
_WHITE = (255, 255, 255)


def as_shown(image: Image.Image, data: bytes) -> Image.Image:
    """Return the picture as viewers show it; mostly that is `image` itself.

    Parameters
    ----------
    image : loaded.
    data : the file that it came from.
    """
    if image.format == _PNG and "transparency" in image.info:
        return cut_out(image, data)
    if image.format == _BMP and image.mode == "RGBA":
        return _opaque_if_empty(image)
    if image.format == _GIF:
        return _on_paper(image)
    if isinstance(image, TiffImageFile):
        return settled(image)
    return image


def _opaque_if_empty(image: Image.Image) -> Image.Image:
    """A bitmap's fourth byte is often left 0, so alpha that is 0 all over is none."""
    if image.getchannel("A").getextrema() == (0, 0):
        image.putalpha(255)
    return image


def _on_paper(image: Image.Image) -> Image.Image:
    """A GIF's first frame may cover a part; the rest is transparent, where Pillow has colour 0."""
    left, top, right, bottom = getattr(image, "dispose_extent", (0, 0, *image.size))
    width, height = image.size
    if (left, top, right, bottom) == (0, 0, width, height) or "transparency" in image.info:
        return image  # Pillow fills with the colour that is transparent, if there is one
    shown = image.convert("RGB")
    around = (0, 0, width, top), (0, bottom, width, height)
    beside = (0, top, left, bottom), (right, top, width, bottom)
    for box in (*around, *beside):
        shown.paste(_WHITE, box)
    return shown
