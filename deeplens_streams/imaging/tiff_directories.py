"""The directories of a TIFF: those of its chain and those below them, read as they stand."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

#: Directories, entries of one, and numbers of an entry, at the most.
_DIRECTORIES: Final = 32
_ENTRIES: Final = 1_000
_NUMBERS: Final = 16
_ASCII_BYTES: Final = 200
SUB_DIRECTORIES: Final = 330

#: By the number of the format: where the first one is told, and the forms of a count of entries, of
#: an entry, and of a place.
_FORMS: Final = {42: (4, "H", "HHI", "I"), 43: (8, "Q", "HHQ", "Q")}
#: Types of entries that are numbers; all others but text are passed over.
_TYPES: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TEXT: Final = 2


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory.

    Attributes
    ----------
    numbers : by tag; of long ones the first few.
    texts : by tag.
    cut : whether some of its numbers lie behind the end of the file.
    """

    numbers: dict[int, tuple[int, ...]]
    texts: dict[int, str]
    cut: bool = False

    def number(self, tag: int, default: int = 0) -> int:
        return self.numbers.get(tag, (default,))[0]


def directories(file: BinaryIO) -> list[Directory]:
    """Return a TIFF's directories, the first one first, up to where the file is damaged."""
    found: list[Directory] = []
    seen: set[int] = set()
    try:
        file.seek(0)
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        at, *forms = _FORMS[struct.unpack(f"{order}H", head[2:4])[0]]
        reader = _Reader(file, order, *forms)
        waiting = [struct.unpack_from(f"{order}{forms[2]}", head, at)[0]]
        while waiting and len(found) < _DIRECTORIES:
            place = waiting.pop(0)
            if not place or place in seen:
                continue
            seen.add(place)
            directory, following = reader.read(place)
            found.append(directory)
            waiting += [following, *directory.numbers.get(SUB_DIRECTORIES, ())]
    except (struct.error, KeyError, OverflowError, OSError, ValueError):
        pass
    return found


class _Reader:
    def __init__(self, file: BinaryIO, order: str, count: str, entry: str, place: str) -> None:
        self._file = file
        self._order, self._count, self._entry, self._place = order, count, entry, place

    def read(self, place: int) -> tuple[Directory, int]:
        """Return the directory at a place, and the place of the next one of its chain."""
        self._file.seek(place)
        (entries,) = self._take(self._count)
        if entries > _ENTRIES:
            raise ValueError
        told = [
            (self._take(self._entry), self._file.read(struct.calcsize(f"={self._place}")))
            for _ in range(entries)
        ]
        (following,) = self._take(self._place)
        numbers, texts = dict[int, tuple[int, ...]](), dict[int, str]()
        for (tag, kind, count), value in told:
            if kind == _TEXT:
                content = self._content(value, min(count, _ASCII_BYTES), count)
                texts[tag] = content.split(b"\0")[0].decode("ascii", "replace")
            elif kind in _TYPES and count:
                numbers[tag] = tuple(self._numbers(kind, count, value))
        there = {tag: each for tag, each in numbers.items() if each}
        return Directory(there, texts, len(there) < len(numbers)), following

    def _numbers(self, kind: int, count: int, value: bytes) -> Iterator[int]:
        form = _TYPES[kind]
        size = struct.calcsize(f"={form}")
        wanted = min(count, _NUMBERS)
        content = self._content(value, wanted * size, count * size)
        if len(content) == wanted * size:
            yield from struct.unpack(f"{self._order}{wanted}{form}", content)

    def _content(self, value: bytes, wanted: int, whole: int) -> bytes:
        """Return the first bytes of an entry's content, which lies elsewhere if it is long."""
        if whole <= len(value):
            return value[:wanted]
        self._file.seek(struct.unpack(f"{self._order}{self._place}", value)[0])
        return self._file.read(wanted)

    def _take(self, form: str) -> tuple[int, ...]:
        return struct.unpack(f"{self._order}{form}", self._file.read(struct.calcsize(f"={form}")))
