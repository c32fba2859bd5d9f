"""The bare loop: what decoding and the model alone can do on this machine, with nothing around.

Each thread takes eight pictures, decodes them and runs one forward pass, again and again, as
many threads as the model uses in the real system.

    python -m benchmarks.bare_loop [PICTURES]
"""

import itertools
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from deeplens_streams.config import Settings, load_settings
from deeplens_streams.features.decoding import decode
from deeplens_streams.features.local import usable_cores
from deeplens_streams.features.models import choose_model
from deeplens_streams.features.network import Network
from deeplens_streams.features.weights import find_weights
from tests.photographs import as_jpeg, photographs

MEGAPIXEL = 1_000_000


def megapixel_photographs(count: int) -> list[bytes]:
    """Return `count` JPEGs of about a megapixel; after the first 28 they repeat."""
    made = [as_jpeg(each.data, pixels=MEGAPIXEL) for each in photographs()]
    return list(itertools.islice(itertools.cycle(made), count))


def bare_loop(pictures: Sequence[bytes], settings: Settings) -> float:
    """Return pictures a second, loading and warming up excluded."""
    model = choose_model(settings)
    network = Network(model, find_weights(settings), device=settings.device)
    size, threads = settings.batch_size, settings.threads or usable_cores()

    def work(batch: Sequence[bytes]) -> None:
        decoded = [decode(each, model, max_pixels=settings.max_pixels) for each in batch]
        network(np.stack([each.pixels for each in decoded]))

    batches = [pictures[at : at + size] for at in range(0, len(pictures), size)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, batches[:threads]))
        began = time.perf_counter()
        list(pool.map(work, batches))
        return len(pictures) / (time.perf_counter() - began)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rate = bare_loop(megapixel_photographs(count), load_settings())
    print(f"bare loop: {rate:.1f} pictures/s")
