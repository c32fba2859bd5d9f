"""What goes wrong in a backend, in this system's own words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from obstore.exceptions import BaseError

from deeplens_streams.errors import DeepLensError, StorageFull, StorageUnavailable

log = structlog.get_logger()

_FULL = (
    f"(os error {errno.ENOSPC})",
    f"(os error {errno.EDQUOT})",
    "InsufficientStorage",
    "QuotaExceeded",
    "StorageFull",
)
"""How the backends word that there is no room; the library has no class for it."""


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
        full = any(words in str(error) for words in _FULL)
        log.warning("image storage failed", action=action, reason=reason, full=full)
        fault: DeepLensError = StorageFull() if full else StorageUnavailable()
        raise fault from error
