"""AVIF grids of equal tiles."""

import struct

from PIL import Image

from tests.support.odd_headers import box, boxes
from tests.support.pictures import saved

SIDE = 64
_GRID = 1


def flat_grid(across: int, down: int, tile: Image.Image) -> bytes:
    """Return an AVIF of equal tiles, whose bytes are there once."""
    one = dict(boxes(saved(tile, "AVIF", quality=90)))
    meta, pixels = dict(boxes(one[b"meta"][4:])), one[b"mdat"]
    properties = dict(boxes(meta[b"iprp"]))
    tiles = range(2, 2 + across * down)
    size = struct.pack(">III", 0, across * SIDE, down * SIDE)
    container = properties[b"ipco"] + box(b"ispe", size)
    kinds = [kind for kind, _ in boxes(container)]
    links = properties[b"ipma"][11:]
    grid_links = bytes([len(kinds), 1 + kinds.index(b"pixi")])
    linked = [struct.pack(">HB", _GRID, 2) + grid_links]
    linked += [struct.pack(">HB", each, len(links)) + links for each in tiles]
    ipma = bytes(4) + struct.pack(">I", len(linked)) + b"".join(linked)
    infos = [
        box(b"infe", struct.pack(">IHH", 2 << 24, each, 0) + kind + b"\0")
        for each, kind in [(_GRID, b"grid"), *((each, b"av01") for each in tiles)]
    ]
    told = struct.pack(">BBBBHH", 0, 0, down - 1, across - 1, across * SIDE, down * SIDE)
    uses = struct.pack(f">HH{len(tiles)}H", _GRID, len(tiles), *tiles)
    meta |= {
        b"pitm": struct.pack(">IH", 0, _GRID),
        b"iinf": struct.pack(">IH", 0, len(infos)) + b"".join(infos),
        b"iref": bytes(4) + box(b"dimg", uses),
        b"iprp": box(b"ipco", container) + box(b"ipma", ipma),
    }

    def whole(begin: int) -> bytes:
        places = [struct.pack(">HHHII", _GRID, 0, 1, begin + len(pixels), len(told))]
        places += [struct.pack(">HHHII", each, 0, 1, begin, len(pixels)) for each in tiles]
        meta[b"iloc"] = struct.pack(">IHH", 0, 0x4400, len(places)) + b"".join(places)
        described = bytes(4) + b"".join(box(*each) for each in meta.items())
        return box(b"ftyp", one[b"ftyp"]) + box(b"meta", described)

    return whole(len(whole(0)) + 8) + box(b"mdat", pixels + told)
