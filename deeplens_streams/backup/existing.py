"""What a storage holds that a backup is brought back into."""

from contextlib import aclosing

from deeplens_streams.backup.catalogue import Catalogue, Entry
from deeplens_streams.backup.purges import Purges
from deeplens_streams.storage import Blobs
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.storage.tombstones import Tombstones

_LIST = "list for a restore"


class Existing:
    """Keys and sizes of all that is there.

    Attributes
    ----------
    is_ours : all of it came from the backup: a restore that was cut off goes on.
    purges : of the storage, and of the backup once its own are in the storage.
    """

    def __init__(self, target: Blobs, there: Catalogue, *, is_ours: bool) -> None:
        self._target, self._there, self.is_ours = target, there, is_ours
        self._tombstones = Tombstones(target)
        self.purges = Purges()

    async def read(self) -> None:
        async with aclosing(self._target.walk_listed("", action=_LIST)) as found:
            async for listed in found:
                self._there.put(Entry(listed.key, listed.size, None), seen=False)

    async def read_purges(self) -> None:
        await self.purges.read(self._target)

    def size(self, key: str) -> int | None:
        """Return how many bytes were there, or None if nothing was."""
        entry = self._there.get(key)
        return None if entry is None else entry.size

    async def has_tombstone(self, image_id: str) -> bool:
        try:
            return await self._tombstones.find(image_id) is not None
        except DamagedMetadata:
            return False
