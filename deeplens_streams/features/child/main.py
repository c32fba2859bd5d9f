"""The model's process: ``python -m deeplens_streams.features.child.main FD FD FD``.

It serves one parent over an inherited socket and ends when the parent is gone, however that
ended. In memory that it inherits, too, it keeps written what it decodes.
"""

import asyncio
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import structlog

from deeplens_streams.config import Settings
from deeplens_streams.errors import DeepLensError
from deeplens_streams.features.child.in_flight import InFlightRegister
from deeplens_streams.features.child.ipc import Header, read_frame, write_frame
from deeplens_streams.features.child.native_output import log_to
from deeplens_streams.features.in_process import LocalFeatures
from deeplens_streams.features.models import choose_model
from deeplens_streams.host.cgroup_memory import (
    OUT_OF_MEMORY,
    WANTED_BYTES,
    container_room,
    limit_memory,
    memory_left,
)
from deeplens_streams.logs import configure_logging

#: Below uploads and searches, which people wait for; extraction takes what they leave.
_NICENESS = 10
#: Characters of an unexpected error that go to the parent.
_MESSAGE, _TRACE = 1_000, 10_000

log = structlog.get_logger()


def main() -> None:
    # A Ctrl-C reaches the whole process group; when to end is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICENESS)
    _be_first_to_go()
    connection, board, log_file = map(int, sys.argv[1:])
    log_to(log_file)
    asyncio.run(_serve(socket.socket(fileno=connection), InFlightRegister(board)))


def _be_first_to_go() -> None:
    """Where memory runs out, a picture's decoder is to end and not the worker beside it."""
    with suppress(OSError):  # Linux has it
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


async def _serve(connection: socket.socket, board: InFlightRegister) -> NoReturn:
    reader, writer = await asyncio.open_connection(sock=connection)
    first = await read_frame(reader)
    if first is None:
        os._exit(0)
    settings = Settings(**first[0])
    configure_logging(settings)
    try:
        features = LocalFeatures(settings, choose_model(settings), board)
    except DeepLensError as error:
        await _fail(writer, error)
        os._exit(1)
    tasks = set[asyncio.Task[None]]()

    def done(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, MemoryError):
            _end_for_memory()  # not even for an answer
        if error is not None and task is announcing:
            log.error("the model's process cannot serve", reason=repr(error))
            os._exit(1)  # else nobody would know that it never will

    announcing = asyncio.create_task(_announce(features, writer, settings.max_pixels))
    tasks.add(announcing)
    announcing.add_done_callback(done)
    try:
        while (frame := await read_frame(reader)) is not None:
            if "ping" in frame[0]:
                write_frame(writer, {"pong": frame[0]["ping"]})
                continue
            task = asyncio.create_task(_answer(features, writer, *frame))
            tasks.add(task)
            task.add_done_callback(done)
    except MemoryError:
        _end_for_memory()
    # Not through the interpreter's own exit, which waits for a thread that may be importing,
    # downloading or decoding: there is nothing to save and nobody to tell.
    os._exit(0)


async def _announce(features: LocalFeatures, writer: asyncio.StreamWriter, max_pixels: int) -> None:
    try:
        await features.ready()
    except DeepLensError as error:
        await _fail(writer, error)
    else:
        await _keep_below_the_container(features, max_pixels)
        write_frame(writer, {"ready": True})
        await writer.drain()


async def _keep_below_the_container(features: LocalFeatures, max_pixels: int) -> None:
    """Limit what pictures take from here on; the model has what it needs."""
    left = container_room()
    # CUDA maps memory by gigabytes, as it goes, that it never uses.
    if left is None or features.device == "cuda":
        return
    await features.start_threads()
    room = limit_memory(left)
    tell = log.warning if room < max_pixels * WANTED_BYTES else log.info
    tell(
        "memory for pictures is limited by the container",
        megabytes=round(room / 1e6),
        wanted=round(max_pixels * WANTED_BYTES / 1e6),
    )


async def _fail(writer: asyncio.StreamWriter, error: DeepLensError) -> None:
    write_frame(writer, {"failed": error.code, "message": error.message})
    await writer.drain()


async def _answer(
    features: LocalFeatures, writer: asyncio.StreamWriter, request: Header, data: bytes
) -> None:
    answer: Header = {"id": request["id"]}
    bodies: tuple[bytes, ...] = ()
    try:
        found = await features.extract(
            data,
            thumbnail_px=request["thumbnail_px"],
            urgent=request["urgent"],
            number=request["id"],
        )
        bodies = (found.vector.tobytes(), found.thumbnail or b"")
        answer |= {"width": found.width, "height": found.height, "format": found.format}
    except DeepLensError as error:
        answer |= {"error": error.code, "message": error.message}
    except Exception as error:  # the parent's caller counts attempts and keeps the reason
        if isinstance(error, MemoryError) and memory_left() is not None:
            _end_for_memory()
        answer |= {
            "error": DeepLensError.code,
            "message": f"{type(error).__name__}: {error}"[:_MESSAGE],
            "trace": "".join(traceback.format_exception(error))[-_TRACE:],
        }
    write_frame(writer, answer, *bodies)
    await writer.drain()


def _end_for_memory() -> NoReturn:
    """End; the parent has what was in hand done again, and finds out whose doing it was."""
    with suppress(MemoryError):
        log.error("memory ran out")
    os._exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main()
