"""A Qdrant server's client: how it is reached, what its errors mean, conditions in its words."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import structlog
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from deeplens_streams.config import is_loopback
from deeplens_streams.credentials import tls_context
from deeplens_streams.errors import (
    ConfigurationError,
    DeepLensError,
    DimensionMismatch,
    VectorsRefused,
    VectorsUnavailable,
)
from deeplens_streams.vectors.collection_ref import TENANT_FIELD
from deeplens_streams.vectors.filters import FILE_NAME, TERMS, TIME_FIELD, Conditions

log = structlog.get_logger()

_TIMEOUT_S = 10
_NOT_FOUND = 404
_CONFLICT = 409
_NO_ACCESS = {401, 403}
_LATER = {408, 429}
#: Characters of the engine's own words that an error has, at the most.
_REASON = 300
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
    if api_key and address.scheme == "http" and not is_loopback(address.hostname or ""):
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


class CollectionMissing(VectorsUnavailable):
    """The vector engine has no such collection now; try again later."""


class CollectionExists(VectorsUnavailable):
    """The vector engine has such a collection already; try again later."""


@contextmanager
def faults() -> Iterator[None]:
    """Raise this system's errors for the client's.

    Nothing is logged here: what is away is its breaker's to tell, once, with the cause.
    """
    try:
        yield
    except UnexpectedResponse as error:
        said = _words(error.content)
        cause = said or error.content.decode(errors="replace").partition("\n")[0]
        raise _fault(error.status_code or 0, said) from RuntimeError(
            f"HTTP {error.status_code}: {cause}"
        )
    except ResponseHandlingException as error:  # no connection, no answer in time
        # A timeout says nothing but its name.
        reason = str(error) or type(error.source).__name__
        raise VectorsUnavailable from RuntimeError(reason)
    except QdrantException as error:
        later = VectorsUnavailable()
        if isinstance(error, ResourceExhaustedResponse):
            later.retry_after = max(1, error.retry_after_s)
        raise later from error
    except ValueError as error:  # the client's own local mode, which the tests run on
        if str(error).endswith("not found"):
            raise CollectionMissing from error
        if str(error).endswith("already exists"):
            raise CollectionExists from error
        raise


def _fault(status: int, said: str | None) -> DeepLensError:
    """Return what an answer means; `said` is what the engine itself says, if it was that."""
    if status == _NOT_FOUND:
        return CollectionMissing()
    if status == _CONFLICT or "already exists" in (said or ""):
        return CollectionExists()
    if status in _NO_ACCESS:
        return VectorsUnavailable(
            f"The vector engine refuses access ({status}); correct DEEPLENS_QDRANT_API_KEY, or "
            "what the key may do."
        )
    if "Vector dimension error" in (said or ""):
        return DimensionMismatch()
    if said and 400 <= status < 500 and status not in _LATER:  # noqa: PLR2004 -- a class of codes
        return VectorsRefused(f"The vector engine refuses this: {said[:_REASON]}")
    unavailable = VectorsUnavailable()
    unavailable.ambiguous = said is not None  # one collection may be damaged
    return unavailable


def _words(content: bytes) -> str | None:
    """Return an answer's error in the engine's own words, or None if others have answered."""
    try:
        said = orjson.loads(content)["status"]["error"]
    except (ValueError, TypeError, KeyError):
        return None
    return said if isinstance(said, str) else None


def to_filter(wanted: Conditions) -> models.Filter | None:
    """Return the filter, or None where everything matches."""
    must: list[models.Condition] = [
        models.FieldCondition(key=TERMS, match=models.MatchAny(any=list(terms)))
        for terms in wanted.any_of
    ]
    if wanted.file_names is not None:
        named = models.MatchAny(any=list(wanted.file_names))
        must.append(models.FieldCondition(key=FILE_NAME, match=named))
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
