"""What some tests need beside Python packages: where it is looked for, and what is said without it.

A test says what it needs by a mark, ``needs("haproxy")``, or by a fixture that does. That is asked
before anything is set up for it: a skip in the middle would leave sockets and processes behind.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from deeplens_streams.embedded_kafka.jars import kafka_jars
from deeplens_streams.embedded_kafka.java import find_java
from deeplens_streams.errors import DeepLensError
from tests.support.old_release import COMMIT
from tests.support.openapi_typescript import installed
from tests.support.picture_archives import ARCHIVES, pictures

ROOT = Path(__file__).parents[2]
#: Where `go install` puts programs for CI.
TOOLS = Path(os.environ.get("DEEPLENS_TOOLS") or ROOT / ".tools" / "bin")
#: Where pictures are kept that were fetched.
PICTURES = TOOLS.parent / "pictures"


class Missing(Exception):
    """Why it cannot be had here."""


@dataclass(frozen=True)
class Need:
    """Something that not every machine has.

    Attributes
    ----------
    look : returns what is started, or raises Missing.
    required : the variable that makes its absence a failure, for CI.
    """

    look: Callable[[], str]
    required: str


def _program(*names: str) -> Callable[[], str]:
    def look() -> str:
        for name in names:
            local = TOOLS / name
            found = str(local) if local.exists() else shutil.which(name)
            if found:
                return found
        raise Missing(f"{names[0]} is neither on PATH nor in {TOOLS}")

    return look


def _versitygw() -> str:
    binary = os.environ.get("DEEPLENS_VERSITYGW") or _program("versitygw")()
    with tempfile.NamedTemporaryFile() as probe:
        try:
            os.setxattr(probe.name, "user.probe", b"1")
        except (AttributeError, OSError) as error:
            raise Missing(f"the S3 server's folder takes no extended attributes: {error}") from None
    return binary


def _kafka() -> str:
    try:
        kafka_jars()
        return str(find_java().path)
    except DeepLensError as error:
        raise Missing(error.message) from None


def _small_disk() -> str:
    mount = _program("mount")()
    with tempfile.TemporaryDirectory() as folder:
        asked = (mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
        mounted = subprocess.run(asked, check=False, capture_output=True, text=True)
        if mounted.returncode:
            raise Missing(f"no disk can be mounted: {mounted.stderr.strip()}")
        subprocess.run(["umount", folder], check=True)
    return mount


def _old_release() -> str:
    git = _program("git")()
    asked = [git, "-C", str(ROOT), "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    if subprocess.run(asked, check=False, capture_output=True).returncode:
        raise Missing(f"the release {COMMIT[:7]} is not in this checkout's history")
    return COMMIT


def _pictures() -> str:
    try:
        for each in ARCHIVES:
            pictures(each, PICTURES)
    except OSError as error:
        raise Missing(str(error)) from None
    return str(PICTURES)


def _openapi_typescript() -> str:
    npm = _program("npm")()
    try:
        return str(installed(npm, TOOLS.parent / "openapi-typescript"))
    except OSError as error:
        raise Missing(str(error)) from None


NEEDS = {
    "chromium": Need(_program("chromium", "chromium-browser"), "DEEPLENS_REQUIRE_BROWSER"),
    "docker-compose": Need(_program("docker-compose"), "DEEPLENS_REQUIRE_DEPLOY"),
    "haproxy": Need(_program("haproxy"), "DEEPLENS_REQUIRE_DEPLOY"),
    "helm": Need(_program("helm"), "DEEPLENS_REQUIRE_DEPLOY"),
    "kafka": Need(_kafka, "DEEPLENS_REQUIRE_KAFKA"),
    "old release": Need(_old_release, "DEEPLENS_REQUIRE_OLD_RELEASE"),
    "openapi-typescript": Need(_openapi_typescript, "DEEPLENS_REQUIRE_OPENAPI_CLIENTS"),
    "openssl": Need(_program("openssl"), "DEEPLENS_REQUIRE_OPENSSL"),
    "picture archives": Need(_pictures, "DEEPLENS_REQUIRE_PICTURES"),
    "small disk": Need(_small_disk, "DEEPLENS_REQUIRE_SMALL_DISK"),
    "toxiproxy-server": Need(_program("toxiproxy-server"), "DEEPLENS_REQUIRE_TOXIPROXY"),
    "versitygw": Need(_versitygw, "DEEPLENS_REQUIRE_S3"),
}
#: By marks that say more than that.
MARKS = {"kafka": "kafka", "faults": "kafka", "browser": "chromium", "s3": "versitygw"}
#: By fixtures, whoever asks for them.
FIXTURES = {
    "authority": "openssl",
    "compose": "docker-compose",
    "kafka": "kafka",
    "own_kafka": "kafka",
    "page": "chromium",
    "proxy": "haproxy",
    "render": "helm",
    "s3": "versitygw",
    "s3_server": "versitygw",
    "secure": "openssl",
    "small_disk": "small disk",
    "yesterday": "old release",
}


@cache
def found(name: str) -> str | Missing:
    """Return what is started, or why there is nothing; looked for once."""
    try:
        return NEEDS[name].look()
    except Missing as missing:
        return missing


class _Running:
    """What the test that is running has said that it needs."""

    needs: frozenset[str] = frozenset()


def needs_of(item: pytest.Item) -> frozenset[str]:
    """Return what a test needs, by its marks and fixtures."""
    fixtures: Iterable[str] = getattr(item, "fixturenames", ())
    return frozenset(
        [
            *(name for mark in item.iter_markers("needs") for name in mark.args),
            *(MARKS[mark.name] for mark in item.iter_markers() if mark.name in MARKS),
            *(FIXTURES[fixture] for fixture in fixtures if fixture in FIXTURES),
        ]
    )


def ask_for(item: pytest.Item) -> None:
    """Skip the test where something is missing, or fail where CI says that it has to be there."""
    _Running.needs = needs_of(item)
    for name in sorted(_Running.needs):
        there = found(name)
        if isinstance(there, Missing):
            if os.environ.get(NEEDS[name].required) == "1":
                pytest.fail(f"{NEEDS[name].required} is set, and {there}", pytrace=False)
            pytest.skip(str(there))


def program(name: str) -> str:
    """Return the path of a program that the running test has said it needs."""
    assert name in _Running.needs, f"say that it is needed: pytest.mark.needs({name!r})"
    there = found(name)
    assert isinstance(there, str)
    return there
