"""The registry of tenants as each api process has it: all of it, in memory.

Changes go to Kafka and come back as rows: who asked for one waits until a row says what became
of it, so that whoever has the tenant's row is the only one who decides.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection

import structlog

from deeplens_streams.broker.faust_transport import TAKEN_OVER_S
from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.broker.topology import TENANT_CHANGES
from deeplens_streams.errors import (
    DeepLensError,
    RegistryUnavailable,
    TenantDeleting,
    TenantNotFound,
)
from models.events import utc_now
from models.tenants import (
    SYSTEM,
    ApiKey,
    ChangeKind,
    Tenant,
    TenantChange,
    TenantChangeData,
    TenantState,
)

log = structlog.get_logger()

#: Seconds that a change may take until a row shows it, because who has the row may have been
#: killed; and those that a start waits for all rows. Clients and proxies have to wait longer.
PATIENCE_S = TAKEN_OVER_S


def change_of(tenant: str, data: TenantChangeData) -> TenantChange:
    return TenantChange.new(tenant, data)


@contextlib.asynccontextmanager
async def patience() -> AsyncGenerator[None]:
    """Wait no longer than a change may take.

    Raises
    ------
    RegistryUnavailable
        What is done within takes longer.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield
    except TimeoutError:
        raise RegistryUnavailable from None


class Registry:
    """Rows by tenant, keys by ID, and who waits for what; fed by `replace` and `take`.

    Parameters
    ----------
    is_open : whether a tenant that nobody made exists from its first use: keys are off.
    """

    def __init__(self, publish: Publish, *, is_open: bool = True) -> None:
        self._publish, self.is_open = publish, is_open
        self._rows: dict[str, Tenant] = {}
        self._keys: dict[str, tuple[str, ApiKey]] = {}
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._listeners: list[Callable[[Tenant], None]] = []
        self._used: dict[str, dict[str, str]] = defaultdict(dict)
        self._whole = asyncio.Event()
        self._current = False
        self._provisional: set[str] = set()

    @property
    def is_whole(self) -> bool:
        """Whether every row was read."""
        return self._whole.is_set()

    @property
    def is_current(self) -> bool:
        """Whether every row was read, and each change of one is."""
        return self._current

    @property
    def provisional(self) -> frozenset[str]:
        """Tenants whose rows are from storage, because Kafka has none."""
        return frozenset(self._provisional)

    def note_lost(self) -> None:
        """Note that changes are not read until all rows are read again."""
        self._current = False

    async def ready(self) -> None:
        """Return when every row was read.

        Raises
        ------
        RegistryUnavailable
            It takes too long.
        """
        if not self.is_whole:
            async with patience():
                await self._whole.wait()

    def find(self, tenant: str) -> Tenant | None:
        return self._rows.get(tenant)

    def has(self, tenant: str, since: str | None) -> bool:
        """Tell whether the tenant is there, and was at `since` (ISO-8601 UTC).

        False also where nobody can tell, which is no more than a reason to look elsewhere.
        """
        row = self._rows.get(tenant)
        if row is None or not self._current or row.state == TenantState.DELETING:
            return False
        return since is not None and (row.purgedAt is None or since > row.purgedAt)

    def require(self, tenant: str, *, before: Tenant | None = None) -> Tenant | None:
        """Return the row of a tenant for which something may be stored.

        None is for one that begins to exist with its first use.

        Parameters
        ----------
        before : what was returned when the work began, which may have been long ago.

        Raises
        ------
        TenantDeleting
            It is being removed, or it was since.
        TenantNotFound
            Keys are on, and there is none.
        """
        row = self._rows.get(tenant)
        if row is None and before is None and not self.is_open:
            raise TenantNotFound
        is_another = before is not None and (row is None or row.createdAt != before.createdAt)
        if is_another or (row is not None and row.state == TenantState.DELETING):
            raise TenantDeleting
        return row

    def rows(self) -> list[Tenant]:
        """Return every row, the system's among them."""
        return list(self._rows.values())

    def tenants(self) -> list[Tenant]:
        """Return every tenant, by ID."""
        return [self._rows[name] for name in sorted(self._rows) if name != SYSTEM]

    def holder(self, key_id: str) -> tuple[Tenant, ApiKey] | None:
        """Return whose key it is, and what is kept of it."""
        found = self._keys.get(key_id)
        return (self._rows[found[0]], found[1]) if found else None

    def on_change(self, listener: Callable[[Tenant], None]) -> None:
        self._listeners.append(listener)

    def use(self, tenant: str, key_id: str) -> None:
        """Note that a key was used; written down now and then."""
        self._used[tenant][key_id] = utc_now()[:16] + ":00.000Z"

    async def change(self, tenant: str, data: TenantChangeData) -> tuple[str, Tenant]:
        """Have a tenant changed; return why it was refused, or "", and its row.

        Raises
        ------
        RegistryUnavailable
            Nobody said in time what became of it; it may still be done.
        BrokerUnavailable
            Kafka did not take it.
        """
        event = change_of(tenant, data)
        said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[event.eventId] = said
        try:
            await self._publish(Message(TENANT_CHANGES, event))
            async with patience():
                outcome = await said
            return outcome, self._rows[tenant]
        except KeyError:
            raise RegistryUnavailable from None
        finally:
            del self._waiting[event.eventId]

    async def tell(self, tenant: str, data: TenantChangeData) -> None:
        """Have a tenant changed, without waiting for it."""
        await self._publish(Message(TENANT_CHANGES, change_of(tenant, data)))

    def replace(self, rows: dict[str, Tenant], *, from_storage: Collection[Tenant] = ()) -> None:
        """Note every tenant there is now; from here on `take` tells what changes.

        Parameters
        ----------
        from_storage : what Kafka should have beside them, and has lost.
        """
        known = rows | {row.tenantId: row for row in from_storage}
        for gone in self._rows.keys() - known.keys():
            self.take(gone, None)
        for tenant, row in known.items():
            self.take(tenant, row)
        self._provisional = {row.tenantId for row in from_storage}
        self.mark_whole()

    def take(self, tenant: str, row: Tenant | None) -> None:
        """Note a tenant as it is now; None is for one that is gone."""
        self._provisional.discard(tenant)
        old = self._rows.pop(tenant, None)
        for key in old.keys if old else ():
            self._keys.pop(key.keyId, None)
        if row is None:
            return
        self._rows[tenant] = row
        for key in row.keys:
            self._keys[key.keyId] = (tenant, key)
        for event_id, outcome in row.outcomes.items():
            waiting = self._waiting.get(event_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(outcome)
        for listener in self._listeners:
            listener(row)

    def mark_whole(self) -> None:
        self._whole.set()
        self._current = True

    async def write_uses(self) -> None:
        used, self._used = self._used, defaultdict(dict)
        for tenant, keys in used.items():
            with contextlib.suppress(DeepLensError):  # it is no loss
                data = TenantChangeData(kind=ChangeKind.KEYS_USED.value, keysUsed=keys)
                await self.tell(tenant, data)
