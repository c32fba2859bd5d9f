"""Which of the named files and folders are uploaded: pictures by content, and no leftovers."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deeplens_streams.imaging.formats import FORMATS, HEAD_BYTES, extensions, identify
from deeplens_streams.logs import escaped

#: What other programs keep beside pictures: thumbnails, their own data, what was thrown away.
_LEFTOVERS = frozenset({"@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found"})
_SUFFIXES = frozenset(suffix for each in FORMATS for suffix in extensions(each.content_type))


@dataclass(frozen=True, slots=True)
class Unsent:
    """A file or folder that is not sent, and why."""

    path: Path
    reason: str


@dataclass(slots=True)
class FoundFiles:
    """What is below the named paths.

    Attributes
    ----------
    pictures : files to send, in order; each once.
    passed_over : what is no picture, or a leftover of another program.
    unreadable : what could not be looked at.
    """

    pictures: list[Path] = field(default_factory=list)
    passed_over: list[Unsent] = field(default_factory=list)
    unreadable: list[Unsent] = field(default_factory=list)


def find_files(paths: Iterable[Path]) -> FoundFiles:
    """Return the named files, and the pictures in the named folders and below.

    A file in a folder is a picture by its first bytes. One that is called like a picture, and is
    none, is sent all the same: it is damaged, and that is to be heard of.
    """
    found = FoundFiles()
    for path in paths:
        if path.is_dir():
            for inside in sorted(_below(path, found)):
                _sort(inside, found)
        else:
            found.pictures.append(path)
    found.pictures = list(dict.fromkeys(found.pictures))
    return found


def _below(folder: Path, found: FoundFiles) -> Iterator[Path]:
    """Yield every file below; links to folders are not followed."""

    def note(error: OSError) -> None:
        found.unreadable.append(Unsent(Path(error.filename), error.strerror or str(error)))

    for name, folders, files in os.walk(folder, onerror=note):
        here = Path(name)
        for each in [each for each in folders if _is_leftover(each)]:
            found.passed_over.append(Unsent(here / each, "a folder that other programs keep"))
            folders.remove(each)
        yield from (here / each for each in files)


def _sort(path: Path, found: FoundFiles) -> None:
    if _is_leftover(path.name):
        found.passed_over.append(Unsent(path, "a hidden file"))
        return
    try:
        # A pipe would be waited for.
        head = _head(path) if path.is_file() else None
    except OSError as error:
        found.unreadable.append(Unsent(path, error.strerror or str(error)))
        return
    if head is None:
        found.passed_over.append(Unsent(path, "no file"))
    elif identify(head) is not None or path.suffix.lower() in _SUFFIXES:
        found.pictures.append(path)
    else:
        found.passed_over.append(Unsent(path, "no picture that is taken"))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _is_leftover(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFTOVERS


def shown(path: Path) -> str:
    """Return a path that can be printed: one line, and what is no UTF-8 with backslashes."""
    return escaped(os.fsencode(path).decode("utf-8", "backslashreplace"))
