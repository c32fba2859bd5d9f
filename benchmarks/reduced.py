"""What decoding a JPEG at reduced scale changes in a trained network's vectors, and what it saves.

    python -m benchmarks.reduced

libjpeg decodes at a half, a quarter or an eighth of the sides, if that leaves the margin: so many
times the size that is needed. Each photograph of the test dependencies is brought to the size at
which a half leaves just that, which is the worst case, with grain as from a sensor, and its vector
is held against that of full decoding. CPU time is of twelve megapixels, decoding and thumbnail.
Drawings stand by themselves: of flat areas a level more or less changes the vector.
"""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
from PIL import Image, ImageOps

from benchmarks.precision import engine_of
from deeplens_streams.config import load_settings
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.models import EFFICIENTNET_LITE0
from deeplens_streams.imaging import decode
from tests.support.photographs import photographs

_MARGINS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_NONE = 1_000.0
_THUMBNAIL_PX, _LIMIT = 256, 100_000_000
_GRAIN, _QUALITY = 6, 92
_PHONE = (4032, 3024)
_ROUNDS = 3
_DRAWINGS = {
    "clock_motion",
    "color",
    "horse",
    "logo",
    "logo2",
    "microaneurysms",
    "Minduka_Present_Blue_Pack",
    "page",
    "phantom",
    "text",
}


@contextmanager
def margin_of(margin: float) -> Iterator[None]:
    """Have decoding leave another margin."""
    usual = decode.DRAFT_MARGIN
    decode.DRAFT_MARGIN = margin
    try:
        yield
    finally:
        decode.DRAFT_MARGIN = usual


def shots(size: tuple[int, int]) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each photograph, and it as a JPEG of a size, the same one each time."""
    chance = np.random.default_rng(7)
    for photograph in photographs():
        with Image.open(io.BytesIO(photograph.data)) as image:
            fitted = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC)
        grain = chance.integers(-_GRAIN, _GRAIN + 1, (*fitted.size[::-1], 1), dtype=np.int16)
        pixels = np.clip(np.asarray(fitted, np.int16) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
        yield photograph.name, buffer.getvalue()


def pixels_of(data: bytes, model: ModelSpec, margin: float) -> np.ndarray:
    with margin_of(margin):
        found = decode.decode(data, model, max_pixels=_LIMIT, thumbnail_px=_THUMBNAIL_PX)
    return found.pixels


def cpu_ms(data: list[bytes], model: ModelSpec, margin: float) -> float:
    """Return the CPU time of decoding one of some pictures; the least of some rounds."""
    spent = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for each in data:
            pixels_of(each, model, margin)
        spent.append((time.process_time() - began) / len(data) * 1000)
    return min(spent)


def main() -> None:
    model, settings = EFFICIENTNET_LITE0, load_settings()
    engine = engine_of(model, settings, "f32")
    of_phone = [data for _, data in islice(shots(_PHONE), 4)]
    print("| margin | photographs: worst | median | drawings: worst | median | CPU ms |")
    print("|---|---|---|---|---|---|")
    for margin in _MARGINS:
        # One pixel more than twice the margin: a half is enough, and barely.
        shorter = int(model.resize_size * margin) * 2 + 2
        cosines: dict[bool, list[float]] = {False: [], True: []}
        for name, data in shots((shorter * 4 // 3, shorter)):
            exact, reduced = (
                engine(pixels_of(data, model, each)[np.newaxis])[0] for each in (_NONE, margin)
            )
            cosines[name in _DRAWINGS].append(float(exact @ reduced))
        told = " | ".join(f"{min(each):.4f} | {np.median(each):.4f}" for each in cosines.values())
        print(f"| {margin:g} | {told} | {cpu_ms(of_phone, model, margin):.0f} |")
    print(f"| none | 1 | 1 | 1 | 1 | {cpu_ms(of_phone, model, _NONE):.0f} |")


if __name__ == "__main__":
    main()
