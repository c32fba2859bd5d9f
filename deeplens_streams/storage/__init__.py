"""Image storage: a local folder, memory, S3, GCS or Azure, behind one interface."""

from obstore.store import LocalStore

from deeplens_streams.config import Settings
from deeplens_streams.storage.base import ImageStorage, ListPage
from deeplens_streams.storage.blobs.connection import connect
from deeplens_streams.storage.blobs.local import LocalBlobs
from deeplens_streams.storage.blobs.store import Blobs
from deeplens_streams.storage.images import ObjectImages

__all__ = [
    "Blobs",
    "ImageStorage",
    "ListPage",
    "ObjectImages",
    "blobs_at",
    "open_blobs",
    "open_storage",
]


def open_storage(settings: Settings) -> ImageStorage:
    """Return the image storage that `settings` name; raises as `open_blobs`."""
    return ObjectImages(open_blobs(settings))


def open_blobs(settings: Settings) -> Blobs:
    """Return the storage that `settings` name; a local folder is made if it is missing.

    Credentials of S3, GCS and Azure come from the variables that their own tools read
    (``AWS_ACCESS_KEY_ID``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT_NAME`` …).

    Raises
    ------
    ConfigurationError
        The URL names no storage, the folder cannot be made, or DEEPLENS_STORAGE_CA is no file
        of certificates.
    """
    return blobs_at(settings.images_url, settings)


def blobs_at(url: str, settings: Settings) -> Blobs:
    """Return the storage at `url`, reached as the one that `settings` name; as `open_blobs`."""
    store = connect(url, ca=settings.storage_ca)
    if isinstance(store, LocalStore):
        return LocalBlobs(store, sync=settings.sync)
    return Blobs(store)
