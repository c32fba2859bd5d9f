"""The programs that read deployment files for real, and what to do where one is missing."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
CHART = DOCKER / "helm" / "deeplens"
#: Where `go install` and `pip install` put programs.
_FOLDERS = (ROOT / ".tools" / "bin", Path(sys.executable).parent)

#: What compose.yaml wants from docker/.env; nothing that it could be confused with.
SECRETS = {
    "ADMIN_KEY": "operator-key-of-the-test-32-characters",
    "QDRANT_API_KEY": "qdrant-key-of-the-test",
    "S3_ACCESS_KEY": "s3-access-of-the-test",
    "S3_SECRET_KEY": "s3-secret-of-the-test",
}


def missing(what: str) -> NoReturn:
    """Skip, or fail where CI says that everything has to be there."""
    if os.environ.get("DEEPLENS_REQUIRE_DEPLOY") == "1":
        pytest.fail(f"DEEPLENS_REQUIRE_DEPLOY is set, and there is no {what}")
    pytest.skip(f"no {what}; docs/deploying.md says where it comes from")


def module(name: str) -> ModuleType:
    """Return a library that only these tests need."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"Python module {name}")


def program(name: str) -> str:
    local = (str(folder / name) for folder in _FOLDERS if (folder / name).exists())
    found = next(local, None) or shutil.which(name)
    if found is None:
        missing(name)
    return found


def run(
    *command: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None, ok: bool = True
) -> str:
    """Return what the command says; `ok` is whether it has to succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout if ok else done.stdout + done.stderr
