"""The model in a process of its own, for workers.

A picture with which a decoder crashes, hangs or takes all memory takes no worker with it, and the
whole of decoding and inference has a lower priority than what people wait for. Nor does a forward
pass in torch, which is hundreds of short calls that each take the interpreter's lock, slow the
worker's event loop down; OpenVINO's is one call. An engine is imported beside the worker's start.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import ExitStack, suppress

import numpy as np
import structlog

from deeplens_streams.config import Settings
from deeplens_streams.errors import (
    ConfigurationError,
    DeepLensError,
    ExtractorUnavailable,
    WeightsUnavailable,
)
from deeplens_streams.features.base import Extraction, ModelSpec
from deeplens_streams.features.child.heartbeat import Heartbeat
from deeplens_streams.features.child.in_flight import InFlightRegister, shared_memory
from deeplens_streams.features.child.ipc import Header, read_frame, write_frame
from deeplens_streams.features.child.native_output import relay
from deeplens_streams.features.child.requests import PendingRequests, Request
from deeplens_streams.host.cgroup_memory import OUT_OF_MEMORY
from deeplens_streams.imaging.preprocessing import PREPROCESSING

_SETTINGS = {
    *("model", "models_dir", "weights", "engine", "precision", "device", "batch_size"),
    *("batch_wait_ms", "threads", "max_pixels", "log_format"),
}
_LOAD_ERRORS: dict[str, type[DeepLensError]] = {
    each.code: each for each in (ConfigurationError, ExtractorUnavailable, WeightsUnavailable)
}
_PROGRAM = "deeplens_streams.features.child.main"
_FIRST_STARTS = 3
#: Seconds of decoding are minutes where others take the processor: the process has a low priority.
#: A client of the extraction service has to wait for more than twice as long, and two restarts.
DECODE_S = 60.0
#: Longer than one picture and its batch take, whatever is the matter with the picture.
_SILENCE_S = 120.0
_LOOK_S = 1.0
#: Of a ping: beside idleness, and beside work.
_ANSWER_S, _BUSY_ANSWER_S = 3.0, 15.0
_RESTART_WAIT_S = 0.5
_EXIT_TIMEOUT_S = 3.0

log = structlog.get_logger()


class ChildFeatures:
    """A `FeatureExtractor` that hands pictures to a child process and restarts it if it dies.

    After a crash, the pictures that were in hand are tried again one at a time. The process is
    ended when one picture is decoded for too long, whatever becomes of the others, when it
    answers nothing while it has work, or no ping. With which alone it crashes twice, or which
    hangs twice, is undecodable, now and when it is sent again; no other is lost.

    Parameters
    ----------
    decode_s : how long one picture may be decoded.
    silence_s : how long a process that has work may answer nothing, and any process no ping.
    look_s : how often that is looked at, and the process pinged.
    answer_s, busy_answer_s : how long a ping may take before the model counts as away, of a
        process without work and of one that has some.
    program : the module that the child runs.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelSpec,
        *,
        decode_s: float = DECODE_S,
        silence_s: float = _SILENCE_S,
        look_s: float = _LOOK_S,
        answer_s: float = _ANSWER_S,
        busy_answer_s: float = _BUSY_ANSWER_S,
        program: str = _PROGRAM,
    ) -> None:
        self._settings = settings
        self._model = model
        self._decode_s, self._silence_s, self._look_s = decode_s, silence_s, look_s
        self._program = program
        self._heartbeat = Heartbeat(look_s=look_s, idle_s=answer_s, busy_s=busy_answer_s)
        self._pending = PendingRequests()
        self._writer: asyncio.StreamWriter | None = None
        self._sending = asyncio.Lock()
        self._open = asyncio.Event()
        self._ready: asyncio.Future[None] | None = None
        self._up = False
        self._keeper: asyncio.Task[None] | None = None
        self._process: Process | None = None
        #: Looks since the last answer.
        self._quiet = 0
        #: Numbers of pictures: what the process was ended for, and what it was decoding then.
        self._hung: set[int] = set()
        self._decoding: set[int] = set()
        self._out_of_memory = False
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
        digest = await self._pending.check(data)
        self._check_usable()
        request = self._pending.add({"thumbnail_px": thumbnail_px, "urgent": urgent}, data, digest)
        try:
            if self._open.is_set():
                await self._send(request)
            answer, body = await asyncio.shield(request.answer)
        finally:
            self._pending.leave(request)
        size = self._model.dimension * np.dtype(np.float32).itemsize
        return Extraction(
            vector=np.frombuffer(body, np.float32, self._model.dimension),
            thumbnail=body[size:] or None,
            width=answer["width"],
            height=answer["height"],
            format=answer["format"],
            processing_ms=(time.perf_counter() - began) * 1000,
            preprocessing=PREPROCESSING,
        )

    async def ping(self) -> None:
        self._check_usable()
        if not self._up:
            raise ExtractorUnavailable("The model is loading.")
        self._heartbeat.check(is_busy=bool(self._pending.in_hand()))

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
        self._pending.fail_all(error.message)

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
            self._pending.process_ended(
                hung=self._hung, decoding=self._decoding, out_of_memory=self._out_of_memory
            )
            await asyncio.sleep(wait)
            wait *= 2

    async def _run_once(self) -> str:
        """Start a process, serve until it ends, and say how it ended."""
        ours, theirs = socket.socketpair()
        with (
            ExitStack() as unless_started,
            theirs,
            shared_memory() as memory,
            os.fdopen(os.dup(2), "wb", 0) as log_file,
        ):
            unless_started.enter_context(ours)
            board = InFlightRegister(memory.fileno())
            inherited = theirs.fileno(), memory.fileno(), log_file.fileno()
            # Before there is a process: one that is there is waited for below, come what may.
            reader, writer = await asyncio.open_connection(sock=ours)
            unless_started.callback(writer.close)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._program, *map(str, inherited)),
                pass_fds=inherited,
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=PIPE,
            )
            unless_started.pop_all()
        assert self._process.stderr is not None
        printed = asyncio.create_task(relay(self._process.stderr))
        self._hung = set()
        self._heartbeat.restart()
        tasks = [asyncio.create_task(self._watch(self._process, board))]
        try:
            # By name: the child is not to choose again.
            settings = self._settings.model_copy(update={"model": self._model.name})
            write_frame(writer, settings.model_dump(mode="json", include=_SETTINGS))
            self._writer = writer
            while (frame := await read_frame(reader)) is not None:
                self._take(*frame)
                if "ready" in frame[0]:
                    # Not before: nobody is to be blamed for a process that cannot load.
                    tasks.append(asyncio.create_task(self._feed()))
        finally:
            self._up = False
            self._open.clear()
            self._writer = None
            for task in tasks:
                task.cancel()
            writer.close()
            status = await asyncio.shield(self._end(self._process))
            await asyncio.wait({printed}, timeout=_EXIT_TIMEOUT_S)
            printed.cancel()
            self._decoding = board.read()
            self._out_of_memory = self._process.returncode == OUT_OF_MEMORY
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

    async def _watch(self, process: Process, board: InFlightRegister) -> None:
        """End a process that decodes one picture for too long, or answers nothing for too long.

        Time is counted in looks: while the whole machine stands still, there are none.
        """
        looks: dict[int, int] = {}
        self._quiet = 0
        while True:
            await asyncio.sleep(self._look_s)
            looks = {number: looks.get(number, 0) + 1 for number in board.read()}
            hung = {each for each, seen in looks.items() if seen * self._look_s > self._decode_s}
            self._quiet += 1
            if not self._pending.in_hand():
                self._quiet = 0
            self._ask()
            silent_s = max(self._quiet * self._look_s, self._heartbeat.silent_s)
            if hung or silent_s > self._silence_s:
                log.error("the model's process hangs; it is ended", pid=process.pid)
                self._hung = hung
                with suppress(ProcessLookupError):
                    process.kill()
                return

    def _ask(self) -> None:
        """Ping a process that has loaded: importing and loading may hold the interpreter."""
        if self._up and self._writer is not None:
            number = self._heartbeat.look()
            if number is not None:
                write_frame(self._writer, {"ping": number})

    def _take(self, header: Header, body: bytes) -> None:
        if "ready" in header:
            self._up = True
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif "pong" in header:
            self._heartbeat.answered(header["pong"])
        elif "failed" in header:
            raise _LOAD_ERRORS.get(header["failed"], DeepLensError)(header["message"])
        else:
            self._quiet = 0
            self._pending.answered(header, body)

    async def _feed(self) -> None:
        """Send what waits: first each picture that is under suspicion, alone, then the rest."""
        for request in [each for each in self._pending.waiting() if each.suspicion]:
            await self._send(request)
            await asyncio.wait({request.answer})
        self._open.set()
        for request in self._pending.waiting():
            await self._send(request)

    async def _send(self, request: Request) -> None:
        async with self._sending:
            writer = self._writer
            if writer is None or request.sent or request.answer.done():
                return
            request.sent = True
            write_frame(writer, request.header, request.data)
            with suppress(ConnectionError):  # the reader's side sees it and starts anew
                await writer.drain()


def _mark_retrieved(future: asyncio.Future[None]) -> None:
    """Keep asyncio from complaining of a failure that nobody asked for; it was logged."""
    if not future.cancelled():
        future.exception()
