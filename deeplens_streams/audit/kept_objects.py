"""Objects that each say whose image they are of, looked at a page at a time."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.guard import judged
from deeplens_streams.audit.report import Finding, Ledger, pages_of
from deeplens_streams.audit.sightings import COLLECTED, Part, Sighting

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """Where an object lies, and what it says."""

    key: str
    said: T


async def walk_kept(
    folder: str,
    tenant: str,
    context: AuditContext,
    ledger: Ledger,
    *,
    parts: Callable[[str, list[str], list[Finding]], AsyncGenerator[Part[Kept[T]]]],
    judge: Callable[[str, Part[Kept[T]], Sighting], Awaitable[list[Finding]]],
) -> AsyncGenerator[Finding]:
    """Yield what is wrong with the objects of a folder.

    Parameters
    ----------
    parts : reads the objects at some of a tenant's keys; what is wrong with those that cannot be
        read goes into the list.
    judge : says what is wrong with one whose image is not there.
    """
    async with aclosing(pages_of(context.services.inventory.keys(folder), COLLECTED)) as pages:
        async for page in pages:
            ledger.checked += len(page)
            told = list[Finding]()
            read = parts(tenant, page, told)
            async with aclosing(context.sightings.unseen(tenant, read)) as unseen:
                async for part, sighting in unseen:
                    work = judge(tenant, part, sighting)
                    told += await judged(part.item.key, part.image_id, work, context.services)
            for found in told:
                yield found
