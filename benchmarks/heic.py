"""Where the time of a phone's HEIC goes: 4032 x 3024 in tiles of 512 pixels, as phones write it.

    python -m benchmarks.heic

For some sizes of the file, with one thread of libheif and with four: what libheif takes, the copy
into Pillow's picture, and the rest of the product's decoding (resizes and thumbnail).
"""

import io
import time
from collections.abc import Callable

import numpy as np
import pillow_heif
from PIL import Image
from pillow_heif import options

from deeplens_streams.features.models import EFFICIENTNET_LITE0
from deeplens_streams.imaging.decode import decode

_SIZE, _TILE, _CELLS = (4032, 3024), 512, 32
_LIMIT, _ROUNDS = 100_000_000, 4
#: Levels of grain, and libx265's quality.
_SHOTS = ((2, 50), (6, 60), (6, 90))


def shot(grain: int, quality: int) -> bytes:
    """Return blurred colours with grain, as HEIC."""
    chance, (width, height) = np.random.default_rng(0), _SIZE
    few = chance.integers(0, 256, (height // _CELLS, width // _CELLS, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(few).resize(_SIZE, Image.Resampling.BICUBIC), np.int16)
    grainy = smooth + chance.integers(-grain, grain + 1, (height, width, 1), dtype=np.int16)
    buffer = io.BytesIO()
    image = Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))
    image.save(buffer, "HEIF", quality=quality, tile_size=_TILE)
    return buffer.getvalue()


def least(work: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and clock time in milliseconds, the least of some rounds each."""
    cpu, clock = [], []
    for _ in range(_ROUNDS):
        began = time.process_time(), time.perf_counter()
        work()
        cpu.append((time.process_time() - began[0]) * 1000)
        clock.append((time.perf_counter() - began[1]) * 1000)
    return min(cpu), min(clock)


def opened(data: bytes) -> pillow_heif.HeifFile:
    found = pillow_heif.open_heif(io.BytesIO(data))
    found[0].load()
    return found


def main() -> None:
    print("| file | threads | libheif: CPU ms | clock | copy | the rest | whole: CPU ms | clock |")
    print("|---|---|---|---|---|---|---|---|")
    for grain, quality in _SHOTS:
        data = shot(grain, quality)
        for threads in (1, 4):
            options.DECODE_THREADS = threads
            cpu, clock = least(lambda data=data: opened(data))  # type: ignore[misc]
            loaded = opened(data)
            copy, _ = least(loaded.to_pillow)
            whole, whole_clock = least(
                lambda data=data: decode(  # type: ignore[misc]
                    data, EFFICIENTNET_LITE0, max_pixels=_LIMIT, thumbnail_px=256
                )
            )
            print(
                f"| {len(data) / 1e6:.1f} MB | {threads} | {cpu:.0f} | {clock:.0f} | {copy:.0f} | "
                f"{whole - cpu - copy:.0f} | {whole:.0f} | {whole_clock:.0f} |"
            )


if __name__ == "__main__":
    main()
