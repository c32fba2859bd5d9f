"""Kafka's jars: a fixed list with checksums, kept in the user's Maven repository.

``jars.lock`` names every jar with its size and SHA-256, so that nothing has to be resolved
and nothing else is ever run. What is missing is fetched with jgo, checked, and moved into
place whole; with everything there, the network is not touched and jgo is not imported.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from deeplens_streams.errors import ConfigurationError

LOCK = Path(__file__).with_name("jars.lock")
_FETCHERS = 6
#: The link to a repository that is in no class path by its own name.
_LINK = "jars"

#: Called with how many jars have arrived, and of how many, while they do.
Progress = Callable[[int, int], None]


class JarsUnavailable(ConfigurationError):
    """Kafka's jars cannot be had."""

    code = "JARS_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Jar:
    """One file of the list.

    Attributes
    ----------
    coordinate : ``group:artifact:version``, as Maven names it.
    size : bytes.
    """

    coordinate: str
    size: int
    sha256: str

    @property
    def path(self) -> PurePosixPath:
        """Where a Maven repository keeps it."""
        group, artifact, version = self.coordinate.split(":")
        folder = PurePosixPath(*group.split("."), artifact, version)
        return folder / f"{artifact}-{version}.jar"

    def is_at(self, path: Path) -> bool:
        """Tell whether the file there is this jar, to the last bit."""
        try:
            if path.stat().st_size != self.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except OSError:
            return False


def read_lock(lock: Path = LOCK) -> list[Jar]:
    """Return the jars in the order of the class path."""
    jars = []
    for line in lock.read_text("ascii").splitlines():
        if line and not line.startswith("#"):
            coordinate, size, sha256 = line.split()
            jars.append(Jar(coordinate, int(size), sha256))
    return jars


def default_repository() -> Path:
    """Return the user's Maven repository: ``$M2_REPO``, else ``~/.m2/repository``."""
    return Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def kafka_jars(progress: Progress | None = None, *, repository: Path | None = None) -> list[Path]:
    """Return the verified jars, after fetching those that are missing.

    Raises
    ------
    JarsUnavailable
        One is missing and cannot be fetched, or is not what the list says.
    """
    repository = (repository or default_repository()).absolute()
    jars = read_lock()
    missing = missing_jars(jars, repository)
    if missing:
        _fetch(missing, repository, progress)
    return [repository / jar.path for jar in jars]


def class_path(jars: Sequence[Path], folder: Path) -> str:
    """Return how Java, running in `folder`, is told of the jars.

    A folder that has the separator in its name can be in no class path: then a link in `folder`
    leads to it.
    """
    if not any(os.pathsep in str(jar) for jar in jars):
        return os.pathsep.join(map(str, jars))
    link, repository = folder / _LINK, Path(os.path.commonpath(jars))
    link.unlink(missing_ok=True)
    link.symlink_to(repository)
    return os.pathsep.join(f"{_LINK}/{jar.relative_to(repository)}" for jar in jars)


def missing_jars(jars: Iterable[Jar], repository: Path) -> list[Jar]:
    """Return those that are not in the repository as they should be."""
    jars = list(jars)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing leaves the interpreter's lock
        there = pool.map(lambda jar: jar.is_at(repository / jar.path), jars)
        return [jar for jar, ok in zip(jars, there, strict=True) if not ok]


def _fetch(jars: list[Jar], repository: Path, progress: Progress | None) -> None:
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=repository, prefix=".deeplens-") as staging,
            ThreadPoolExecutor(_FETCHERS) as pool,
        ):
            fetch = partial(_fetch_one, staging=Path(staging), repository=repository)
            pending = [pool.submit(fetch, jar) for jar in jars]
            if progress:
                progress(0, len(jars))
            try:
                for done, future in enumerate(as_completed(pending), 1):
                    future.result()
                    if progress:
                        progress(done, len(jars))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    except OSError as error:
        raise JarsUnavailable(
            f"Kafka's jars cannot be kept in {repository}: {error.strerror or error}."
        ) from None


def _fetch_one(jar: Jar, *, staging: Path, repository: Path) -> None:
    try:
        import requests  # noqa: PLC0415 - both only where something has to be fetched
        from jgo import maven  # noqa: PLC0415
    except ImportError:
        raise JarsUnavailable(
            "Kafka's jars are fetched with jgo, which is not installed; "
            "run pip install 'deeplens-streams[embedded]', or set DEEPLENS_BROKER."
        ) from None
    group, artifact, version = jar.coordinate.split(":")
    context = maven.MavenContext(repo_cache=staging)
    try:
        fetched = context.project(group, artifact).at_version(version).artifact().resolve()
    except (requests.RequestException, RuntimeError):  # RuntimeError is jgo's "not there"
        raise JarsUnavailable(
            "Kafka's jars cannot be fetched from Maven Central; connect this machine to the "
            f"network once, or copy them into {repository}."
        ) from None
    if not jar.is_at(fetched):
        raise JarsUnavailable(
            f"{jar.coordinate} as fetched has another checksum than it must have; "
            "look whether a proxy answers in place of Maven Central."
        )
    target = repository / jar.path
    target.parent.mkdir(parents=True, exist_ok=True)
    fetched.replace(target)
