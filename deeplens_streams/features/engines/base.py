"""What an engine does, whichever it is."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from deeplens_streams.features.base import Precision

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]


class Engine(Protocol):
    """A loaded model: pixels in, normalised vectors out. Several threads may call it at once.

    Attributes
    ----------
    name : ``openvino`` or ``torch``.
    device : ``cpu`` or ``cuda``.
    precision : the numbers that it computes in.
    parallel : calls at once that it gains from; more wait.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> Precision: ...

    @property
    def parallel(self) -> int: ...

    def __call__(self, pixels: Pixels) -> Vectors:
        """Return the vectors of a batch.

        Parameters
        ----------
        pixels : (n, input_size, input_size, 3) uint8, RGB.

        Returns
        -------
        (n, dimension) float32, each row L2-normalised.

        Raises
        ------
        MemoryError
            Main memory is short.
        """
        ...

    def warm_up(self, sizes: tuple[int, ...]) -> None:
        """Run batches of these sizes: the first one of each size prepares its kernels."""
