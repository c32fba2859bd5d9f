"""A process that writes pictures with libvips, whose encoders write what Pillow's do not.

``python -m tests.decoders.making FOLDER`` writes one photograph in many kinds of each format.
"""

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pyvips

from tests.support.photographs import photograph

#: Name of the file, name of the picture, and libvips' options.
Kind = tuple[str, str, dict[str, Any]]

_EVERY = ("rgb", "grey", "rgba", "greya", "rgb16", "grey16", "rgba16", "greya16")
_AV1 = {"effort": 0, "compression": "av1"}


def pictures() -> dict[str, Any]:
    """Return the photograph, small and with odd sides, in 8 and 16 bits, with and without alpha."""
    whole = pyvips.Image.new_from_buffer(photograph("chelsea").data, "")
    colours = whole.thumbnail_image(123)
    across = pyvips.Image.xyz(colours.width, colours.height)[0] * (255 / colours.width)
    alpha = across.cast("uchar")
    grey = colours.colourspace("b-w")
    found = {
        "rgb": colours,
        "grey": grey,
        "rgba": colours.bandjoin(alpha),
        "greya": grey.bandjoin(alpha),
    }
    deep = {"rgb": "rgb16", "grey": "grey16"}
    for name, space in deep.items():
        wide = (found[name].cast("ushort") * 257).cast("ushort").copy(interpretation=space)
        found[f"{name}16"] = wide
        found[f"{name}a16"] = wide.bandjoin((alpha.cast("ushort") * 257).cast("ushort"))
    return found


def _kind(name: str, suffix: str, **options: object) -> Kind:
    told = "-".join(f"{key}={value}" for key, value in options.items())
    return f"{name}-{told}{suffix}", name, options


def kinds() -> Iterator[Kind]:
    """Yield the names of the files, which picture is in them, and how it is written."""
    for name, chroma, progressive in product(("rgb", "grey"), ("on", "off"), (False, True)):
        yield _kind(name, ".jpg", subsample_mode=chroma, interlace=progressive)
    yield _kind("rgb", ".jpg", optimize_coding=True, restart_interval=3)
    for name, interlaced in product(("rgb", "rgba"), (False, True)):
        yield _kind(name, ".gif", interlace=interlaced)
    for name, lossless in product(("rgb", "rgba", "grey"), (False, True)):
        yield _kind(name, ".webp", lossless=lossless)
    yield _kind("rgb", ".webp", smart_subsample=True, Q=30)
    for name, chroma, bits in product(("rgb", "rgba"), ("on", "off"), (8, 10, 12)):
        yield _kind(name, ".avif", subsample_mode=chroma, bitdepth=bits, **_AV1)
    yield _kind("rgb", ".avif", lossless=True, **_AV1)
    yield from _pngs()
    yield from _tiffs()


def _pngs() -> Iterator[Kind]:
    for name, interlaced in product(_EVERY, (False, True)):
        yield _kind(name, ".png", interlace=interlaced)
    for bits, interlaced in product((1, 2, 4), (False, True)):
        yield _kind("grey", ".png", bitdepth=bits, interlace=interlaced)
        yield _kind("rgba", ".png", bitdepth=bits, palette=True, interlace=interlaced)


def _tiffs() -> Iterator[Kind]:
    for name, how, tiled in product(_EVERY, ("none", "lzw", "deflate"), (False, True)):
        yield _kind(name, ".tif", compression=how, tile=tiled)
    for name, tiled in product(("rgb", "grey"), (False, True)):
        yield _kind(name, ".tif", compression="jpeg", tile=tiled)
        yield _kind(name, ".tif", compression="packbits", tile=tiled)
        yield _kind(
            name, ".tif", compression="lzw", predictor="horizontal", tile=tiled, bigtiff=True
        )
    for bits in (1, 2, 4):
        yield _kind("grey", ".tif", bitdepth=bits)
        yield _kind("grey", ".tif", bitdepth=bits, miniswhite=True)
    yield _kind("grey", ".tif", bitdepth=1, compression="ccittfax4")
    yield _kind("grey", ".tif", miniswhite=True)
    yield _kind("rgba", ".tif", premultiply=True)
    yield _kind("rgb", ".tif", pyramid=True, tile=True, tile_width=64, tile_height=64)


def main() -> None:
    folder, made = Path(sys.argv[1]), pictures()
    for file, name, options in kinds():
        made[name].write_to_file(str(folder / file), **options)


if __name__ == "__main__":
    main()
