"""What the rest of the system asks of image storage."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from deeplens_streams.storage.blobs.store import Write
from models.deletion import Tombstone
from models.images import StoredImage


@dataclass(frozen=True, slots=True)
class ListPage:
    """Some of a tenant's images, newest first.

    Attributes
    ----------
    images : the metadata objects.
    cursor : what continues after them, or None at the end.
    """

    images: list[StoredImage]
    cursor: str | None


class ImageStorage(Protocol):
    """Originals, thumbnails and a metadata object beside each.

    Keys of images begin with the tenant, but ``index/<uuid>``, which says whose an image is;
    `layout` has all that is stored beside them.
    Writes are atomic: a reader sees all of an object or none. Every method raises
    `StorageUnavailable` when the backend does not answer and `StorageFull` when it has no room.
    """

    def original_key(self, *, tenant: str, image_id: str, uploaded_at: str, format: str) -> str:
        """Return the key of the bytes; `format` is one of ours, never the client's word."""

    def thumbnail_key(self, *, tenant: str, image_id: str, uploaded_at: str) -> str:
        """Return the key of the thumbnail (a JPEG)."""

    async def put_image(
        self, image: StoredImage, source: Path | bytes, *, claim: Write | None = None
    ) -> None:
        """Store an uploaded picture: its bytes, then the pointer, then the metadata object.

        By the pointer, ``index/<uuid>``, an image ID alone finds its metadata object; with that,
        the image exists. When it fails or is cancelled, some of these may be there, and no more
        will come.

        Parameters
        ----------
        source : the bytes, or their file, which is read in bounded memory or moved away.
        claim : written first; where that fails, nothing else is.

        Raises
        ------
        AlreadyThere
            Somebody else has made this claim.
        """

    async def put_thumbnail(self, *, tenant: str, key: str, data: bytes) -> None: ...

    async def find(self, image_id: str) -> StoredImage | None:
        """Return the metadata by image ID alone, or None."""

    async def get_metadata(
        self, *, tenant: str, image_id: str, uploaded_at: str | None = None
    ) -> StoredImage | None:
        """Return the metadata if the image exists and is this tenant's, else None.

        With `uploaded_at`, which every event of the pipeline carries, the pointer is not read.
        """

    async def get(self, *, tenant: str, key: str) -> bytes | None:
        """Return an object's bytes, or None if there is none."""

    async def size(self, *, tenant: str, key: str) -> int | None:
        """Return an object's size in bytes, or None if there is none."""

    def stream(
        self, *, tenant: str, key: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to before `end` in chunks of at most 128 KiB."""

    async def list_images(self, *, tenant: str, limit: int, cursor: str | None = None) -> ListPage:
        """Return up to `limit` images, newest first, after `cursor`.

        Raises
        ------
        BadRequest
            The cursor is none that this tenant was given.
        """

    def cursor_after(self, image: StoredImage) -> str:
        """Return what continues a listing behind `image`, whatever was added or removed since."""

    async def tenants(self) -> list[str]:
        """Return every tenant of which something is stored, sorted."""

    def survey(self, *, tenant: str) -> AsyncGenerator[tuple[str, StoredImage | None]]:
        """Yield ID and metadata of every image of a tenant, None for a damaged metadata object.

        In no order, and in memory that does not depend on how many there are.
        """

    async def delete_metadata(self, *, tenant: str, image_id: str) -> None:
        """Remove the metadata object first, then the pointer; what is gone is no error."""

    def walk_files(self, *, tenant: str) -> AsyncGenerator[tuple[str, str]]:
        """Yield key and image ID of every original and thumbnail, as `survey` does."""

    def walk_keys(self, *, tenant: str) -> AsyncGenerator[str]:
        """Yield the key of all that is stored of a tenant, as `survey` does.

        Also of what cannot be read, of what no code here has written, and of writes that have not
        ended.
        """

    def walk_unfinished(self, *, tenant: str) -> AsyncGenerator[tuple[str, datetime]]:
        """Yield key and time of each of a tenant's writes that has not ended, as `survey` does.

        Where the time is long ago, its process was killed.
        """

    async def written_at(self, *, tenant: str, key: str) -> datetime | None:
        """Return when an object was written, or None if there is none."""

    async def remove_metadata(self, image: StoredImage | Tombstone) -> None:
        """Remove the metadata object alone; the pointer stays, for the tombstone."""

    async def delete_object(self, *, tenant: str, key: str) -> None:
        """Remove one object; what is gone is no error."""

    async def remove_listed(self, *, tenant: str, key: str) -> None:
        """Remove what `walk_keys` or `walk_unfinished` named, and the tenant's pointer to it."""

    async def forget_tenant(self, *, tenant: str) -> None:
        """Remove what is left of a tenant that has no object any more: empty folders."""

    async def ping(self) -> None:
        """Raise `StorageUnavailable` unless the backend answers and can be written."""
