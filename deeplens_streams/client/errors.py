"""What a call of the client may end in."""

from collections.abc import Mapping
from typing import Any

from deeplens_streams.errors import DeepLensError, DependencyUnavailable


class NotReachable(DependencyUnavailable):
    """The system does not answer."""

    code = "NOT_REACHABLE"


class Refused(DeepLensError):
    """The system refused the request; the message is its own.

    Attributes
    ----------
    status : of HTTP.
    error_code : the system's own, such as ``IMAGE_NOT_FOUND``.
    raw : the endpoint's own object.
    retry_after : seconds after which the same request may succeed; None where nobody said.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        error_code: str,
        raw: Mapping[str, Any],
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.raw = raw
        self.status = status
        self.error_code = error_code
        self.retry_after = retry_after


class Missing(Refused):
    """There is no such image, letter, tenant or address."""


class NotReady(Refused, NotReachable):
    """The system answers that it cannot do this now."""

    code = "NOT_READY"


def refusal(status: int, body: Mapping[str, Any], *, retry_after: int | None = None) -> Refused:
    """Return the error that an answer's object stands for."""
    kind: type[Refused] = {404: Missing, 503: NotReady}.get(status, Refused)
    return kind(
        str(body.get("message") or f"The system answered {status}."),
        status=status,
        error_code=str(body.get("errorCode") or "UNKNOWN"),
        raw=body,
        retry_after=retry_after,
    )
