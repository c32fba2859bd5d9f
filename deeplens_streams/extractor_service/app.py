"""The extraction service: the model as stateless HTTP, for workers that load none."""

import asyncio
import base64
import signal
import time
from functools import partial
from typing import Any

import orjson
import structlog
from aiohttp import web

from deeplens_streams import __version__
from deeplens_streams.concurrency import ConcurrencyLimit
from deeplens_streams.config import Settings, is_loopback
from deeplens_streams.errors import (
    ConfigurationError,
    DeepLensError,
    ExtractorUnavailable,
    TooLarge,
    UnknownModel,
    UploadTooSlow,
)
from deeplens_streams.extractor_service.form import read_form
from deeplens_streams.features import FeatureExtractor, open_features
from deeplens_streams.features.base import Extraction, ModelSpec, Seed
from deeplens_streams.features.remote.errors import ExtractionFailed
from deeplens_streams.logs import configure_logging

_SERVICE = "deeplens-extractor"
#: Seconds that a form may take to come: workers are near.
_FORM_S = 60.0
#: Forms that are in memory at once, if that is not less than two batches; more wait unread.
_IN_MEMORY = 64
_RETRY_AFTER_S = 1
#: Other client errors are 400 here, whatever the upload view makes of them.
_CLIENT_ERRORS, _BAD_REQUEST = range(400, 500), 400
_TOLD_CLIENT_ERRORS = {UploadTooSlow.http_status, TooLarge.http_status}
_SHUTDOWN_TIMEOUT_S = 5.0

log = structlog.get_logger()


def build_app(
    features: FeatureExtractor, settings: Settings, *, form_s: float = _FORM_S
) -> web.Application:
    """Return the service; it starts and closes `features`.

    Parameters
    ----------
    form_s : how long a form may take to come, in seconds.
    """
    handlers = _Handlers(features, settings, form_s)
    app = web.Application(middlewares=[_answer_errors])
    app.router.add_post("/extract-features", handlers.extract)
    app.router.add_get("/health", handlers.health)

    async def own_features(_app: web.Application) -> Any:
        await features.start()
        yield
        await features.close()

    app.cleanup_ctx.append(own_features)
    return app


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises
    ------
    ConfigurationError
        The address cannot be listened on, or strangers could reach it, or the model can never be
        loaded.
    """
    check_address(settings)
    configure_logging(settings)
    if settings.extractor_url:
        raise ConfigurationError(
            "DEEPLENS_EXTRACTOR_URL is set: an extraction service does not call another one."
        )
    asyncio.run(_serve(settings))


def check_address(settings: Settings) -> None:
    """Raise `ConfigurationError` if others could reach the service and nobody said that they may.

    It asks for no keys.
    """
    host = settings.extractor_host
    if not is_loopback(host) and not settings.insecure:
        raise ConfigurationError(
            f"DEEPLENS_EXTRACTOR_HOST {host} can be reached by others, and the extraction service "
            "asks for no keys: see that only workers reach it, and say so with "
            "DEEPLENS_INSECURE=true."
        )


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    features = open_features(settings)
    runner = web.AppRunner(
        build_app(features, settings), access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S
    )
    loading = waiting = None
    try:
        await runner.setup()
        await _listen(runner, settings)
        log.info(
            "the extraction service listens",
            url=f"http://{settings.extractor_host}:{settings.extractor_port}",
            model=features.model.name,
        )
        loading, waiting = asyncio.create_task(features.ready()), asyncio.create_task(stop.wait())
        await asyncio.wait({loading, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        await waiting
    finally:
        for task in (loading, waiting):
            if task is not None:
                task.cancel()
        await runner.cleanup()


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    host, port = settings.extractor_host, settings.extractor_port
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host}:{port} ({error.strerror or error}); stop what uses it, or "
            "set DEEPLENS_EXTRACTOR_HOST and DEEPLENS_EXTRACTOR_PORT."
        ) from None


class _Handlers:
    def __init__(self, features: FeatureExtractor, settings: Settings, form_s: float) -> None:
        self._features = features
        self._limit = settings.max_upload_bytes
        self._form_s = form_s
        self._concurrency = ConcurrencyLimit(
            settings.max_uploads, partial(_busy, settings.max_uploads)
        )
        self._in_memory = asyncio.Semaphore(max(_IN_MEMORY, 2 * settings.batch_size))

    async def extract(self, request: web.Request) -> web.Response:
        with self._concurrency.acquire():
            async with self._in_memory:
                return await self._extract(request)

    async def _extract(self, request: web.Request) -> web.Response:
        began = time.perf_counter()
        form = await read_form(request, max_bytes=self._limit, within_s=self._form_s)
        model = self._features.model
        if form.model_name not in {None, model.name}:
            raise UnknownModel(
                f"There is no model {str(form.model_name)[:60]!r} here, this service has "
                f"{model.name}; leave model_name out, or call another service."
            )
        found = await self._features.extract(
            form.picture, thumbnail_px=form.thumbnail_px, urgent=form.urgent
        )
        answer = _answer(form.image_id, model, found)
        answer["processing_time_ms"] = round((time.perf_counter() - began) * 1000, 3)
        if form.wants_metadata:
            answer |= {
                "image_width": found.width,
                "image_height": found.height,
                "image_format": found.format,
            }
        if form.thumbnail_px is not None:
            answer["thumbnail"] = base64.b64encode(found.thumbnail or b"").decode()
        return _json(answer)

    async def health(self, _request: web.Request) -> web.Response:
        model = self._features.model
        answer = {
            "status": "healthy",
            "service": _SERVICE,
            "version": __version__,
            "model_loaded": True,
            "weights": "untrained" if isinstance(model.weights, Seed) else model.version,
            "model_name": model.name,
            "feature_dimension": model.dimension,
            "warning": model.warning,
            "detail": None,
        }
        try:
            await self._features.ping()
        except ExtractorUnavailable as error:
            answer |= {"status": "unhealthy", "model_loaded": False, "detail": error.message}
            return _json(answer, error.http_status)
        return _json(answer)


def _busy(most: int) -> ExtractorUnavailable:
    error = ExtractorUnavailable(
        f"The extraction service has {most} pictures in hand; try again later."
    )
    error.retry_after = _RETRY_AFTER_S
    return error


@web.middleware
async def _answer_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except DeepLensError as error:
        status = error.http_status
        if status in _CLIENT_ERRORS and status not in _TOLD_CLIENT_ERRORS:
            status = _BAD_REQUEST
        answer = _json({"detail": error.message, "error_code": error.code}, status)
        if error.retry_after is not None:
            answer.headers["Retry-After"] = str(error.retry_after)
        return answer
    except web.HTTPException as error:
        return _json({"detail": error.reason, "error_code": f"HTTP_{error.status}"}, error.status)
    except ConnectionError:
        raise  # the client went away; there is nobody to answer
    except Exception as error:
        log.exception("an extraction request failed", path=request.path)
        # What it was, so that the worker's dead letter says it, too; the trace is in this log.
        what = error if isinstance(error, ExtractionFailed) else type(error).__name__
        detail = f"Unexpected {what}; look into the log of the extraction service."
        return _json({"detail": detail, "error_code": DeepLensError.code}, 500)


def _answer(image_id: str, model: ModelSpec, found: Extraction) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "features": found.vector,
        "feature_dimension": model.dimension,
        "model_name": model.name,
        "model_version": model.version,
        "preprocessing_version": found.preprocessing,
    }


def _json(answer: dict[str, Any], status: int = 200) -> web.Response:
    body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=body, status=status, content_type="application/json")
