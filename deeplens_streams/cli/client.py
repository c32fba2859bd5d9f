"""The system's HTTP interface, as the commands use it."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from deeplens_streams.errors import DeepLensError, DependencyUnavailable, ImageNotFound

Json = dict[str, Any]

FINAL_STATES = frozenset({"completed", "partial", "failed", "deleted"})
_POLL_S = 0.25
#: Answers that say "not now", and for how long a client believes them.
_BUSY = frozenset({429, 503})
_ATTEMPTS = 6
_LONGEST_WAIT_S = 30.0


class NotReachable(DependencyUnavailable):
    """The system does not answer."""

    code = "NOT_REACHABLE"


class NotReady(NotReachable):
    """The system answers that it cannot do this now."""

    code = "NOT_READY"


class Refused(DeepLensError):
    """The system refused the request; the message is its own."""

    def __init__(self, message: str, *, status: int, error_code: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code


class Api:
    """One system at one URL. Safe to use from several threads.

    Parameters
    ----------
    pause : waits that many seconds; called between attempts.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 60.0, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.url = url.rstrip("/")
        self._pause = pause
        try:
            self._http = httpx.Client(
                base_url=self.url, timeout=httpx.Timeout(timeout_s, connect=5.0)
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise DeepLensError(f"{url} is no URL: {error}.") from None

    def upload(self, path: Path, *, tenant: str, fields: Mapping[str, str] | None = None) -> Json:
        """Upload one picture and return the answer; a system that is busy or away for a
        moment is asked again, some times. Bytes that it already has are not stored twice.
        """
        data = {"tenantId": tenant, **(fields or {})}
        for attempt in range(1, _ATTEMPTS):
            wait = 2.0 ** (attempt - 1)
            try:
                answer = self._upload_once(path, data)
                if answer.status_code not in _BUSY:
                    return _checked(answer)
                wait = _retry_after(answer, default=wait)
            except NotReachable:
                pass
            self._pause(wait)
        return _checked(self._upload_once(path, data))

    def _upload_once(self, path: Path, data: Mapping[str, str]) -> httpx.Response:
        with path.open("rb") as file:
            return self._send(
                "POST", "/api/v1/images/upload", data=data, files={"file": (path.name, file)}
            )

    def status(self, image_id: str) -> Json:
        return _checked(self._send("GET", f"/api/v1/images/{image_id}/status"))

    def follow(self, image_id: str) -> Iterator[Json]:
        """Return the status at once and after every change, up to the last one.

        The system tells the changes; where it cannot, it is asked for them.
        """
        from deeplens_streams.cli.hub import changes  # noqa: PLC0415 - the others start faster

        last = None
        for status in chain(
            [self.status(image_id)], changes(self.url, image_id), self._ask(image_id)
        ):
            seen = {k: v for k, v in status.items() if k != "estimatedTimeRemainingSeconds"}
            if seen != last:
                yield status
                last = seen
            if status["status"] in FINAL_STATES:
                return

    def _ask(self, image_id: str) -> Iterator[Json]:
        while True:
            yield self.status(image_id)
            self._pause(_POLL_S)

    def search(self, query: Path | bytes | str, *, tenant: str, **fields: object) -> Json:
        """Search by a picture (a path or its bytes) or by an image ID."""
        data = {"tenantId": tenant}
        data |= {name: str(value) for name, value in fields.items() if value is not None}
        files: dict[str, Any] = {}
        if isinstance(query, str):
            data["imageId"] = query
        elif isinstance(query, bytes):
            files["queryImage"] = ("query.jpg", query)
        else:
            files["queryImage"] = (query.name, query.read_bytes())
        # A part without a file name is a plain field; the interface takes multipart only.
        files |= {name: (None, value) for name, value in data.items()}
        return _checked(self._send("POST", "/api/v1/images/search", files=files))

    def is_ready(self) -> bool:
        """Tell whether every dependency is there; False also where nothing answers."""
        return self.readiness()[0]

    def readiness(self) -> tuple[bool, Json | None]:
        """Return whether all is ready, and the checks, or None where nothing answers."""
        try:
            answer = self._http.get("/health/ready", timeout=5.0)
            return answer.status_code == httpx.codes.OK, answer.json()
        except (httpx.HTTPError, ValueError):
            return False, None

    def require(self) -> None:
        """Raise `NotReachable` if nothing answers; whether it is ready does not matter."""
        self._send("GET", "/health/live")

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **kwargs)
        except httpx.UnsupportedProtocol:
            raise DeepLensError(
                f"{self.url} is no URL; it begins with http:// or https://."
            ) from None
        except httpx.TimeoutException:
            raise NotReachable(f"{self.url} does not answer in time.") from None
        except httpx.HTTPError as error:
            raise NotReachable(
                f"Nothing answers at {self.url} ({_reason(error)}); start it with deeplens up, "
                "or name another with --url."
            ) from None


def _reason(error: Exception) -> str:
    """Return what the system says of a failed connection, without its numbers."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)).lower() or type(error).__name__


def _checked(answer: httpx.Response) -> Json:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise NotReachable(
            f"{answer.url} answered {answer.status_code} and not as DeepLens does; check --url."
        )
    if answer.is_success:
        return body
    message = str(body.get("message") or f"The system answered {answer.status_code}.")
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise ImageNotFound(message)
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise NotReady(message)
    raise Refused(
        message, status=answer.status_code, error_code=str(body.get("errorCode") or "UNKNOWN")
    )


def _retry_after(answer: httpx.Response, *, default: float) -> float:
    """Return how many seconds the answer asks to wait, within reason."""
    try:
        wait = float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        wait = default
    return min(max(wait, 0.1), _LONGEST_WAIT_S)
