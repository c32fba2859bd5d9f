"""The model behind HTTP: extraction services that this process calls instead of loading one."""

import base64
import time
from functools import partial
from http import HTTPStatus
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import orjson

from deeplens_streams.config import Settings
from deeplens_streams.errors import ExtractorUnavailable
from deeplens_streams.features.base import Extraction, ModelSpec
from deeplens_streams.features.remote.balancer import LoadBalancer, NoAnswer, no_answer
from deeplens_streams.features.remote.errors import PICTURE_ERRORS, ExtractionFailed

#: Longer than a service takes to find out that a picture makes its decoder hang. A service that
#: is gone is noticed much sooner.
TIMEOUT_S = 420.0
_CONNECT_S, _PING_S = 2.0, 3.0
_LOOK_S = 2.0
_REST_S = 1.0
#: A proxy's too. Whatever else comes as an error is about the one picture.
_AWAY = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
#: Whoever answers so is no extraction service, or not at this address.
_STRANGER = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
}
_DETAIL = 1_000


class RemoteFeatures:
    """A `FeatureExtractor` that shares pictures out to services and passes over dead ones.

    Nothing is decoded here, and torch is never imported.

    Parameters
    ----------
    timeout_s : how long one service may have a picture, as long as it answers pings.
    ping_s : how long it may take to answer one.
    look_s, rest_s : as for `LoadBalancer`.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelSpec,
        *,
        timeout_s: float = TIMEOUT_S,
        ping_s: float = _PING_S,
        look_s: float = _LOOK_S,
        rest_s: float = _REST_S,
    ) -> None:
        self._model = model
        self._ping_timeout = aiohttp.ClientTimeout(total=ping_s)
        self._services = LoadBalancer(
            settings.extractor_url, self._ping, timeout_s=timeout_s, look_s=look_s, rest_s=rest_s
        )
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    @property
    def model(self) -> ModelSpec:
        return self._model

    async def start(self) -> None:
        if self._session is None and not self._closed:
            self._session = aiohttp.ClientSession(
                # No limit: a ping would wait behind the requests that it is to find out about.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(connect=_CONNECT_S),
            )

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
        await self._open_session()
        answer = await self._services.ask(partial(self._post, data, thumbnail_px, urgent=urgent))
        took = (time.perf_counter() - began) * 1000
        return Extraction(
            vector=answer["features"],
            thumbnail=answer["thumbnail"],
            width=answer["image_width"],
            height=answer["image_height"],
            format=answer["image_format"],
            processing_ms=took,
            preprocessing=answer[_PREPROCESSING],
        )

    async def ping(self) -> None:
        """One service that answers is enough."""
        await self._open_session()
        await self._services.ping()

    async def close(self) -> None:
        self._closed = True
        await self._services.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(
        self, data: bytes, thumbnail_px: int | None, url: str, *, urgent: bool
    ) -> dict[str, Any]:
        session = await self._open_session()
        form = aiohttp.FormData()
        form.add_field("file", data, filename="image", content_type="application/octet-stream")
        form.add_field("image_id", "image")
        form.add_field("return_metadata", "true")
        if thumbnail_px is not None:
            form.add_field("thumbnail_px", str(thumbnail_px))
        if urgent:
            form.add_field("urgent", "true")
        try:
            async with session.post(f"{url}/extract-features", data=form) as response:
                return self._read(url, response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _away(url, error) from error

    def _read(self, url: str, status: int, body: bytes) -> dict[str, Any]:
        if status != HTTPStatus.OK:
            raise _refusal(url, status, body)
        try:
            answer = orjson.loads(body)
            self._check_model(url, answer["model_name"])
            answer["features"] = _vector(answer["features"], self._model.dimension)
            thumbnail = answer.get("thumbnail")
            answer["thumbnail"] = base64.b64decode(thumbnail, validate=True) if thumbnail else None
            answer[_PREPROCESSING] = _whole_number(answer.get(_PREPROCESSING))
            return {name: answer[name] for name in _ANSWER}
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise _stranger(url, status) from error

    async def _ping(self, url: str) -> None:
        session = await self._open_session()
        try:
            async with session.get(f"{url}/health", timeout=self._ping_timeout) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _away(url, error) from error
        if response.status != HTTPStatus.OK:
            raise _cannot(url, response.status, _told(body))
        try:
            self._check_model(url, orjson.loads(body)["model_name"])
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise _stranger(url, response.status) from error

    def _check_model(self, url: str, name: object) -> None:
        if name != self._model.name:
            raise ExtractorUnavailable(
                f"The extraction service at {url} has the model {name}, and "
                f"{self._model.name} is configured; give both the same DEEPLENS_MODEL."
            )

    async def _open_session(self) -> aiohttp.ClientSession:
        await self.start()
        if self._session is None:
            raise ExtractorUnavailable("The worker is shutting down; try again later.")
        return self._session


_PREPROCESSING = "preprocessing_version"
_ANSWER = (
    "features",
    "thumbnail",
    "image_width",
    "image_height",
    "image_format",
    _PREPROCESSING,
)


def _whole_number(value: object) -> int | None:
    """Return a number of the answer's; a service of an older version has none."""
    return value if isinstance(value, int) else None


def _vector(features: object, dimension: int) -> npt.NDArray[np.float32]:
    vector = np.asarray(features, np.float32)
    if vector.shape != (dimension,):
        raise ValueError(f"{vector.shape} is not ({dimension},)")
    return vector


def _refusal(url: str, status: int, body: bytes) -> Exception:
    """Return our error for the service's: the picture's, the service's, or of this one attempt."""
    answer = _told(body)
    if (known := PICTURE_ERRORS.get(str(answer.get("error_code")))) is not None:
        return known(str(answer.get("detail") or "") or None)
    if status in _AWAY:
        return _cannot(url, status, answer)
    if status < HTTPStatus.BAD_REQUEST or status in _STRANGER:
        return _stranger(url, status)
    detail = str(answer.get("detail") or "no reason is given")[:_DETAIL]
    return ExtractionFailed(f"The extraction service at {url} answered HTTP {status}: {detail}")


def _told(body: bytes) -> dict[str, Any]:
    """Return what is in the answer of an error, if that is one of a service's."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _cannot(url: str, status: int, answer: dict[str, Any]) -> ExtractorUnavailable:
    reason = str(answer.get("detail") or f"HTTP {status}")[:_DETAIL]
    return ExtractorUnavailable(f"The extraction service at {url} cannot answer now: {reason}")


def _away(url: str, error: Exception) -> NoAnswer:
    return no_answer(url, str(error) or type(error).__name__)


def _stranger(url: str, status: int) -> ExtractorUnavailable:
    return ExtractorUnavailable(
        f"What answers at {url} is no extraction service of this version (HTTP {status})."
    )
