"""A process that reads pictures with one decoder, ours or libvips, and says what it made of each.

Some of the pictures were made to crash decoders: it has bounds, and whoever started it survives it.
``python -m tests.decoders.reading ours`` (or ``libvips``) takes a path a line and answers each
with a line of JSON. It is gone where a picture took too long, too much memory, or crashed it.
"""

import base64
import io
import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from deeplens_streams.errors import DeepLensError
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging import decode
from deeplens_streams.imaging.header import inspect

Answer = dict[str, Any]

#: Longer side of the thumbnails, in pixels, and of what is compared of them: a resize on the way
#: blurs as much as a pixel.
_THUMBNAIL, _COMPARED = 64, 32
_MAX_PIXELS = 50_000_000
_SECONDS = 20
_BYTES = 4 * 1024**3
#: libvips' loaders of our formats; what others would make of a file is nothing to compare with.
_LOADERS = {
    "gifload": "GIF",
    "heifload": "AVIF",
    "jpegload": "JPEG",
    "pngload": "PNG",
    "tiffload": "TIFF",
    "webpload": "WEBP",
}
_EIGHT_BITS = {"rgb16": "srgb", "grey16": "b-w"}
_WHITE = {"uchar": 255, "ushort": 65_535}


def by_ours(data: bytes) -> Answer:
    answer: Answer = {}
    try:
        header = inspect(io.BytesIO(data), max_pixels=_MAX_PIXELS)
        answer = {"format": header.format, "told": [header.width, header.height]}
        found = decode.decode(data, UNTRAINED, max_pixels=_MAX_PIXELS, thumbnail_px=_THUMBNAIL)
    except DeepLensError as error:
        return {**answer, "refused": f"{error.code}: {error.message}"}
    assert found.thumbnail is not None
    with Image.open(io.BytesIO(found.thumbnail)) as small:
        return {**answer, "size": [found.width, found.height], "pixels": _pixels(small)}


def by_libvips(data: bytes) -> Answer:
    import pyvips  # noqa: PLC0415 -- not into the process that is ours

    answer: Answer = {}
    try:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="error")
        name = image.get("vips-loader").removesuffix("_buffer")
        if name == "uhdrload":  # a JPEG, which with its gain map would be HDR
            image, name = pyvips.Image.jpegload_buffer(data, fail_on="error"), "jpegload"
        if name not in _LOADERS:
            return {"refused": f"it is for {name}"}
        answer["format"] = _LOADERS[name]
        shown = _shown(image.autorot())
        raw = shown.write_to_memory()
    except pyvips.Error as error:
        return {**answer, "refused": str(error)}
    size = shown.width, shown.height
    whole = Image.frombytes({1: "L", 3: "RGB"}[shown.bands], size, raw)
    scale = min(1.0, _THUMBNAIL / max(size))
    small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    thumbnail = whole.resize(small, Image.Resampling.BILINEAR, reducing_gap=1.0)
    return {**answer, "size": size, "pixels": _pixels(thumbnail)}


def _shown(image: Any) -> Any:
    """Return the picture in 8 bits of sRGB, or of grey, on white."""
    if image.hasalpha():
        image = image.flatten(background=[_WHITE.get(image.format, 1)])
    # A profile alone would leave 16 bits.
    image = image.colourspace(_EIGHT_BITS.get(image.interpretation, image.interpretation))
    if image.get_typeof("icc-profile-data"):
        return image.icc_transform(
            "srgb", embedded=True, intent="perceptual", black_point_compensation=True
        )
    return image.colourspace("srgb").cast("uchar")


def _pixels(thumbnail: Image.Image) -> tuple[list[int], str]:
    """Return size and RGB, which JSON can hold."""
    scale = min(1.0, _COMPARED / max(thumbnail.size))
    width, height = (max(1, round(side * scale)) for side in thumbnail.size)
    small = thumbnail.convert("RGB").resize((width, height), Image.Resampling.BOX)
    return [height, width, 3], base64.b64encode(small.tobytes()).decode()


DECODERS: dict[str, Callable[[bytes], Answer]] = {"ours": by_ours, "libvips": by_libvips}


def main() -> None:
    read = DECODERS[sys.argv[1]]
    # What a JPEG of usual quality does to so few pixels is not what is looked for.
    decode._THUMBNAIL_QUALITY = 100
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        signal.alarm(_SECONDS)  # nobody catches it
        try:
            answer = read(Path(line.rstrip("\n")).read_bytes())
        except MemoryError:
            answer = {"refused": "no memory"}
        signal.alarm(0)
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
