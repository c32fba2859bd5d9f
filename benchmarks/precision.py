"""At which precision a model may run: what lower ones change in its vectors, and what they gain.

    python -m benchmarks.precision [MODEL …]

The photographs of the test dependencies and cuts of them go through each trained model of the
catalogue whose weights are on this machine, in float32, mixed and bfloat16, in turn. The row of a
model (`features/models.py`) is to have the lowest precision that keeps to both limits.
Untrained networks hide what it costs. Ends with 1 where a row has another one.
"""

import io
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplens_streams.config import Settings, load_settings
from deeplens_streams.features.base import ModelSpec, Precision
from deeplens_streams.features.engines.openvino_engine import OpenVinoEngine, find_converted
from deeplens_streams.features.engines.precision import cpu_multiplies_bfloat16
from deeplens_streams.features.engines.threads import inference_threads
from deeplens_streams.features.models import TRAINED, named
from deeplens_streams.features.weights import find_weights
from deeplens_streams.imaging.decode import decode
from tests.support.photographs import photographs

#: What a precision has to keep of float32: the cosine of each picture, the ten nearest of it.
WORST_COSINE, NEAREST_AGREE = 0.995, 0.98

_PRECISIONS: tuple[Precision, ...] = ("bf16", "mixed", "f32")  # the lowest first
_NEAREST = 10
_BATCH, _ROUNDS = 8, 3
#: Cuts of a photograph: of its sides, and as many in each direction. Smaller ones show little.
_CUTS, _LEAST_SIDE = ((0.6, 2), (0.4, 3)), 96

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """One precision of a model, against float32.

    Attributes
    ----------
    worst, median : cosine of a picture's vector to the one in float32.
    agree : of the ten nearest of a picture, how many are the same; the mean.
    cpu_ms : CPU time of one picture in a batch of eight; the least of some rounds.
    """

    precision: Precision
    worst: float
    median: float
    agree: float
    cpu_ms: float

    @property
    def is_borne(self) -> bool:
        return self.worst >= WORST_COSINE and self.agree >= NEAREST_AGREE


def pictures() -> Iterator[bytes]:
    """Yield each photograph, then its cuts."""
    for photograph in photographs():
        yield photograph.data
        with Image.open(io.BytesIO(photograph.data)) as image:
            whole = image.convert("RGB")
        for part, count in _CUTS:
            width, height = round(whole.width * part), round(whole.height * part)
            if min(width, height) < _LEAST_SIDE:
                continue
            for at in np.ndindex(count, count):
                left = round((whole.width - width) * at[0] / (count - 1))
                top = round((whole.height - height) * at[1] / (count - 1))
                cut = whole.crop((left, top, left + width, top + height))
                buffer = io.BytesIO()
                cut.save(buffer, "PNG", compress_level=1)
                yield buffer.getvalue()


def measure(model: ModelSpec, settings: Settings, shown: Sequence[bytes]) -> list[Measured]:
    pixels = np.stack(
        [decode(each, model, max_pixels=settings.max_pixels).pixels for each in shown]
    )
    engines = {each: engine_of(model, settings, each) for each in _PRECISIONS}
    vectors = dict[Precision, Vectors]()
    spent = {each: list[float]() for each in _PRECISIONS}
    for _ in range(_ROUNDS):
        for precision, engine in engines.items():
            began = time.process_time()
            vectors[precision] = np.concatenate(
                [engine(pixels[at : at + _BATCH]) for at in range(0, len(pixels), _BATCH)]
            )
            spent[precision].append((time.process_time() - began) / len(pixels) * 1000)
    exact = vectors["f32"]
    return [
        Measured(
            precision,
            worst=float((vectors[precision] * exact).sum(axis=1).min()),
            median=float(np.median((vectors[precision] * exact).sum(axis=1))),
            agree=_agree(vectors[precision], exact),
            cpu_ms=min(spent[precision]),
        )
        for precision in _PRECISIONS
    ]


def engine_of(model: ModelSpec, settings: Settings, precision: Precision) -> OpenVinoEngine:
    converted = find_converted(model, find_weights(settings, model), precision)
    engine = OpenVinoEngine(
        model, converted, precision=precision, threads=inference_threads(settings)
    )
    engine.warm_up((_BATCH,))
    return engine


def _agree(vectors: Vectors, exact: Vectors) -> float:
    ours, theirs = (_nearest(each) for each in (vectors, exact))
    same = [len(set(a) & set(b)) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)]
    return float(np.mean(same)) / _NEAREST


def _nearest(vectors: Vectors) -> npt.NDArray[np.intp]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1)
    return np.argsort(-scores, axis=1)[:, :_NEAREST]


def main() -> int:
    if not cpu_multiplies_bfloat16():
        print("This machine has no instructions for bfloat16: there is nothing to compare.")
        return 2
    settings, wrong = load_settings(), False
    shown = list(pictures())
    for model in [named(settings, each) for each in sys.argv[1:]] or TRAINED:
        if find_weights(settings, model) is None:
            print(f"{model.name}: its weights are not on this machine")
            continue
        found = measure(model, settings, shown)
        exact_ms = found[-1].cpu_ms
        print(f"{model.name}, {len(shown)} pictures, its row says {model.precision}")
        for each in found:
            print(
                f"  {each.precision:5}  worst cosine {each.worst:.4f}, median {each.median:.5f}, "
                f"ten nearest {each.agree:.3f}, {exact_ms / each.cpu_ms:.2f} times float32"
                f"{'' if each.is_borne else '  (not borne)'}"
            )
        lowest = next(each.precision for each in found if each.is_borne)
        wrong |= lowest != model.precision
        print(f"  the lowest that it bears: {lowest}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
