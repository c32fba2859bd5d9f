"""A Qdrant server's client: how it is reached, what its errors mean, conditions in its words."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from deeplens_streams.credentials import tls_context
from deeplens_streams.errors import ConfigurationError, DimensionMismatch, VectorsUnavailable
from deeplens_streams.vectors.conditions import TERMS, TIME_FIELD, Conditions
from deeplens_streams.vectors.places import TENANT_FIELD

log = structlog.get_logger()

_TIMEOUT_S = 10
_NOT_FOUND = 404
_CONFLICT = 409
_KEY = re.compile(r"[!-~]([ -~]*[!-~])?")


def connect(url: str, api_key: str | None, *, ca: Path | None = None) -> AsyncQdrantClient:
    """Return a client; it calls nothing yet.

    Parameters
    ----------
    ca : certificates to trust in place of httpx's own.

    Raises
    ------
    ConfigurationError
        The settings do not fit together, or the file cannot be used.
    """
    address = urlsplit(url)
    if "@" in address.netloc:
        raise ConfigurationError("DEEPLENS_QDRANT_URL holds a user; use DEEPLENS_QDRANT_API_KEY.")
    if ca and address.scheme != "https":
        raise ConfigurationError("DEEPLENS_QDRANT_CA is set and DEEPLENS_QDRANT_URL is not https.")
    if api_key and not _KEY.fullmatch(api_key):
        # The HTTP client would say so, too, and quote it.
        raise ConfigurationError(
            "DEEPLENS_QDRANT_API_KEY has a character that no HTTP header carries, such as a "
            "newline."
        )
    if api_key and address.scheme == "http" and not _is_loopback(address.hostname or ""):
        log.warning("the vector engine's key goes over a connection without TLS", url=url)
    with warnings.catch_warnings():
        # Said above, once and in the log.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return AsyncQdrantClient(
            url=url,
            api_key=api_key,
            timeout=_TIMEOUT_S,
            check_compatibility=False,
            verify=tls_context(ca, "DEEPLENS_QDRANT_CA") if ca else True,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Missing(VectorsUnavailable):
    """The vector engine has no such collection now; try again later."""


class Exists(VectorsUnavailable):
    """The vector engine has such a collection already; try again later."""


@contextmanager
def faults() -> Iterator[None]:
    """Raise this system's errors for the client's."""
    try:
        yield
    except UnexpectedResponse as error:
        text = error.content.decode(errors="replace")
        if error.status_code == _NOT_FOUND:
            raise Missing from error
        if error.status_code == _CONFLICT or "already exists" in text:
            raise Exists from error
        if "Vector dimension error" in text:
            raise DimensionMismatch from error
        log.warning("the vector engine failed", status=error.status_code, reason=text)
        raise VectorsUnavailable from error
    except ApiException as error:  # no connection, no answer in time
        log.warning("the vector engine does not answer", reason=str(error))
        raise VectorsUnavailable from error
    except ValueError as error:  # the client's own local mode, which the tests run on
        if str(error).endswith("not found"):
            raise Missing from error
        if str(error).endswith("already exists"):
            raise Exists from error
        raise


def to_filter(wanted: Conditions) -> models.Filter | None:
    """Return the filter, or None where everything matches."""
    must: list[models.Condition] = [
        models.FieldCondition(key=TERMS, match=models.MatchAny(any=list(terms)))
        for terms in wanted.any_of
    ]
    if wanted.tenant is not None:
        match = models.MatchValue(value=wanted.tenant)
        must.append(models.FieldCondition(key=TENANT_FIELD, match=match))
    if wanted.points is not None:
        must.append(models.HasIdCondition(has_id=list(wanted.points)))
    if wanted.uploaded_from is not None or wanted.uploaded_before is not None:
        between = models.DatetimeRange(gte=wanted.uploaded_from, lt=wanted.uploaded_before)
        must.append(models.FieldCondition(key=TIME_FIELD, range=between))
    must_not: list[models.Condition] = (
        [models.HasIdCondition(has_id=[wanted.excluded_point])] if wanted.excluded_point else []
    )
    return models.Filter(must=must, must_not=must_not) if must or must_not else None
