"""What becomes of an error that one item brings about: a finding, and the audit goes on."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from deeplens_streams.audit.report import Finding
from deeplens_streams.errors import DeepLensError, DependencyUnavailable
from deeplens_streams.services import Services
from models.audit import Fault

log = structlog.get_logger()

T = TypeVar("T")


async def judged(
    key: str,
    image_id: str,
    work: Awaitable[list[Finding]],
    services: Services,
    *,
    failed: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """Return what `work` finds of one item; if it cannot tell, that is what is found.

    Parameters
    ----------
    key : names the item.
    failed : called where it could not tell.

    Raises
    ------
    DependencyUnavailable
        It is no fault of the item's.
    """
    try:
        return await work
    except Exception as error:
        reason = await reason_of(error, services, key=key)
        failed()
        return [Finding(image_id, Fault.UNREADABLE, f"{key}: {reason}")]


async def unless_damaged(work: Awaitable[T], instead: T, services: Services, *, key: str) -> T:
    """Return what `work` tells, or `instead` where it cannot tell for one item's fault.

    For what is found out about by others, too, who say so.

    Raises
    ------
    DependencyUnavailable
        It is no fault of the item's.
    """
    try:
        return await work
    except Exception as error:
        await reason_of(error, services, key=key)
        return instead


async def reason_of(error: Exception, services: Services, *, key: str) -> str:
    """Return what an error says of the item that brought it about.

    Raises
    ------
    DependencyUnavailable
        It is no fault of the item's: what it needs is away.
    """
    if isinstance(error, DependencyUnavailable):
        if not error.ambiguous or not await _answers(error, services):
            raise error
        return error.message
    if isinstance(error, DeepLensError):
        return error.message
    log.error("an audit met what nobody foresaw", key=key, exc_info=error)
    return f"unexpected {type(error).__name__}; see the worker's log"


async def _answers(error: DependencyUnavailable, services: Services) -> bool:
    """Tell whether the part that failed for one item answers others."""
    try:
        if error.dependency == "storage":
            await services.storage.ping()
        elif error.dependency == "vectors" and services.vectors is not None:
            await services.vectors.ping()
        else:
            return False
    except DependencyUnavailable:
        return False
    return True
