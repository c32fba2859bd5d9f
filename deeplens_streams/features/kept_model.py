"""Which model a data folder began with, written down beside the data.

``deeplens up`` writes it. A machine that can get other weights tomorrow goes on with the same
model, since vectors of two models are in two collections and a search looks into one.
"""

import json
import os
import tempfile
from pathlib import Path

from deeplens_streams.errors import ConfigurationError

_FILE = "model.json"


def kept_model(folder: Path) -> str | None:
    """Return the name of the data folder's model, or None if none is written down.

    Raises
    ------
    ConfigurationError
        What is written there cannot be read.
    """
    path = folder / _FILE
    try:
        name = json.loads(path.read_text("utf-8"))["model"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if isinstance(name, str):
        return name
    raise ConfigurationError(
        f"{path} does not say which model this data folder has; delete it, and set DEEPLENS_MODEL "
        "to the one that the names of the folders in its folder vectors hold."
    )


def keep_model(folder: Path, name: str) -> None:
    """Write the model of a data folder down: whole, or not at all."""
    handle, made = tempfile.mkstemp(prefix=f"{_FILE}.", dir=folder)
    partial = Path(made)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"model": name}, file)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(folder / _FILE)
    finally:
        partial.unlink(missing_ok=True)
