"""How a backend's words become this system's errors."""

import errno

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from deeplens_streams.errors import DependencyUnavailable, StorageFull, StorageUnavailable
from deeplens_streams.storage.blobs.errors import storage_faults

FULL = (
    "Generic LocalFileSystem error: Unable to copy data to file: No space left on device"
    " (os error 28)\n\nDebug source:\n/var/secret"
)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (GenericError(FULL), StorageFull),
        (OSError(errno.ENOSPC, "No space left on device (os error 28)"), StorageFull),
        (GenericError("Server returned 507: XMinioStorageFull"), StorageFull),
        (GenericError("Unable to open file /var/secret (os error 20)"), StorageUnavailable),
        (PermissionDeniedError("/var/secret"), StorageUnavailable),
        (FileNotFoundError("/var/secret"), StorageUnavailable),
        (ConnectionResetError("secret.example.org"), StorageUnavailable),
    ],
)
def test_the_client_learns_what_to_do_and_the_cause_is_kept_for_the_log(
    raised: Exception, expected: type[DependencyUnavailable]
) -> None:
    with pytest.raises(expected) as caught, storage_faults("store an original"):
        raise raised
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is raised
    assert caught.value.action == "store an original"


def test_a_mistake_in_the_code_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), storage_faults("divide"):
        raise ZeroDivisionError
