"""Running the programs that read deployment files for real."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.programs import program

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


Compose = dict[str, Any]


#: The Kubernetes that Helm is told of where none is there to be asked.
KUBERNETES = "1.33"
#: What a release needs at the least.
NEEDED = {
    "DEEPLENS_BROKER": "kafka://kafka-0.kafka:9092;kafka://kafka-1.kafka:9092",
    "DEEPLENS_STORAGE_URL": "s3://pictures/deeplens",
    "DEEPLENS_QDRANT_URL": "http://qdrant:6333",
}


def compose_config(*options: str, files: tuple[str, ...] = ("compose.yaml",)) -> Compose:
    """Return what Docker Compose makes of the files."""
    named = [part for file in files for part in ("--file", file)]
    # Without the .env that someone may have there.
    asked = (program("docker-compose"), "--env-file", os.devnull, *named, "config", *options)
    config: Compose = json.loads(run(*asked, "--format", "json", cwd=DOCKER, env=SECRETS))
    return config
