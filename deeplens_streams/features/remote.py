"""The model behind HTTP: extraction services that this process calls instead of loading one."""

import base64
import itertools
import time
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import orjson
import structlog

from deeplens_streams.config import Settings
from deeplens_streams.errors import (
    DeepLensError,
    ExtractorUnavailable,
    TooLarge,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
)
from deeplens_streams.features.base import Extraction, ModelSpec

_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=2)
_PING_TIMEOUT = aiohttp.ClientTimeout(total=3, sock_connect=2)
#: How long a service that failed is asked last.
_REST_S = 5.0
_OK = 200
_ERRORS: dict[str, type[DeepLensError]] = {
    each.code: each for each in (UndecodableImage, UnsupportedFormat, TooLarge, TooManyPixels)
}

log = structlog.get_logger()


class RemoteFeatures:
    """A `FeatureExtractor` that sends pictures to services in turn and passes over dead ones.

    A failed service is asked last for a while, so that it costs no time, and is used again
    when it answers. Nothing is decoded here, and torch is never imported.
    """

    def __init__(self, settings: Settings, model: ModelSpec) -> None:
        self._urls = settings.extractor_url
        self._model = model
        self._turns = itertools.count()
        self._failed_at: dict[str, float] = {}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    @property
    def model(self) -> ModelSpec:
        return self._model

    async def start(self) -> None:
        if self._session is None and not self._closed:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)

    async def ready(self) -> None:
        await self.start()

    async def extract(
        self,
        data: bytes,
        *,
        thumbnail_px: int | None = None,
        urgent: bool = False,
    ) -> Extraction:
        began = time.perf_counter()
        answer = await self._ask(data, thumbnail_px)
        took = (time.perf_counter() - began) * 1000
        return Extraction(
            vector=answer["features"],
            thumbnail=answer["thumbnail"],
            width=answer["image_width"],
            height=answer["image_height"],
            format=answer["image_format"],
            processing_ms=took,
        )

    async def ping(self) -> None:
        """One service that answers is enough."""
        last: ExtractorUnavailable | None = None
        for url in self._in_order():
            try:
                return await self._ping(url)
            except ExtractorUnavailable as error:
                last = error
        raise last or ExtractorUnavailable

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, data: bytes, thumbnail_px: int | None) -> dict[str, Any]:
        last: ExtractorUnavailable | None = None
        for url in self._in_order():
            try:
                answer = await self._post(url, data, thumbnail_px)
            except ExtractorUnavailable as error:
                if url not in self._failed_at:
                    log.warning("an extraction service fails", url=url, reason=error.message)
                self._failed_at[url] = time.monotonic()
                last = error
            else:
                self._failed_at.pop(url, None)
                return answer
        raise last or ExtractorUnavailable

    async def _post(self, url: str, data: bytes, thumbnail_px: int | None) -> dict[str, Any]:
        form = aiohttp.FormData()
        form.add_field("file", data, filename="image", content_type="application/octet-stream")
        form.add_field("image_id", "image")
        form.add_field("return_metadata", "true")
        if thumbnail_px is not None:
            form.add_field("thumbnail_px", str(thumbnail_px))
        try:
            async with self._open_session().post(f"{url}/extract-features", data=form) as response:
                return self._read(url, response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _away(url, error) from error

    def _read(self, url: str, status: int, body: bytes) -> dict[str, Any]:
        try:
            answer = orjson.loads(body)
            if status != _OK:
                raise _refusal(url, status, answer)
            self._check_model(url, answer["model_name"])
            answer["features"] = _vector(answer["features"], self._model.dimension)
            thumbnail = answer.get("thumbnail")
            answer["thumbnail"] = base64.b64decode(thumbnail, validate=True) if thumbnail else None
            return {name: answer[name] for name in _ANSWER}
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise _stranger(url, status) from error

    async def _ping(self, url: str) -> None:
        try:
            async with self._open_session().get(f"{url}/health", timeout=_PING_TIMEOUT) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _away(url, error) from error
        if response.status != _OK:
            raise _refusal(url, response.status, body)
        try:
            self._check_model(url, orjson.loads(body)["model_name"])
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise _stranger(url, response.status) from error

    def _check_model(self, url: str, name: object) -> None:
        if name != self._model.name:
            raise ExtractorUnavailable(
                f"The extraction service at {url} has the model {name}, and "
                f"{self._model.name} is configured; give both the same DEEPLENS_WEIGHTS."
            )

    def _in_order(self) -> list[str]:
        """Return the services, the next one in turn first, those that failed lately last."""
        first = next(self._turns) % len(self._urls)
        turned = self._urls[first:] + self._urls[:first]
        now = time.monotonic()
        return sorted(turned, key=lambda url: now - self._failed_at.get(url, -_REST_S) < _REST_S)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ExtractorUnavailable("The worker is shutting down; try again later.")
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        return self._session


_ANSWER = ("features", "thumbnail", "image_width", "image_height", "image_format")


def _vector(features: object, dimension: int) -> npt.NDArray[np.float32]:
    vector = np.asarray(features, np.float32)
    if vector.shape != (dimension,):
        raise ValueError(f"{vector.shape} is not ({dimension},)")
    return vector


def _refusal(url: str, status: int, answer: Any) -> DeepLensError:
    """Return our error for the service's; what is no picture's fault means that it is away."""
    if isinstance(answer, dict) and answer.get("error_code") in _ERRORS:
        return _ERRORS[answer["error_code"]](str(answer.get("detail", "")) or None)
    detail = answer.get("detail") if isinstance(answer, dict) else None
    reason = detail or f"HTTP {status}"
    return ExtractorUnavailable(f"The extraction service at {url} cannot answer now: {reason}")


def _away(url: str, error: Exception) -> ExtractorUnavailable:
    reason = str(error) or type(error).__name__
    return ExtractorUnavailable(f"The extraction service at {url} does not answer: {reason}")


def _stranger(url: str, status: int) -> ExtractorUnavailable:
    return ExtractorUnavailable(
        f"What answers at {url} is no extraction service of this version (HTTP {status})."
    )
