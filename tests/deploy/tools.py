"""Running the programs that read deployment files for real."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
CHART = DOCKER / "helm" / "deeplens"

#: What compose.yaml wants from docker/.env; nothing that it could be confused with.
SECRETS = {
    "ADMIN_KEY": "operator-key-of-the-test-32-characters",
    "QDRANT_API_KEY": "qdrant-key-of-the-test",
    "S3_ACCESS_KEY": "s3-access-of-the-test",
    "S3_SECRET_KEY": "s3-secret-of-the-test",
}


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
