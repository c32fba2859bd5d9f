"""The code of yesterday's release, out of this repository's own history."""

import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The release that the present code has to run beside. After a release, this is its commit.
COMMIT = "f615e5db520b477a7b75c812d48a90963882841f"
PACKAGES = ("deeplens_streams", "agents", "tables", "models")


def unpack(folder: Path) -> Path:
    """Write the release into `folder`; what a process there imports is of it."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", COMMIT, *PACKAGES],
        check=True,
        capture_output=True,
    )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    assert _origins(folder) == [str(folder / name / "__init__.py") for name in PACKAGES]
    return folder


def _origins(folder: Path) -> list[str]:
    code = f"import {', '.join(PACKAGES)}; print({'.__file__, '.join(PACKAGES)}.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )
    return found.stdout.split()
