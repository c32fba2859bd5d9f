"""The bare loop: what decoding and the model alone can do on this machine, with nothing around.

Each thread takes eight pictures, decodes them with their thumbnails and runs one forward pass,
again and again, as many threads as the model uses in the real system. The last line that it prints
is pictures a second:

    python -m benchmarks.bare_loop FOLDER
"""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deeplens_streams.config import Settings, load_settings
from deeplens_streams.features.engines import open_engine
from deeplens_streams.features.engines.threads import inference_threads
from deeplens_streams.features.models import choose_model
from deeplens_streams.features.weights import find_weights
from deeplens_streams.imaging.decode import decode


def bare_loop(pictures: Sequence[bytes], settings: Settings) -> float:
    """Return pictures a second, loading and warming up excluded.

    Without weights the numbers are drawn: a forward pass takes as long either way.
    """
    model = choose_model(settings)
    engine = open_engine(settings, model, find_weights(settings, model))
    size, threads = settings.batch_size, inference_threads(settings)

    def work(batch: Sequence[bytes]) -> None:
        decoded = [
            decode(each, model, max_pixels=settings.max_pixels, thumbnail_px=settings.thumbnail_px)
            for each in batch
        ]
        engine(np.stack([each.pixels for each in decoded]))

    batches = [pictures[at : at + size] for at in range(0, len(pictures), size)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, batches[:threads]))
        began = time.perf_counter()
        list(pool.map(work, batches))
        return len(pictures) / (time.perf_counter() - began)


def main() -> None:
    folder = Path(sys.argv[1])
    print(bare_loop([path.read_bytes() for path in sorted(folder.iterdir())], load_settings()))


if __name__ == "__main__":
    main()
