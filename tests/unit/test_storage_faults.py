"""How a backend's words become this system's errors."""

import errno

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from structlog.testing import capture_logs

from deeplens_streams.errors import DeepLensError, StorageFull, StorageUnavailable
from deeplens_streams.storage.faults import storage_faults

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
def test_the_client_learns_what_to_do_and_the_log_why(
    raised: Exception, expected: type[DeepLensError]
) -> None:
    with (
        capture_logs() as logs,
        pytest.raises(expected) as caught,
        storage_faults("store an original"),
    ):
        raise raised
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is raised
    (entry,) = logs
    assert entry["action"] == "store an original"
    assert "\n" not in entry["reason"]


def test_a_mistake_in_the_code_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), storage_faults("divide"):
        raise ZeroDivisionError
