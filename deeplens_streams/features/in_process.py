"""The model in this process: threads that decode, a batcher, and threads that infer."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from threading import Barrier, Event

import numpy as np
import numpy.typing as npt
import structlog

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError, DeepLensError, ExtractorUnavailable
from deeplens_streams.features.base import Extraction, ModelSpec
from deeplens_streams.features.batcher import Batcher
from deeplens_streams.features.child.in_flight import InFlightRegister
from deeplens_streams.features.engines import Engine, open_engine
from deeplens_streams.features.engines.threads import inference_threads
from deeplens_streams.features.weights import have_weights
from deeplens_streams.imaging.decode import Decoded, decode
from deeplens_streams.imaging.decode_memory import DecodingBudget
from deeplens_streams.imaging.preprocessing import PREPROCESSING

_DECODE_THREADS = 2
_CLOSE_TIMEOUT_S = 15.0

Pixels = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float32]

log = structlog.get_logger()


class LocalFeatures:
    """Decodes, batches and infers here; the engine is imported when `start` is called.

    The child process of `ChildFeatures` runs this. It suits a process that has nothing else
    to do: in one with a busy event loop the interpreter lock would slow both down.

    Parameters
    ----------
    board : where it is written which picture is decoded, for those that have a number.
    """

    def __init__(
        self, settings: Settings, model: ModelSpec, board: InFlightRegister | None = None
    ) -> None:
        self._settings = settings
        self._model = model
        self._board = board
        self._decoders = ThreadPoolExecutor(_DECODE_THREADS, "decode")
        # A search must not queue behind a worker's whole backlog.
        self._urgent_decoder = ThreadPoolExecutor(1, "decode-urgent")
        self._budget = DecodingBudget(settings.max_pixels)
        self._threads = inference_threads(settings)
        self._inference = ThreadPoolExecutor(self._threads, "inference")
        self._batcher: Batcher[Pixels, Vector] | None = None
        self._device = ""
        self._loading: asyncio.Task[None] | None = None
        self._closing = Event()

    @property
    def model(self) -> ModelSpec:
        return self._model

    @property
    def device(self) -> str:
        """Where the model is, ``cpu`` or ``cuda``; nothing before it is loaded."""
        return self._device

    async def start(self) -> None:
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="load the model")

    async def ready(self) -> None:
        await self.start()
        assert self._loading is not None
        await asyncio.shield(self._loading)

    async def start_threads(self) -> None:
        """Start all threads now: later there may be no memory for another one's stack."""
        loop, calls = asyncio.get_running_loop(), list[asyncio.Future[int]]()
        for pool, count in (
            (self._decoders, _DECODE_THREADS),
            (self._urgent_decoder, 1),
            (self._inference, self._threads),
        ):
            all_there = Barrier(count)
            calls += (loop.run_in_executor(pool, all_there.wait) for _ in range(count))
        await asyncio.gather(*calls)

    async def extract(
        self,
        data: bytes,
        *,
        thumbnail_px: int | None = None,
        urgent: bool = False,
        number: int = 0,
    ) -> Extraction:
        began = time.perf_counter()
        decoded = await self._decode(data, thumbnail_px, number, urgent=urgent)
        batcher = await self._loaded()
        vector = await batcher.submit(decoded.pixels, urgent=urgent)
        return Extraction(
            vector=vector,
            thumbnail=decoded.thumbnail,
            width=decoded.width,
            height=decoded.height,
            format=decoded.format,
            processing_ms=(time.perf_counter() - began) * 1000,
            preprocessing=PREPROCESSING,
        )

    async def ping(self) -> None:
        if self._closing.is_set():
            raise ExtractorUnavailable("The model is shutting down.")
        if self._loading is None or not self._loading.done():
            raise ExtractorUnavailable("The model is loading.")
        await self._loaded()

    async def close(self) -> None:
        self._closing.set()
        if self._loading is not None:
            done, _ = await asyncio.wait({self._loading}, timeout=_CLOSE_TIMEOUT_S)
            for task in done:
                task.exception()  # it was logged; nobody else may ask
        if self._batcher is not None:
            await self._batcher.close()
        for pool in (self._decoders, self._urgent_decoder, self._inference):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _decode(
        self, data: bytes, thumbnail_px: int | None, number: int, *, urgent: bool
    ) -> Decoded:
        pool = self._urgent_decoder if urgent else self._decoders
        work = partial(
            decode,
            data,
            self._model,
            max_pixels=self._settings.max_pixels,
            thumbnail_px=thumbnail_px,
            budget=self._budget,
            working=partial(self._board.working, number) if self._board and number else nullcontext,
        )
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        except RuntimeError as error:
            if self._closing.is_set():
                raise ExtractorUnavailable("The model is shutting down.") from error
            raise

    async def _loaded(self) -> Batcher[Pixels, Vector]:
        """Wait for the model; a failure to load is no fault of the picture that waits."""
        try:
            await self.ready()
        except ConfigurationError as error:
            raise ExtractorUnavailable(error.message) from error
        assert self._batcher is not None
        return self._batcher

    async def _load(self) -> None:
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            engine = await loop.run_in_executor(self._inference, self._open_engine)
        except DeepLensError as error:
            log.error("the model cannot be loaded", reason=error.message)
            raise
        except Exception as error:
            log.exception("the model cannot be loaded")
            raise ConfigurationError(f"The model cannot be loaded: {error}") from error
        self._device = engine.device
        self._batcher = Batcher(
            partial(self._infer, engine),
            size=self._settings.batch_size,
            wait_s=self._settings.batch_wait_ms / 1000,
            executor=self._inference,
            parallel=engine.parallel,
        )
        log.info(
            "the model is loaded",
            model=self._model.name,
            version=self._model.version,
            engine=engine.name,
            device=engine.device,
            precision=engine.precision,
            seconds=round(time.perf_counter() - began, 2),
        )

    def _infer(self, engine: Engine, batch: list[Pixels]) -> list[Vector]:
        try:
            return list(engine(np.stack(batch)))
        except MemoryError:
            pass
        # A picture that is decoded may have taken it: wait until there is none.
        with self._budget.hold_all():
            return list(engine(np.stack(batch)))

    def _open_engine(self) -> Engine:
        weights = have_weights(self._settings, self._model, self._report_download)
        engine = open_engine(self._settings, self._model, weights)
        engine.warm_up((1, self._settings.batch_size))
        return engine

    def _report_download(self, done: int, total: int | None) -> None:
        if self._closing.is_set():
            raise ExtractorUnavailable("The model is shutting down.")
        if done == total:
            log.info("the weights are downloaded", megabytes=round(done / 1e6))
