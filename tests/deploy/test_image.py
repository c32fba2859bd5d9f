"""The Dockerfile's form, and the health check that stands in it."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from deeplens_streams.config import Settings
from tests.deploy.tools import DOCKER, ROOT, run

DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
TEXTS = [DOCKER, ROOT / "docs" / "deploying.md"]


@pytest.fixture(scope="module")
def healthcheck() -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthcheck", DOCKER / "healthcheck.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hadolint_finds_no_fault() -> None:
    run(str(Path(sys.executable).with_name("hadolint")), str(DOCKER / "Dockerfile"))


def test_it_does_not_run_as_root() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["10001:10001"]
    assert "--uid 10001" in last


def test_tools_have_the_versions_of_the_makefile() -> None:
    [uv] = re.findall(r"^ARG UV_VERSION=(.*)$", DOCKERFILE, re.MULTILINE)
    assert f"UV_VERSION := {uv}\n" in (ROOT / "Makefile").read_text("utf-8")
    assert re.search(r"^ARG PYTHON=3\.1[123]\.\d+-slim-[a-z]+$", DOCKERFILE, re.MULTILINE)


def test_the_cpu_image_leaves_out_all_of_cuda_and_nothing_else() -> None:
    [pattern] = re.findall(r"grep -Ev '(.*)' /tmp/model.txt", DOCKERFILE)
    locked = re.findall(r"^([a-z0-9][a-z0-9._-]*==)\S+", LOCK, re.MULTILINE)
    left_out = {name.removesuffix("==") for name in locked if re.match(pattern, name)}
    of_cuda = {name for name in left_out if name.startswith(("nvidia-", "cuda-"))}
    assert left_out == of_cuda | {"torch", "torchvision", "triton"}
    assert not re.search(
        r"nvidia|cuda|cu1\d", " ".join({n.removesuffix("==") for n in locked} - left_out)
    )


@pytest.mark.parametrize(
    ("command", "environment", "asked"),
    [
        ("tini\0--\0deeplens\0worker\0-l\0info\0", {}, ":8080/health/live"),
        ("deeplens\0worker\0", {"DEEPLENS_ROLES": "index"}, ":8080/health/live"),
        ("deeplens\0worker\0", {"DEEPLENS_WEB_PORT": "90"}, ":90/health/live"),
        ("/sbin/docker-init\0--\0tini\0--\0deeplens\0extractor\0", {}, ":8001/health"),
        ("deeplens\0extractor\0", {"DEEPLENS_EXTRACTOR_PORT": "91"}, ":91/health"),
    ],
)
def test_the_health_check_asks_what_runs(
    command: str, environment: dict[str, str], asked: str, healthcheck: ModuleType
) -> None:
    assert healthcheck.url(command.encode(), environment) == f"http://127.0.0.1{asked}"


def test_every_setting_that_is_named_exists() -> None:
    known = {f"DEEPLENS_{name.upper()}" for name in Settings.model_fields}
    files = [path for text in TEXTS for path in ([text] if text.is_file() else text.rglob("*"))]
    for path in files:
        if path.is_file() and path.suffix != ".pyc" and path.name != ".env":
            named = set(re.findall(r"DEEPLENS_[A-Z_]+[A-Z]", path.read_text("utf-8")))
            assert named <= known | {"DEEPLENS_REQUIRE_DEPLOY"}, path
