"""What the rest of the system asks of a feature model."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

#: Which layers there are; `features/networks` has one module for each; ``onnx`` is
#: a file that brings its own.
ArchitectureName = Literal["resnet50", "efficientnet-lite0", "onnx"]
#: In which numbers a model computes; ``mixed`` is bfloat16 with the largest
#: feature maps in float32.
Precision = Literal["f32", "mixed", "bf16"]


@dataclass(frozen=True, slots=True)
class Download:
    """Weights that are fetched once, into torch's cache.

    Attributes
    ----------
    sha256 : the first digits of the file's, in hex, or all of them.
    """

    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Installed:
    """Weights that are a file of an installed package, read as data: none of its code runs.

    Attributes
    ----------
    package : as package indexes call it.
    file : the file's name without folders.
    sha256 : of the file, in hex.
    """

    package: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class OwnFile:
    """Weights that are a file of the operator's.

    Attributes
    ----------
    path : where it is; None where ``DEEPLENS_WEIGHTS`` says so.
    """

    sha256: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Seed:
    """Numbers drawn at random from a seed: nobody trained the network."""

    number: int


Weights = Download | Installed | OwnFile | Seed


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model as a row of data.

    Attributes
    ----------
    name : part of the collection's name; lower case, digits and ``-``.
    version : names the weights, so that vectors can be told apart.
    architecture : which layers there are.
    precision : the lowest that it may run at, by measurement: worst cosine to float32 at least
        0.995, and 0.98 of the ten nearest the same.
    dimension : numbers in one vector.
    input_size : pixels of a side after the crop.
    resize_size : pixels of the shorter side before the crop.
    mean, std : for each of R, G, B, on a scale of 0 to 1.
    weights : where its numbers come from.
    licence : of the weights.
    warning : what a person is to be told wherever results show, or None.
    """

    name: str
    version: str
    architecture: ArchitectureName
    precision: Precision
    dimension: int
    input_size: int
    resize_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: Weights
    licence: str
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Extraction:
    """What extraction found.

    Attributes
    ----------
    vector : (dimension,) float32, L2-normalised.
    thumbnail : a JPEG, or None if none was asked for.
    width, height : pixels, as shown (after EXIF orientation).
    format : by content: JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF, HEIF or JPEG2000.
    processing_ms : from the call to the vector, waiting included.
    preprocessing : version of what was done before the model looked; None where nobody says so.
    """

    vector: npt.NDArray[np.float32]
    thumbnail: bytes | None
    width: int
    height: int
    format: str
    processing_ms: float
    preprocessing: int | None


class FeatureExtractor(Protocol):
    """Turns pictures into vectors; many callers share one."""

    @property
    def model(self) -> ModelSpec: ...

    async def start(self) -> None:
        """Begin to load; returns at once. Until loaded, `extract` waits and `ping` raises."""

    async def ready(self) -> None:
        """Start if need be and return when loaded; a service elsewhere is not waited for.

        Raises
        ------
        ConfigurationError
            It can never be loaded here: `WeightsUnavailable`, no such device, no torch.
        """

    async def extract(
        self, data: bytes, *, thumbnail_px: int | None = None, urgent: bool = False
    ) -> Extraction:
        """Decode once and return the vector, and a thumbnail if a size is given.

        Parameters
        ----------
        data : the file's bytes.
        thumbnail_px : the thumbnail's longer side.
        urgent : go before those that are not (a person waits for a search).

        Raises
        ------
        UndecodableImage, UnsupportedFormat, TooLarge
            This picture can never succeed.
        ExtractorUnavailable
            The model or the service is away; try again later.
        Exception
            Something unexpected went wrong with this picture; another attempt may succeed. From
            another process it comes as `ExtractionFailed`.
        """

    async def ping(self) -> None:
        """Raise `ExtractorUnavailable` unless the model can answer now."""

    async def close(self) -> None: ...
