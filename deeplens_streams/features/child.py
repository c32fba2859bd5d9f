"""The model in a process of its own, for workers.

Python's interpreter lock is why: a forward pass is hundreds of short calls, each of which
takes the lock again, so beside a busy event loop it runs at a third of its speed and the loop
stalls. Apart, neither waits for the other, torch is imported beside the worker's start, its
priority can be lowered as a whole, and a decoder that crashes takes no worker with it.
"""

import asyncio
import itertools
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import numpy as np
import structlog

from deeplens_streams.config import Settings
from deeplens_streams.errors import (
    ConfigurationError,
    DeepLensError,
    ExtractorUnavailable,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
    WeightsUnavailable,
)
from deeplens_streams.features.base import Extraction, ModelSpec
from deeplens_streams.features.frames import Header, read_frame, write_frame

_SETTINGS = {
    "weights", "device", "batch_size", "batch_wait_ms", "threads", "max_pixels", "log_format"
}  # fmt: skip
_ERRORS: dict[str, type[DeepLensError]] = {
    each.code: each
    for each in (
        ConfigurationError,
        ExtractorUnavailable,
        TooManyPixels,
        UndecodableImage,
        UnsupportedFormat,
        WeightsUnavailable,
    )
}
_FIRST_STARTS = 3
_CRASHES_ALONE = 2
"""One may be somebody else's doing: the machine ran out of memory, or the process was killed."""
_SILENCE_S = 120.0
"""A slow machine takes seconds for a batch; a decoder that loops takes forever."""
_LOOK_S = 5.0
_RESTART_WAIT_S = 0.5
_EXIT_TIMEOUT_S = 3.0

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Request:
    header: Header
    data: bytes
    future: asyncio.Future[tuple[Header, bytes]]
    sent: bool = False
    #: Whether the process ended with this picture in hand, and how often with no other one.
    suspected: bool = False
    crashes_alone: int = 0


