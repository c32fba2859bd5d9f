"""What the backup has and the source has no more: only what a person deleted goes from it.

What is gone without a tombstone was lost. The backup may have the last copy: it stays, and is
named.
"""

from collections.abc import AsyncGenerator
from contextlib import suppress

import orjson

from deeplens_streams.backup.catalogue import Entry
from deeplens_streams.backup.copying import POINTERS, Run
from deeplens_streams.backup.parallel import each
from deeplens_streams.backup.purges import Purges
from deeplens_streams.errors import DeepLensError
from deeplens_streams.identifiers import IMAGE_ID_PREFIX, is_tenant_id
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.storage.images import ObjectImages
from deeplens_streams.storage.tombstones import Tombstones

#: One after the other; within each, entries are judged side by side.
_TURNS = 3
#: Where rows of tenants are kept.
_REGISTRY = ".registry"
_ACTION = "look up what a backup has"


class Reconciliation:
    """At the end of a run, when everything that there is has been seen.

    Parameters
    ----------
    skipped : kinds of objects that this run did not look for: ``thumbnail``.
    goes_on : an earlier run was cut off; what it removed last may not have been noted.
    """

    def __init__(self, run: Run, *, skipped: frozenset[str], goes_on: bool) -> None:
        self._run, self._skipped, self._goes_on = run, skipped, goes_on
        self._images, self._tombstones = ObjectImages(run.target), Tombstones(run.target)
        self._purges = Purges()

    async def run(self) -> None:
        await self._purges.read(self._run.target)
        for turn in range(_TURNS):
            await each(self._unseen(turn), self._one)

    async def _unseen(self, turn: int) -> AsyncGenerator[Entry]:
        for entry in self._run.catalogue.entries(seen=False):
            if _turn(entry.key) == turn:
                yield entry

    async def _one(self, entry: Entry) -> None:
        if await self._was_deleted(entry.key):
            await self._run.remove(entry.key)

    async def _was_deleted(self, key: str) -> bool:
        owner, _, rest = key.partition("/")
        kind = rest.partition("/")[0]
        if owner in (object_keys.DELETING, object_keys.TRASH):
            return True  # Kafka knows of it by now; it was thrown away, or is not wanted
        if owner == _REGISTRY:
            return await self._row(key)
        if "/" not in rest:
            judge = {object_keys.POINTERS: self._pointer, "failed": self._letter_pointer}.get(owner)
            return judge is not None and await judge(key)
        judge_of_tenant = {
            "metadata": self._metadata,
            "original": self._file,
            "thumbnail": self._file,
            "deleted": self._tombstone,
            "checksum": self._claim,
            "failed": self._letter,
        }.get(kind)
        if judge_of_tenant is None or kind in self._skipped or not is_tenant_id(owner):
            return False
        return await judge_of_tenant(owner, key)

    async def _metadata(self, tenant: str, key: str) -> bool:
        place = object_keys.read_dated_key(key)
        if place is None:
            return False
        grave = object_keys.tombstone_key(tenant=tenant, image_id=place[1], ms=place[0])
        if self._run.catalogue.get(grave) is not None or self._purges.covers(tenant, place[0]):
            return True
        return await self._is_nowhere(key)

    async def _file(self, tenant: str, key: str) -> bool:
        image_id = object_keys.read_file_key(key)
        if image_id is None:
            return False
        if await self._has_tombstone(image_id):
            return True
        image = None
        with suppress(DamagedMetadata):
            image = await self._images.find(image_id)
        if image is None:
            # Of an image whose metadata is damaged, or that the backup never had: its upload may
            # have been refused.
            pointer = await self._run.target.get(object_keys.pointer_key(image_id), action=_ACTION)
            return self._purges.covers_file(tenant, key, pointer)
        return await self._is_nowhere(key)

    async def _row(self, key: str) -> bool:
        """Tell whether what is kept of a tenant's row is of before its purge."""
        tenant = key.rpartition("/")[2].removesuffix(".json")
        try:
            made = object_keys.epoch_ms(str((await self._json(key)).get("createdAt")))
        except ValueError:
            return False
        return self._purges.covers(tenant, made) or await self._is_nowhere(key)

    async def _tombstone(self, tenant: str, key: str) -> bool:
        place = object_keys.read_dated_key(key)
        return place is not None and self._purges.covers(tenant, place[0])

    async def _claim(self, tenant: str, key: str) -> bool:
        """A claim without its image is no use."""
        said = await self._json(key)
        try:
            ms = object_keys.epoch_ms(str(said["uploadedAt"]))
            metadata = object_keys.metadata_key(tenant=tenant, image_id=str(said["imageId"]), ms=ms)
        except (KeyError, ValueError, DeepLensError):
            return True
        return self._run.catalogue.get(metadata) is None

    async def _letter(self, tenant: str, key: str) -> bool:
        place = object_keys.read_dated_key(key)
        if place is None:
            return False
        image_id = (await self._json(key)).get("imageId")
        is_dead = isinstance(image_id, str) and await self._has_tombstone(image_id)
        if is_dead or self._purges.covers(tenant, place[0]):
            return True
        return await self._is_nowhere(key)

    async def _pointer(self, key: str) -> bool:
        """Tell whether a pointer leads to nothing that the backup has."""
        image_id = f"{IMAGE_ID_PREFIX}{key.rpartition('/')[2]}"
        try:
            is_there = await self._images.find(image_id) is not None
        except DamagedMetadata:
            return False
        return not is_there and not await self._has_tombstone(image_id)

    async def _letter_pointer(self, key: str) -> bool:
        said = await self._json(key)
        try:
            tenant, ms = str(said["tenantId"]), object_keys.epoch_ms(str(said["at"]))
            letter_id = key.rpartition("/")[2]
            letter = object_keys.letter_key(tenant=tenant, letter_id=letter_id, ms=ms)
        except (KeyError, ValueError, DeepLensError):
            return False
        return self._run.catalogue.get(letter) is None

    async def _has_tombstone(self, image_id: str) -> bool:
        try:
            return await self._tombstones.find(image_id) is not None
        except DeepLensError as error:
            if isinstance(error, DamagedMetadata):
                return False
            raise

    async def _json(self, key: str) -> dict[str, object]:
        try:
            said = orjson.loads(await self._run.target.get(key, action=_ACTION) or b"{}")
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    async def _is_nowhere(self, key: str) -> bool:
        """Name an object that the source has lost; True if the backup does not have it, either."""
        detail = "it is gone from the source and nobody deleted it; the backup keeps its copy"
        is_kept = await self._run.target.size(key, action=_ACTION) is not None
        if not is_kept:
            detail = "it is gone from the source and from the backup, and nobody deleted it"
        if is_kept or not self._goes_on:  # a run that was cut off had removed it
            self._run.found(key, "lost", detail)
        return not is_kept


def _turn(key: str) -> int:
    """Return when an entry is judged: by images' metadata objects others are, pointers by all."""
    if key.count("/") == 1 and key.startswith(POINTERS):
        return 2
    return 0 if key.split("/")[1:2] == ["metadata"] else 1
