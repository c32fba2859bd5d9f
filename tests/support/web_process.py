"""The web layer as a process: ``python -m tests.support.web_process FOLDER MAX_PIXELS``."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from deeplens_streams.config import load_settings
from deeplens_streams.features import choose_model
from deeplens_streams.logs import configure_logging
from deeplens_streams.storage import open_blobs
from deeplens_streams.testing.features import MemoryFeatures
from deeplens_streams.testing.vectors import MemoryVectors
from deeplens_streams.web import Runner, server_options
from tests.support.web_server import Web


@contextmanager
def started(folder: Path, max_pixels: int) -> Iterator[subprocess.Popen[str]]:
    """Run this program; the first line that it prints is its port."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.web_process", str(folder), str(max_pixels)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        text=True,
    ) as found:
        try:
            yield found
        finally:
            found.kill()


async def main(folder: Path, max_pixels: int) -> None:
    """Serve on a free port, which is printed, until killed; images lie in `folder`."""
    settings = load_settings(data_dir=folder, weights="untrained", max_pixels=max_pixels)
    configure_logging(settings)
    served = Web(
        settings=settings,
        blobs=open_blobs(settings),
        features=MemoryFeatures(model=choose_model(settings)),
        vectors=MemoryVectors(),
    )
    runner = Runner(served.application(), access_log=None, **server_options(settings))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 -- the test reads it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
