"""One run of a backup, from the first look to the manifest.

The order is what makes a kill at any moment harmless, and uploads and deletions meanwhile: an
image's metadata object, with which it exists, is copied behind its bytes, and tombstones are copied
both before and after the images.
"""

import tempfile
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from deeplens_streams.backup import images, manifest
from deeplens_streams.backup.catalogue import Catalogue
from deeplens_streams.backup.copying import Counts, Reader, Run, Tell
from deeplens_streams.backup.errors import BackupRefused
from deeplens_streams.backup.journal import Journal, Lease
from deeplens_streams.backup.parallel import each
from deeplens_streams.backup.reconcile import Reconciliation
from deeplens_streams.identifiers import is_tenant_id
from deeplens_streams.storage import Blobs, object_keys
from deeplens_streams.storage.blobs.store import Listed
from models.events import utc_now

_LIST = "list for a backup"
#: At the top, and never copied: of the health check, and of restores and backups themselves.
NEVER = frozenset({object_keys.PING_KEY, manifest.FOLDER, ".restore"})
#: Where objects of all tenants lie; one of them may be called that, too.
_OF_ALL = frozenset({object_keys.POINTERS, "failed", "purged"})
_FIRST_FOLDERS = frozenset({"metadata", "original", "thumbnail", "deleted"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a backup is to hold beside what it always does.

    Attributes
    ----------
    source : the URL by which the source is known.
    moved : the source may be known by another URL than before.
    """

    source: str
    thumbnails: bool = False
    trash: bool = False
    moved: bool = False


async def back_up(
    source: Blobs, target: Blobs, wanted: Wanted, tell: Tell, counts: Counts
) -> manifest.Manifest:
    """Bring a backup up to what there is, and return its manifest.

    Parameters
    ----------
    counts : how far it is, for who shows that.

    Raises
    ------
    BackupRefused
        The target is none that this can use, or another run is at work there.
    StorageUnavailable
        Either side does not answer; the next run goes on where this one ended.
    """
    await _require_backup(target)
    await manifest.mark(target)
    lease = Lease(target)
    await lease.take()
    try:
        with tempfile.TemporaryDirectory(prefix="deeplens-backup-") as name:
            folder = Path(name)
            catalogue = Catalogue(folder)
            try:
                return await _Backup(source, target, wanted, tell, counts).run(
                    catalogue, folder, lease
                )
            finally:
                catalogue.close()
    finally:
        await lease.release()


async def _require_backup(target: Blobs) -> None:
    """Raise `BackupRefused` if something else than a backup is there."""
    there = {path.rstrip("/") for path in await target.children("", action=_LIST)}
    if there - {object_keys.PING_KEY} and manifest.FOLDER not in there:
        raise BackupRefused(
            f"Something else than a backup is there ({min(there)}); choose an empty place."
        )


class _Backup:
    def __init__(
        self, source: Blobs, target: Blobs, wanted: Wanted, tell: Tell, counts: Counts
    ) -> None:
        self._source, self._target, self._wanted = source, target, wanted
        self._tell, self._counts = tell, counts

    async def run(self, catalogue: Catalogue, folder: Path, lease: Lease) -> manifest.Manifest:
        known = await manifest.load(self._target, catalogue)
        self._check_source(known)
        started, run_id = utc_now(), known.unfinished or str(uuid.uuid4())
        journal = Journal(self._target, run_id, known.parts)
        run = Run(
            self._source,
            self._target,
            catalogue,
            journal,
            lease,
            Reader(self._source, folder),
            self._tell,
            self._counts,
        )
        for key in known.damaged:
            run.found(f"{manifest.FOLDER}/", "manifest_damaged", f"{key} was made anew")
        await journal.begin()
        try:
            await self._copy_all(run, goes_on=known.unfinished is not None)
        finally:
            await journal.flush()
        return await manifest.finish(
            self._target,
            catalogue,
            manifest.Manifest(
                run=run_id,
                source=self._wanted.source,
                started=started,
                finished=utc_now(),
                objects=0,
                bytes=0,
                thumbnails=self._wanted.thumbnails,
                pieces=[],
            ),
            known,
        )

    def _check_source(self, known: manifest.Known) -> None:
        before = known.manifest.source if known.manifest else self._wanted.source
        if before != self._wanted.source and not self._wanted.moved:
            raise BackupRefused(
                f"This is a backup of {before}, and {self._wanted.source} is another storage; "
                "choose another place, or say --moved if it is the same one moved."
            )

    async def _copy_all(self, run: Run, *, goes_on: bool) -> None:
        tenants = [name async for name in self._tenants()]
        # 1. what names tenants and says what was deleted: a prefix of a backup knows it, too
        await self._copy_rest(run)
        for tenant in tenants:
            await images.copy_tombstones(run, tenant)
        # 2. images, each with its bytes first; then bytes that no image has brought
        for tenant in tenants:
            await images.copy_images(run, tenant)
            await images.copy_files(run, f"{tenant}/original")
        # 3. what belongs to them
        for tenant in tenants:
            if self._wanted.thumbnails:
                await images.copy_files(run, f"{tenant}/thumbnail")
            await self._copy_others(run, tenant)
        # 4. what changed meanwhile
        for tenant in tenants:
            await images.copy_tombstones(run, tenant)
        await self._copy_rest(run)
        # 5. what was deleted since the last run
        skipped = frozenset() if self._wanted.thumbnails else frozenset({"thumbnail"})
        await Reconciliation(run, skipped=skipped, goes_on=goes_on).run()

    async def _tenants(self) -> AsyncGenerator[str]:
        for path in await self._source.children("", action=_LIST):
            if is_tenant_id(path.rstrip("/")):
                yield path.rstrip("/")

    async def _copy_rest(self, run: Run) -> None:
        """Copy what is no tenant's: the registry, purges, letters' pointers, the admin log."""
        for folder in sorted(_OF_ALL - {object_keys.POINTERS}):
            await each(self._directly_in(folder), run.copy)
        for path in await self._source.children("", action=_LIST):
            name = path.rstrip("/")
            is_unwanted = name == object_keys.TRASH and not self._wanted.trash
            if is_tenant_id(name) or name in NEVER or is_unwanted:
                continue
            await each(self._source.walk_listed(name, action=_LIST), run.copy)

    async def _directly_in(self, folder: str) -> AsyncGenerator[Listed]:
        """Yield what lies in a folder and not below: a tenant may be called that, too."""
        async with aclosing(self._source.walk_listed(folder, action=_LIST)) as found:
            async for listed in found:
                if listed.key.count("/") == 1:
                    yield listed

    async def _copy_others(self, run: Run, tenant: str) -> None:
        """Copy claims, dead letters, and whatever else a tenant has."""
        folders = [object_keys.claim_folder(tenant), object_keys.letter_folder(tenant)]
        if tenant not in _OF_ALL:  # of a million pointers nobody wants a list
            paths = await self._source.children(tenant, action=_LIST)
            folders = [path.rstrip("/") for path in paths]
        for folder in folders:
            if folder.rpartition("/")[2] not in _FIRST_FOLDERS:
                await each(self._source.walk_listed(folder, action=_LIST), run.copy)
