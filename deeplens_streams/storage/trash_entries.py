"""What lies in the trash: found by its ID, listed, read."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from deeplens_streams.errors import BadRequest, DeepLensError
from deeplens_streams.identifiers import is_tenant_id
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Blobs
from deeplens_streams.storage.image_objects import DamagedMetadata, reading
from deeplens_streams.storage.listing import by_date
from deeplens_streams.storage.object_keys import trash as trash_keys
from models.trash import TrashKind, TrashManifest


class TrashDamaged(DeepLensError):
    """The bytes in the trash are not those that were put there; they stay where they are."""

    code = "TRASH_DAMAGED"
    http_status = 409


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """One thing in the trash.

    Attributes
    ----------
    manifest_key : where its manifest lies.
    """

    entry_id: str
    manifest_key: str
    manifest: TrashManifest


@dataclass(frozen=True, slots=True)
class TrashPage:
    """Some of what is in the trash; `cursor` continues it."""

    entries: list[TrashEntry]
    cursor: str | None


class TrashEntries:
    """The entries of all tenants' trash."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def find(self, entry_id: str) -> TrashEntry | None:
        """Return what an ID stands for, or None if it is not there, or cannot be read."""
        try:
            return await self._read(trash_keys.key_of(entry_id))
        except object_keys.InvalidObjectKey:
            return None

    async def page(
        self, *, tenant: str | None = None, limit: int, cursor: str | None = None
    ) -> TrashPage:
        """Return what is kept of a tenant, or of all, one tenant after the other.

        Raises
        ------
        BadRequest
            The cursor is none that an earlier page gave.
        """
        found: list[TrashEntry] = []
        before = _place(cursor, tenant)
        owners = [tenant] if tenant is not None else await self.owners()
        for owner in owners:
            folder = object_keys.trash_folder(owner)
            if before is not None and f"{folder}/" > before and not before.startswith(f"{folder}/"):
                continue  # told already: owners come in descending order
            walk = by_date.walk(self._blobs, folder, self._read, before=before, at_once=limit + 1)
            async with aclosing(walk) as entries:
                async for _, entry in entries:
                    if len(found) == limit:
                        return TrashPage(found, found[-1].entry_id)
                    found.append(entry)
        return TrashPage(found, None)

    async def owners(self) -> list[str]:
        """Return everybody of whom something is kept, in descending order; nobody is ``""``."""
        paths = await self._blobs.children(object_keys.TRASH, action="list the trash")
        names = [path.rstrip("/").rpartition("/")[2] for path in paths]
        known = sorted((name for name in names if is_tenant_id(name)), reverse=True)
        return [*known, *([""] if object_keys.NOBODY in names else [])]

    async def content(self, entry: TrashEntry) -> bytes:
        """Return the bytes that are kept.

        Raises
        ------
        TrashDamaged
            They are not what the manifest says.
        """
        kept = trash_keys.bytes_key(entry.manifest_key)
        data = await self._blobs.get(kept, action="read the trash")
        if data is None or hashlib.sha256(data).hexdigest() != entry.manifest.sha256:
            raise TrashDamaged
        return data

    async def _read(self, key: str) -> TrashEntry | None:
        raw = await self._blobs.get(key, action="read the trash")
        if raw is None:
            return None
        try:
            with reading("a manifest in the trash", key):
                said = TrashManifest.from_wire(orjson.loads(raw))
                TrashKind(said.kind)
        except DamagedMetadata:
            return None
        return TrashEntry(trash_keys.entry_id(key), key, said)

    async def old(self, folder: str, before_ms: int) -> AsyncGenerator[str]:
        """Yield the keys, of manifests and of bytes, of what came into the trash before a time."""
        async with aclosing(self._blobs.walk(folder, action="empty the trash")) as keys:
            async for key in keys:
                ms = trash_keys.thrown_ms(key)
                if ms is not None and ms < before_ms:
                    yield key


def _place(cursor: str | None, tenant: str | None) -> str | None:
    if not cursor:
        return None
    try:
        key = trash_keys.key_of(cursor)
    except object_keys.InvalidObjectKey:
        raise BadRequest("The cursor is none that an earlier answer gave.") from None
    if tenant is not None and not key.startswith(f"{object_keys.trash_folder(tenant)}/"):
        raise BadRequest("The cursor is of another tenant's trash.")
    return key
