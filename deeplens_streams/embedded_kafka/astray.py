"""Where Kafka's data lies, and bringing home what an earlier version wrote elsewhere.

That version gave Kafka the folder's absolute path in UTF-8. Kafka reads its properties as Latin-1
and ``log.dirs`` as a list: with ``/home/René`` it wrote to ``/home/RenÃ©``, and with ``/srv/a, b``
to ``/srv/a`` and to ``b`` below wherever it ran.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from deeplens_streams.errors import ConfigurationError

PROPERTIES = "server.properties"
LOG4J = "log4j2.properties"
#: Kafka's data, and its programs' logs, relative to its folder.
DATA, LOGS = "data", "logs"
#: It is in each folder that Kafka has prepared.
META = "meta.properties"

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_NODE = re.compile(r"^node\.id=1$", re.MULTILINE)
_CLUSTER = re.compile(r"^cluster\.id=(.+)$", re.MULTILINE)


class DataAstray(ConfigurationError):
    """Kafka's data of an earlier version cannot be brought to its folder."""

    code = "DATA_ASTRAY"


def log_dirs(folder: Path) -> list[str]:
    """Return the names of the folders that Kafka's data is in; several where it was astray."""
    count = 1
    while (folder / _name(count) / META).exists():
        count += 1
    return [_name(index) for index in range(count)]


def bring_home(folder: Path) -> Iterator[str]:
    """Move what an earlier version wrote elsewhere into `folder`, with a sentence for each part.

    What that version has written down about itself is what it goes by. Where `folder` is a copy
    of one that still stands, this is copied, too. May be repeated after a crash.

    Raises
    ------
    DataAstray
        A part of it is not to be found, or a running Kafka has it.
    OSError
        It cannot be moved.
    """
    meant = _written(folder / PROPERTIES, "log.dirs")
    read = _as_java_reads(folder / PROPERTIES, "log.dirs")
    if not meant.startswith("/") or (read == meant and "," not in read):
        return
    original = Path(meant).parent
    is_copy = not _is_same(original, folder) and (original / PROPERTIES).exists()
    parts = [part for part in re.split(r"\s*,\s*", read) if part]
    for name, source in _find(parts, folder, original).items():
        target = folder / name
        _require_unused(source)
        if is_copy:
            _copy(source, target)
        else:
            _move(source, target)
            _remove_empty(source.parent, folder)
        how = "copied" if is_copy else "moved"
        yield f"An earlier version kept Kafka's data in {source}; it is {how} to {target}."
    if not is_copy:
        _bring_logs(folder)


def _find(parts: list[str], folder: Path, original: Path) -> dict[str, Path]:
    """Return where each part lies that is not at home, by the name that it is to have."""
    found, missing = {}, []
    clusters = {_cluster(folder / _name(index)) for index in range(len(parts))} - {""}
    for index, part in enumerate(parts):
        if (folder / _name(index) / META).exists():
            continue
        # Kafka ran where somebody had started it: in the data folder, or somewhere above.
        for base in (Path.cwd(), *folder.parents, *original.parents):
            cluster = _cluster(base / part)  # of an absolute part, the base does not count
            if cluster and (not clusters or cluster in clusters):
                clusters.add(cluster)
                found[_name(index)] = base / part
                break
        else:
            missing.append(part)
    if missing and clusters:
        raise DataAstray(
            f"An earlier version kept a part of Kafka's data in {missing[0]}, where it is not; "
            f"bring it back, or move {folder} away to begin anew."
        )
    return found


def _name(index: int) -> str:
    return f"{DATA}-{index + 1}" if index else DATA


def _cluster(folder: Path) -> str:
    """Return the ID of the cluster whose data is there, or an empty text if it is none of ours."""
    with suppress(OSError, UnicodeDecodeError):
        text = (folder / META).read_text("utf-8")
        cluster = _CLUSTER.search(text)
        if cluster and _NODE.search(text):
            return cluster[1]
    return ""


def _written(path: Path, name: str) -> str:
    """Return a value as that version wrote it, or an empty text."""
    with suppress(OSError):
        for line in path.read_bytes().split(b"\n"):
            if line.startswith(f"{name}=".encode()):
                return os.fsdecode(line.partition(b"=")[2])
    return ""


def _as_java_reads(path: Path, name: str) -> str:
    """Return what Java has taken that value for."""
    text = _written(path, name).encode("utf-8", "surrogateescape").decode("latin-1")

    def plain(escape: re.Match[str]) -> str:
        code, char = escape.groups()
        return chr(int(code, 16)) if code else _ESCAPES.get(char, char)

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", plain, text).strip()


def _is_same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False


def _require_unused(data: Path) -> None:
    with suppress(FileNotFoundError), (data / ".lock").open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataAstray(
                f"Kafka's data of an earlier version is in {data} and is in use; stop that first."
            ) from None


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, target)
        shutil.rmtree(source)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, which is there whole or not at all."""
    aside = target.with_name(f".{target.name}.copying")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside)
    aside.rename(target)


def _remove_empty(place: Path, folder: Path) -> None:
    """Remove `place` and what is above it, where nothing is left and nothing is of `folder`."""
    with suppress(OSError):  # something is in it
        while place != folder and place not in folder.parents:
            place.rmdir()
            place = place.parent


def _bring_logs(folder: Path) -> None:
    """Move Kafka's own log, too; log4j took the path for no list."""
    log = Path(_as_java_reads(folder / LOG4J, "appender.file.fileName"))
    if not log.is_absolute() or _is_same(log.parent, folder / LOGS):
        return
    for path in log.parent.glob(f"{log.name}*"):
        target = folder / LOGS / path.name
        if not target.exists():
            shutil.move(path, target)
    _remove_empty(log.parent, folder)
