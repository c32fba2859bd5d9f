"""Blocks of 64 colours: on a canvas of Chromium's, and in what the model sees."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.browser import chromium
from tests.support.pictures import decoded

_SIDE, _BLOCK = 8, 32


def colours(*steps: int) -> np.ndarray:
    """Return (8, 8, 3): each of four levels with each."""
    meshed = np.meshgrid(*[np.array(steps, np.uint8)] * 3)
    return np.stack(meshed, axis=-1).reshape(_SIDE, _SIDE, 3)


def blocks(found: np.ndarray) -> Image.Image:
    return Image.fromarray(found.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1))


_SAMPLES = """async files => {
  const found = [];
  for (const [type, text] of files) {
    const image = new Image();
    image.src = `data:${type};base64,${text}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext('2d', {colorSpace: 'srgb'});
    context.drawImage(image, 0, 0);
    const {data, width} = context.getImageData(0, 0, canvas.width, canvas.height);
    const at = [];
    for (let y = 16; y < 256; y += 32) for (let x = 16; x < 256; x += 32)
      at.push([...data.slice(4 * (y * width + x), 4 * (y * width + x) + 3)]);
    found.push(at);
  }
  return found;
}"""


async def drawn(home: Path, pictures: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Return (8, 8, 3) of each picture: the colours of its blocks in Chromium."""
    files = [
        (Image.MIME[Image.open(io.BytesIO(data)).format or ""], base64.b64encode(data).decode())
        for data in pictures.values()
    ]
    async with chromium(home, "--force-color-profile=srgb") as browser:
        page = await browser.new_page()
        found = await page.evaluate(_SAMPLES, files)
    return {
        name: np.array(colours, int).reshape(_SIDE, _SIDE, 3)
        for name, colours in zip(pictures, found, strict=True)
    }


def ours(data: bytes) -> np.ndarray:
    """Return the same of what the model sees: a crop of 224 out of 232 pixels."""
    middles = np.round((np.arange(_SIDE) + 0.5) * 232 / _SIDE - 4).astype(int)
    return decoded(data)[np.ix_(middles, middles)].astype(int)
