"""What is known of a backup's objects, in a file, so that memory does not grow with them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deeplens_streams.host.scratch_database import open_scratch

#: Entries that are in memory together.
PAGE = 1000
#: KiB of the file that are in memory.
_CACHE_KIB = 64 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a backup.

    Attributes
    ----------
    size : bytes.
    sha256 : None where nobody noted it.
    stamp : what a listing of the source said of it when it was copied, None where nobody knows.
    fault : what was wrong with it at the source already.
    """

    key: str
    size: int
    sha256: str | None
    stamp: str | None = None
    fault: str | None = None


class Catalogue:
    """Entries by key, each with a mark that says whether this run has seen it.

    Parameters
    ----------
    folder : where its file lies, about 250 bytes for each entry.
    """

    def __init__(self, folder: Path) -> None:
        # What a crash leaves of it is of no use to anybody.
        self._db = open_scratch(folder / "catalogue.sqlite", cache_kib=_CACHE_KIB)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, size INTEGER, sha256 TEXT,"
            " stamp TEXT, fault TEXT, seen INTEGER) WITHOUT ROWID"
        )

    def close(self) -> None:
        self._db.close()

    def get(self, key: str) -> Entry | None:
        row = self._db.execute(
            "SELECT key, size, sha256, stamp, fault FROM entries WHERE key = ?", (key,)
        ).fetchone()
        return Entry(*row) if row else None

    def put(self, *entries: Entry, seen: bool) -> None:
        """Enter what is known by now, whatever was known before."""
        self._db.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            [(e.key, e.size, e.sha256, e.stamp, e.fault, seen) for e in entries],
        )

    def add(self, entries: Iterable[Entry]) -> None:
        """Enter those of whose key nothing is known."""
        self._db.executemany(
            "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?, 0)",
            [(e.key, e.size, e.sha256, e.stamp, e.fault) for e in entries],
        )

    def mark(self, key: str) -> bool:
        """Mark an entry as seen; False if there is none."""
        return self._db.execute("UPDATE entries SET seen = 1 WHERE key = ?", (key,)).rowcount > 0

    def is_seen(self, key: str) -> bool:
        found = self._db.execute("SELECT seen FROM entries WHERE key = ?", (key,)).fetchone()
        return bool(found and found[0])

    def remove(self, key: str) -> None:
        self._db.execute("DELETE FROM entries WHERE key = ?", (key,))

    def entries(self, *, below: str = "", seen: bool | None = None) -> Iterator[Entry]:
        """Yield entries by key; they may be changed meanwhile.

        Parameters
        ----------
        below : a folder, ending in ``/``, or all.
        seen : those of this mark alone.
        """
        # The character behind "/" is "0".
        end = f"{below[:-1]}0" if below else "\U0010ffff"
        query = (
            "SELECT key, size, sha256, stamp, fault FROM entries"
            " WHERE key > ? AND key < ? AND seen >= ? AND seen <= ? ORDER BY key LIMIT ?"
        )
        marks = (0, 1) if seen is None else (int(seen), int(seen))
        after = below
        while rows := self._db.execute(query, (after, end, *marks, PAGE)).fetchall():
            for row in rows:
                yield Entry(*row)
            after = rows[-1][0]

    def totals(self) -> tuple[int, int]:
        """Return how many entries there are, and their bytes."""
        count, size = self._db.execute("SELECT COUNT(*), TOTAL(size) FROM entries").fetchone()
        return count, int(size)
