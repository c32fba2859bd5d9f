"""What a repair takes away: bytes and a manifest, kept until somebody decides, or for so many days.

Nothing leaves its place before its copy and its manifest are here.
"""

import hashlib
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from deeplens_streams.errors import DeepLensError, StorageUnavailable
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.errors import OnRefusal, raised
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.storage.measured import Measured, measured
from deeplens_streams.storage.object_keys import trash as trash_keys
from deeplens_streams.storage.trash_entries import TrashDamaged, TrashEntries, TrashEntry
from models.events import new_event_id, utc_now
from models.trash import TrashKind, TrashManifest

_ACTION = "keep in the trash"


class TrashOccupied(DeepLensError):
    """Something lies where this is restored to; replace it, and it goes to the trash instead."""

    code = "TRASH_OCCUPIED"
    http_status = 409


class WrittenMeanwhile(Exception):
    """What was to be taken away is not what it was, and stays."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is taken away, and by which audit or request."""

    text: str
    audit_id: str


class Trash(TrashEntries):
    """The trash of all tenants."""

    # Putting in ----------------------------------------------------------------------------

    async def copy(
        self, key: str, *, kind: TrashKind, tenant: str, image_id: str | None, why: Reason
    ) -> TrashEntry | None:
        """Keep a copy of an object that is about to be replaced; None where it is gone."""
        manifest_key = self._new_key(tenant, image_id)
        kept = trash_keys.bytes_key(manifest_key)
        # 1. bytes
        if not await self._blobs.copy(key, kept, action=_ACTION):
            return None
        found = await self._measured(kept)
        # 2. manifest
        said = _manifest(
            kind,
            key,
            tenant=tenant,
            image_id=image_id,
            why=why,
            size=found.size,
            digest=found.sha256,
        )
        await self._put_manifest(manifest_key, said)
        return TrashEntry(trash_keys.entry_id(manifest_key), manifest_key, said)

    async def move(
        self,
        key: str,
        *,
        kind: TrashKind,
        tenant: str,
        image_id: str | None,
        why: Reason,
        known: bytes | None = None,
    ) -> bool:
        """Keep an object, and remove it from its place; False where it is gone.

        No storage removes on a condition, so what is written in the moment between the last look
        and the removal goes with it.

        Parameters
        ----------
        known : what it was when somebody decided to take it away.

        Raises
        ------
        WrittenMeanwhile
            It is another by now.
        """
        stamp = await self._blobs.stamp(key, action=_ACTION)
        if stamp is None:
            return False
        if known is not None and await self._blobs.get(key, action=_ACTION) != known:
            raise WrittenMeanwhile
        kept = await self.copy(key, kind=kind, tenant=tenant, image_id=image_id, why=why)
        if kept is None:
            return False
        now = await self._blobs.stamp(key, action=_ACTION)
        if now not in (stamp, None):
            await self.remove(kept)
            raise WrittenMeanwhile
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
            image_id=image_id or object_keys.NO_IMAGE,
            ms=object_keys.epoch_ms(utc_now()),
            entry=new_event_id(),
        )

    async def _put_manifest(self, key: str, said: TrashManifest) -> None:
        await self._blobs.put(Write(key, orjson.dumps(said.to_wire())), action=_ACTION)

    async def _measured(self, key: str) -> Measured:
        return await measured(self._blobs.stream(key, action="read the trash"))

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
        if await self._measured(kept) != Measured(said.size, said.sha256):
            raise TrashDamaged
        is_taken = await self._blobs.size(said.key, action="look where it lay") is not None
        if is_taken and (await self._measured(said.key)).sha256 != said.sha256:
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
        self,
        *,
        before_ms: int,
        tenant: str | None = None,
        most: int | None = None,
        refused: OnRefusal = raised,
    ) -> int:
        """Remove what came into the trash before a time; return how many things that were.

        Parameters
        ----------
        tenant : only this one's.
        most : stop after so many; then there may be more.
        refused : called with what cannot be removed.
        """
        folder = object_keys.TRASH if tenant is None else object_keys.trash_folder(tenant)
        count = 0
        async with aclosing(self.old(folder, before_ms)) as keys:
            async for key in keys:
                removing = key
                try:
                    await self._blobs.delete(removing, action="empty the trash")
                    if not key.endswith(".bin"):
                        count += 1
                        # Beside it, or later with its age.
                        removing = trash_keys.bytes_key(key)
                        await self._blobs.delete(removing, action="empty the trash")
                except StorageUnavailable as error:
                    await refused(removing, error)
                if count == most:
                    return count
        await self._blobs.prune(folder, action="empty the trash")
        return count


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
