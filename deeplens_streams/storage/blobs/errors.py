"""What goes wrong in a backend, in this system's own words."""

import errno
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from deeplens_streams.errors import StorageFull, StorageUnavailable

#: Called with a key of several and why nothing could be done there; raises it to go no further.
OnRefusal = Callable[[str, StorageUnavailable], Awaitable[None]]

_FULL_NUMBERS = {errno.ENOSPC, errno.EDQUOT}
#: How the backends word that there is no room; the library has no class for it.
_FULL_WORDS = (
    *(f"(os error {number})" for number in _FULL_NUMBERS),
    "InsufficientStorage",
    "QuotaExceeded",
    "StorageFull",
)

#: How the HTTP client words it, many lines below the one that goes to the log.
_DISTRUST = re.compile(r"InvalidCertificate\(\s*(\w+)")
#: S3's and Azure's word for it.
_CODE = re.compile(r"<Code>(\w+)</Code>")


async def raised(_key: str, error: StorageUnavailable) -> None:
    """Go no further."""
    raise error


def means_full(error: Exception) -> bool:
    """Whether there is no room left, by the number or the words of `error`."""
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL_NUMBERS or any(words in str(error) for words in _FULL_WORDS)


def _fault(error: Exception) -> StorageFull | StorageUnavailable:
    if means_full(error):
        return StorageFull()
    distrust = _DISTRUST.search(str(error))
    if distrust:
        return StorageUnavailable(
            f"The image storage's certificate is not trusted ({distrust[1]}); "
            "correct DEEPLENS_STORAGE_CA."
        )
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        code = _CODE.search(str(error))
        said = f" ({code[1]})" if code else ""
        refusal = StorageUnavailable(
            f"The image storage refuses access{said}; correct its credentials or permissions."
        )
    else:
        refusal = StorageUnavailable()
    # One object may be archived, have a key of its own, or lie on a bad part of a disk.
    refusal.ambiguous = True
    return refusal


@contextmanager
def storage_faults(action: str) -> Iterator[None]:
    """Raise `StorageFull` or `StorageUnavailable` for what a backend raises.

    The backend's own words may hold paths and host names: they are the cause, for the log, and
    not for the client.

    Parameters
    ----------
    action : what is being done, for the log.
    """
    try:
        yield
    except (BaseError, OSError) as error:
        fault = _fault(error)
        fault.action = action
        raise fault from error
