#!/usr/bin/env bash
# Pillow 13.0.0 reads a compressed TIFF whose planes lie apart (PlanarConfiguration 2) without an error, and wrongly:
# - grey with alpha: the alpha that was stored is gone, and all of the picture is transparent. The second plane is written to
#   the second byte of a pixel, and this mode keeps its alpha in the fourth.
# - CIELab: a* and b* are stored with a sign, which is left as it is; where samples lie side by side, Pillow turns it into its
#   own offset of 128.
# The same pixels with samples side by side are right both times.
#
# Seen: alpha 0 instead of 255; a* and b* of (20, 236) instead of (148, 108), which are 20 and -20 with the offset.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 tifffile==2026.3.3
"$folder/venv/bin/python" - <<'PY'
import io
import sys

import numpy as np
import tifffile
from PIL import Image


def read(samples, planes, **more):
    """Return the first pixel as Pillow reads it from a TIFF with these samples."""
    pixels = np.full((16, 16, len(samples)), samples, np.uint8)
    if planes == "separate":
        pixels = pixels.transpose(2, 0, 1)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, planarconfig=planes, compression="zlib", **more)
    buffer.seek(0)
    with Image.open(buffer) as image:
        return image.mode, image.getpixel((0, 0))


found = {}
for planes in ("contig", "separate"):
    grey = read((100, 255), planes, photometric="minisblack", extrasamples=["unassalpha"])
    lab = read((255, 20, 236), planes, photometric="cielab")
    found[planes] = grey, lab
    print(f"{planes}: grey with alpha {grey}, Lab {lab}")
right = (("LA", (100, 255)), ("LAB", (255, 148, 108)))
sys.exit(0 if found["contig"] == right and found["separate"] == (("LA", (100, 0)), ("LAB", (255, 20, 236))) else 1)
PY
