"""What a repair takes away: bytes and a manifest, kept until somebody decides, or for so many days.

Nothing leaves its place before its copy and its manifest are here.
"""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import orjson
import structlog

from deeplens_streams.errors import BadRequest, DeepLensError
from deeplens_streams.identifiers import is_tenant_id
from deeplens_streams.storage import dated, layout
from deeplens_streams.storage.blobs import Blobs, Write
from deeplens_streams.storage.layout import trash as trash_keys
from deeplens_streams.storage.objects import DamagedMetadata, reading
from models.events import new_event_id, utc_now
from models.trash import TrashKind, TrashManifest

log = structlog.get_logger()

_ACTION = "keep in the trash"


class TrashOccupied(DeepLensError):
    """Something lies where this is restored to; replace it, and it goes to the trash instead."""

    code = "TRASH_OCCUPIED"
    http_status = 409


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


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is taken away, and by which audit or request."""

    text: str
    audit_id: str


class Trash:
    """The trash of all tenants."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    # Putting in ----------------------------------------------------------------------------

    async def copy(
        self, key: str, *, kind: TrashKind, tenant: str, image_id: str | None, why: Reason
    ) -> bool:
        """Keep a copy of an object that is about to be replaced; False where it is gone."""
        manifest_key = self._new_key(tenant, image_id)
        kept = trash_keys.bytes_key(manifest_key)
        # 1. bytes
        if not await self._blobs.copy(key, kept, action=_ACTION):
            return False
        size, digest = await self._measured(kept)
        # 2. manifest
        said = _manifest(
            kind, key, tenant=tenant, image_id=image_id, why=why, size=size, digest=digest
        )
        await self._put_manifest(manifest_key, said)
        return True

    async def move(
        self, key: str, *, kind: TrashKind, tenant: str, image_id: str | None, why: Reason
    ) -> bool:
        """Keep an object, and remove it from its place; False where it is gone."""
        if not await self.copy(key, kind=kind, tenant=tenant, image_id=image_id, why=why):
            return False
        # 3. what it is a copy of
        await self._blobs.delete(key, action=_ACTION)
        return True

    async def keep(
        self, data: bytes, key: str, *, kind: TrashKind, tenant: str, image_id: str, why: Reason
    ) -> None:
        """Keep bytes that are no object of storage; the caller removes what they stand for."""
        manifest_key = self._new_key(tenant, image_id)
        digest = hashlib.sha256(data).hexdigest()
        kept = Write(trash_keys.bytes_key(manifest_key), data, "application/octet-stream")
        await self._blobs.put(kept, action=_ACTION)
        said = _manifest(
            kind, key, tenant=tenant, image_id=image_id, why=why, size=len(data), digest=digest
        )
        await self._put_manifest(manifest_key, said)

    def _new_key(self, tenant: str, image_id: str | None) -> str:
        return trash_keys.manifest_key(
            tenant=tenant,
            image_id=image_id or layout.NO_IMAGE,
            ms=layout.epoch_ms(utc_now()),
            entry=new_event_id(),
        )

    async def _put_manifest(self, key: str, said: TrashManifest) -> None:
        await self._blobs.put(Write(key, orjson.dumps(said.to_wire())), action=_ACTION)

    async def _measured(self, key: str) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        async for chunk in self._blobs.stream(key, action="read the trash"):
            size += len(chunk)
            digest.update(chunk)
        return size, digest.hexdigest()

    # Looking -------------------------------------------------------------------------------

    async def find(self, entry_id: str) -> TrashEntry | None:
        """Return what an ID stands for, or None if it is not there, or cannot be read."""
        try:
            return await self._read(trash_keys.key_of(entry_id))
        except layout.InvalidKey:
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
            folder = layout.trash_folder(owner)
            if before is not None and f"{folder}/" > before and not before.startswith(f"{folder}/"):
                continue  # told already: owners come in descending order
            walk = dated.walk(self._blobs, folder, self._read, before=before, at_once=limit + 1)
            async with aclosing(walk) as entries:
                async for _, entry in entries:
                    if len(found) == limit:
                        return TrashPage(found, found[-1].entry_id)
                    found.append(entry)
        return TrashPage(found, None)

    async def owners(self) -> list[str]:
        """Return everybody of whom something is kept, in descending order; nobody is ``""``."""
        paths = await self._blobs.children(layout.TRASH, action="list the trash")
        names = [path.rstrip("/").rpartition("/")[2] for path in paths]
        known = sorted((name for name in names if is_tenant_id(name)), reverse=True)
        return [*known, *([""] if layout.NOBODY in names else [])]

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

    # Taking out ----------------------------------------------------------------------------

    async def restore(self, entry: TrashEntry, *, replace: bool, why: Reason) -> None:
        """Bring an object back to where it lay.

        Parameters
        ----------
        replace : what lies there by now goes to the trash instead.

        Raises
        ------
        TrashOccupied
            Something else lies there.
        TrashDamaged
            Its bytes are not what they were.
        """
        said, kept = entry.manifest, trash_keys.bytes_key(entry.manifest_key)
        if await self._blobs.size(kept, action="read the trash") is None:
            raise TrashDamaged
        if await self._measured(kept) != (said.size, said.sha256):
            raise TrashDamaged
        if await self._blobs.size(said.key, action="look where it lay") is not None:
            _, digest = await self._measured(said.key)
            if digest != said.sha256:
                if not replace:
                    raise TrashOccupied
                await self.copy(
                    said.key,
                    kind=TrashKind.REPLACED,
                    tenant=said.tenantId,
                    image_id=said.imageId,
                    why=why,
                )
        # 1. its place, 2. the trash
        if not await self._blobs.copy(kept, said.key, action="restore from the trash"):
            raise TrashDamaged  # it was emptied meanwhile
        await self.remove(entry)

    async def remove(self, entry: TrashEntry) -> None:
        """Remove one thing from the trash; what is gone is no error."""
        # 1. manifest, 2. bytes: without a manifest, they go with their age
        for key in (entry.manifest_key, trash_keys.bytes_key(entry.manifest_key)):
            await self._blobs.delete(key, action="empty the trash")

    async def remove_image(self, *, tenant: str, image_id: str) -> None:
        """Remove all that is kept of an image."""
        folder = trash_keys.image_folder(tenant=tenant, image_id=image_id)
        async with aclosing(self._blobs.walk(folder, action="empty the trash")) as keys:
            async for key in keys:
                await self._blobs.delete(key, action="empty the trash")
        await self._blobs.prune(folder, action="empty the trash")

    async def empty(
        self, *, before_ms: int, tenant: str | None = None, most: int | None = None
    ) -> int:
        """Remove what came into the trash before a time; return how many things that were.

        Parameters
        ----------
        tenant : only this one's.
        most : stop after so many; then there may be more.
        """
        folder = layout.TRASH if tenant is None else layout.trash_folder(tenant)
        count = 0
        async with aclosing(self._old(folder, before_ms)) as keys:
            async for key in keys:
                await self._blobs.delete(key, action="empty the trash")
                if not key.endswith(".bin"):
                    # Beside it, or later with its age.
                    await self._blobs.delete(trash_keys.bytes_key(key), action="empty the trash")
                    count += 1
                if count == most:
                    return count
        await self._blobs.prune(folder, action="empty the trash")
        return count

    async def _old(self, folder: str, before_ms: int) -> AsyncGenerator[str]:
        async with aclosing(self._blobs.walk(folder, action="empty the trash")) as keys:
            async for key in keys:
                ms = trash_keys.thrown_ms(key)
                if ms is not None and ms < before_ms:
                    yield key


def _manifest(
    kind: TrashKind,
    key: str,
    *,
    tenant: str,
    image_id: str | None,
    why: Reason,
    size: int,
    digest: str,
) -> TrashManifest:
    return TrashManifest(
        kind=kind.value,
        key=key,
        tenantId=tenant,
        imageId=image_id,
        reason=why.text,
        at=utc_now(),
        auditId=why.audit_id,
        size=size,
        sha256=digest,
    )


def _place(cursor: str | None, tenant: str | None) -> str | None:
    if not cursor:
        return None
    try:
        key = trash_keys.key_of(cursor)
    except layout.InvalidKey:
        raise BadRequest("The cursor is none that an earlier answer gave.") from None
    if tenant is not None and not key.startswith(f"{layout.trash_folder(tenant)}/"):
        raise BadRequest("The cursor is of another tenant's trash.")
    return key
