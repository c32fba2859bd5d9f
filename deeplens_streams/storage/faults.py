"""What goes wrong in a backend, in this system's own words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from obstore.exceptions import BaseError

from deeplens_streams.errors import DeepLensError, StorageFull, StorageUnavailable

log = structlog.get_logger()

_FULL_NUMBERS = {errno.ENOSPC, errno.EDQUOT}
_FULL_WORDS = (
    *(f"(os error {number})" for number in _FULL_NUMBERS),
    "InsufficientStorage",
    "QuotaExceeded",
    "StorageFull",
)
"""How the backends word that there is no room; the library has no class for it."""


def means_full(error: Exception) -> bool:
    """Whether there is no room left, by the number or the words of `error`."""
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL_NUMBERS or any(words in str(error) for words in _FULL_WORDS)


@contextmanager
def storage_faults(action: str) -> Iterator[None]:
    """Raise `StorageFull` or `StorageUnavailable` for what a backend raises.

    The backend's own words may hold paths and host names: they go to the log, not to the client.

    Parameters
    ----------
    action : what is being done, for the log.
    """
    try:
        yield
    except (BaseError, OSError) as error:
        reason = str(error).partition("\n")[0]
        full = means_full(error)
        log.warning("image storage failed", action=action, reason=reason, full=full)
        fault: DeepLensError = StorageFull() if full else StorageUnavailable()
        raise fault from error
