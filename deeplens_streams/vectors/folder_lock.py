"""One process at a time in a folder."""

import fcntl
import os
from pathlib import Path

from deeplens_streams.errors import ConfigurationError


class FolderLock:
    """Held from `acquire` to `release`, or to the end of the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the folder, making it if it is missing; a second call does nothing.

        Raises
        ------
        ConfigurationError
            Another process has it, or it cannot be written.
        """
        if self._file is not None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigurationError(
                f"Vectors cannot be kept in {self._folder}: {error.strerror}."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise ConfigurationError(
                f"Another process keeps vectors in {self._folder}: stop it, give this one"
                " another DEEPLENS_DATA_DIR, or use a Qdrant server (DEEPLENS_QDRANT_URL)."
            ) from error
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
