"""What fault tests start, break and send."""

import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.system import Process


class StubExtractor(Process):
    """The extraction service without a model."""

    def __init__(self, folder: Path, port: int, *, sleep_ms: float = 0.0) -> None:
        args = ["tests.support.stub_extractor", "--port", str(port), "--sleep-ms", str(sleep_ms)]
        super().__init__(folder, port, args, {})

    async def until_ready(self) -> None:
        await self.until_answers("/health", 30)


def cut_short(picture: bytes) -> bytes:
    """Return what begins like a small picture and lacks more than a row of blocks."""
    return picture[: len(picture) * 7 // 10]


def small_pictures(count: int, *, seed: int = 1) -> list[bytes]:
    """Return small JPEGs of which no two have the same bytes."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((64, 48)).save(buffer, "JPEG", quality=70)
        pictures.append(buffer.getvalue())
    return pictures


def fill(folder: Path, leave: int) -> Path:
    """Leave so many bytes free."""
    ballast = folder / "ballast"
    with ballast.open("ab") as file:
        while (free := shutil.disk_usage(folder).free) > leave:
            file.write(bytes(min(1 << 20, free - leave)))
            file.flush()
    return ballast