class ChildFeatures:
    """A `FeatureExtractor` that hands pictures to a child process and restarts it if it dies.

    After a crash, the pictures that were in hand are tried again one at a time; the one with
    which alone the process ends twice is undecodable, and no other is lost. A process that
    answers nothing for two minutes while it has work has hung, and is ended.
    """

    def __init__(self, settings: Settings, model: ModelSpec) -> None:
        self._settings = settings
        self._model = model
        self._ids = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._sending = asyncio.Lock()
        self._open = asyncio.Event()
        self._ready: asyncio.Future[None] | None = None
        self._up = False
        self._keeper: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._heard_at = 0.0
        self._closing = False

    @property
    def model(self) -> ModelSpec:
        return self._model

    @property
    def process_id(self) -> int | None:
        """The child's process ID while there is one."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def start(self) -> None:
        if self._keeper is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._ready.add_done_callback(_mark_retrieved)
            self._keeper = asyncio.create_task(self._keep(), name="keep the model's process")

    async def ready(self) -> None:
        await self.start()
        assert self._ready is not None
        await asyncio.shield(self._ready)

    async def extract(
        self, data: bytes, *, thumbnail_px: int | None = None, urgent: bool = False
    ) -> Extraction:
        began = time.perf_counter()
        await self.start()
        self._check_usable()
        number = next(self._ids)
        header = {"id": number, "thumbnail_px": thumbnail_px, "urgent": urgent}
        request = _Request(header, data, asyncio.get_running_loop().create_future())
        self._requests[number] = request
        try:
            if self._open.is_set():
                await self._send(request)
            answer, body = await request.future
        finally:
            del self._requests[number]
        size = self._model.dimension * np.dtype(np.float32).itemsize
        return Extraction(
            vector=np.frombuffer(body, np.float32, self._model.dimension),
            thumbnail=body[size:] or None,
            width=answer["width"],
            height=answer["height"],
            format=answer["format"],
            processing_ms=(time.perf_counter() - began) * 1000,
        )

    async def ping(self) -> None:
        self._check_usable()
        if not self._up:
            raise ExtractorUnavailable("The model is loading.")

    async def close(self) -> None:
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        self._fail_all(ExtractorUnavailable("The model is shutting down; try again later."))

    def _check_usable(self) -> None:
        if self._closing:
            raise ExtractorUnavailable("The model is shutting down; try again later.")
        if self._ready is not None and self._ready.done() and self._ready.exception():
            raise ExtractorUnavailable(str(self._ready.exception()))

    def _fail_all(self, error: DeepLensError) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        for request in self._requests.values():
            if not request.future.done():
                request.future.set_exception(ExtractorUnavailable(error.message))

    async def _keep(self) -> None:
        """Run one process after another until one says that it can never answer."""
        starts, wait = 0, _RESTART_WAIT_S
        while True:
            starts += 1
            try:
                status = await self._run_once()
            except DeepLensError as error:
                return self._fail_all(error)
            except OSError as error:
                status = str(error)
            log.error("the model's process ended", status=status)
            assert self._ready is not None
            if self._ready.done():
                wait = _RESTART_WAIT_S
            elif starts == _FIRST_STARTS:
                return self._fail_all(
                    ConfigurationError(f"The model's process ends while it loads ({status}).")
                )
            self._blame()
            await asyncio.sleep(wait)
            wait *= 2

    async def _run_once(self) -> str:
        """Start a process, serve until it ends, and say how it ended."""
        ours, theirs = socket.socketpair()
        with ExitStack() as ours_unless_connected, theirs:
            ours_unless_connected.enter_context(ours)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "deeplens_streams.features.process"),
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=DEVNULL,
                stdout=DEVNULL,
            )
            reader, writer = await asyncio.open_connection(sock=ours)
            ours_unless_connected.pop_all()
        feeder = watcher = None
        try:
            write_frame(writer, self._settings.model_dump(mode="json", include=_SETTINGS))
            self._writer = writer
            feeder = asyncio.create_task(self._feed())
            watcher = asyncio.create_task(self._watch(self._process))
            while (frame := await read_frame(reader)) is not None:
                self._take(*frame)
        finally:
            self._up = False
            self._open.clear()
            self._writer = None
            for task in (feeder, watcher):
                if task is not None:
                    task.cancel()
            writer.close()
            status = await asyncio.shield(self._end(self._process))
        return status

    async def _end(self, process: Process) -> str:
        """Wait for a process that has lost its socket, and say how it ended."""
        try:
            code = await asyncio.wait_for(process.wait(), _EXIT_TIMEOUT_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            code = await process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    async def _watch(self, process: Process) -> None:
        """End a process that has work and answers nothing."""
        while True:
            await asyncio.sleep(_LOOK_S)
            has_work = any(each.sent and not each.future.done() for each in self._requests.values())
            if self._up and has_work and time.monotonic() - self._heard_at > _SILENCE_S:
                log.error("the model's process hangs; it is ended", pid=process.pid)
                process.kill()
                return

    def _take(self, header: Header, body: bytes) -> None:
        self._heard_at = time.monotonic()
        if "ready" in header:
            self._up = True
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif "failed" in header:
            raise _error(header["failed"], header["message"])
        elif (request := self._requests.get(header["id"])) and not request.future.done():
            if "error" in header:
                request.future.set_exception(_error(header["error"], header["message"]))
            else:
                request.future.set_result((header, body))

    async def _feed(self) -> None:
        """Send what waits: first each picture that is under suspicion, alone, then the rest."""
        for request in [each for each in self._requests.values() if each.suspected]:
            await self._send(request)
            await asyncio.wait({request.future})
        self._open.set()
        for request in [each for each in self._requests.values() if not each.sent]:
            await self._send(request)

    async def _send(self, request: _Request) -> None:
        async with self._sending:
            writer = self._writer
            if writer is None or request.sent or request.future.done():
                return
            if not any(each.sent for each in self._requests.values()):
                self._heard_at = time.monotonic()  # it had nothing to say
            request.sent = True
            write_frame(writer, request.header, request.data)
            with suppress(ConnectionError):  # the reader's side sees it and starts anew
                await writer.drain()

    def _blame(self) -> None:
        """After a crash, find out who was in hand; one that was alone twice is the culprit."""
        in_hand = [each for each in self._requests.values() if each.sent and not each.future.done()]
        for request in in_hand:
            request.sent = False
            request.suspected = True
            request.crashes_alone += len(in_hand) == 1
            if request.crashes_alone == _CRASHES_ALONE:
                request.future.set_exception(
                    UndecodableImage("The picture makes the decoder crash; it is damaged.")
                )


def _error(code: str, message: str) -> DeepLensError:
    return _ERRORS.get(code, DeepLensError)(message)


def _mark_retrieved(future: asyncio.Future[None]) -> None:
    """Keep asyncio from complaining of a failure that nobody asked for; it was logged."""
    if not future.cancelled():
        future.exception()
