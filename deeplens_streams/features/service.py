"""The extraction service: the model as stateless HTTP, for workers that load none."""

import asyncio
import base64
import signal
import time
from typing import Any

import orjson
import structlog
from aiohttp import BodyPartReader, web

from deeplens_streams import __version__
from deeplens_streams.config import Settings
from deeplens_streams.errors import (
    BadRequest,
    ConfigurationError,
    DeepLensError,
    ExtractorUnavailable,
    TooLarge,
)
from deeplens_streams.features import FeatureExtractor, open_features
from deeplens_streams.features.base import Extraction, ModelSpec
from deeplens_streams.features.failures import ExtractionFailed
from deeplens_streams.logs import configure_logging

_SERVICE = "deeplens-extractor"
_FIELD_BYTES = 1000
_THUMBNAIL_PX = range(16, 2049)
_FALSE, _TRUE = {"", "false", "0", "no", "off"}, {"true", "1", "yes", "on"}
#: Client errors that are no 413 are 400 here, whatever the upload view makes of them.
_BAD_REQUEST, _TOO_LARGE, _CLIENT_ERRORS = 400, 413, range(400, 500)
_SHUTDOWN_TIMEOUT_S = 5.0

log = structlog.get_logger()


def build_app(features: FeatureExtractor, settings: Settings) -> web.Application:
    """Return the service; it starts and closes `features`."""
    handlers = _Handlers(features, settings)
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
        The address cannot be listened on, or the model can never be loaded.
    """
    configure_logging(settings)
    if settings.extractor_url:
        raise ConfigurationError(
            "DEEPLENS_EXTRACTOR_URL is set: an extraction service does not call another one."
        )
    asyncio.run(_serve(settings))


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
    def __init__(self, features: FeatureExtractor, settings: Settings) -> None:
        self._features = features
        self._limit = settings.max_upload_bytes

    async def extract(self, request: web.Request) -> web.Response:
        began = time.perf_counter()
        data, fields = await self._read_form(request)
        if not data:
            raise BadRequest("The form needs a field named file with a picture in it.")
        if "image_id" not in fields:
            raise BadRequest("The form needs a field named image_id.")
        wants_metadata = _flag(fields.get("return_metadata", ""))
        thumbnail_px = _pixels(fields.get("thumbnail_px", ""))
        found = await self._features.extract(data, thumbnail_px=thumbnail_px)
        answer = _answer(fields["image_id"], self._features.model, found)
        answer["processing_time_ms"] = round((time.perf_counter() - began) * 1000, 3)
        if wants_metadata:
            answer |= {
                "image_width": found.width,
                "image_height": found.height,
                "image_format": found.format,
            }
        if thumbnail_px is not None:
            answer["thumbnail"] = base64.b64encode(found.thumbnail or b"").decode()
        return _json(answer)

    async def health(self, _request: web.Request) -> web.Response:
        model = self._features.model
        answer = {
            "status": "healthy",
            "service": _SERVICE,
            "version": __version__,
            "model_loaded": True,
            "weights": "untrained" if model.weights is None else model.version,
            "model_name": model.name,
            "warning": model.warning,
            "detail": None,
        }
        try:
            await self._features.ping()
        except ExtractorUnavailable as error:
            answer |= {"status": "unhealthy", "model_loaded": False, "detail": error.message}
            return _json(answer, error.http_status)
        return _json(answer)

    async def _read_form(self, request: web.Request) -> tuple[bytes, dict[str, str]]:
        """Read the form as it streams in; no more than the limit is ever kept."""
        if not request.content_type.startswith("multipart/"):
            raise BadRequest("The request must be multipart/form-data.")
        data, fields = b"", dict[str, str]()
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader) or part.name is None:
                    raise BadRequest("The form is nested or has a field without a name.")
                if part.name == "file":
                    data = await self._read_part(part, self._limit)
                else:
                    value = await self._read_part(part, _FIELD_BYTES)
                    fields[part.name] = value.decode(errors="replace").strip()
        except (ValueError, AssertionError) as error:
            raise BadRequest("The multipart form is malformed.") from error
        return data, fields

    async def _read_part(self, part: BodyPartReader, limit: int) -> bytes:
        read = bytearray()
        while chunk := await part.read_chunk(1 << 16):
            read += chunk
            if len(read) > limit:
                raise TooLarge(f"The field {part.name} has more than {limit:,} bytes.")
        return bytes(read)


@web.middleware
async def _answer_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except DeepLensError as error:
        status = error.http_status
        if status in _CLIENT_ERRORS and status != _TOO_LARGE:
            status = _BAD_REQUEST
        return _json({"detail": error.message, "error_code": error.code}, status)
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
    }


def _flag(value: str) -> bool:
    if value.lower() not in _FALSE | _TRUE:
        raise BadRequest("return_metadata is true or false.")
    return value.lower() in _TRUE


def _pixels(value: str) -> int | None:
    """Return how long a thumbnail's longer side is to be, or None if none is wanted."""
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or int(value) not in _THUMBNAIL_PX:
        raise BadRequest("thumbnail_px is a whole number from 16 to 2048.")
    return int(value)


def _json(answer: dict[str, Any], status: int = 200) -> web.Response:
    body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=body, status=status, content_type="application/json")
