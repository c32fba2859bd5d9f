"""Whether RocksDB's files belong together, which it does not look at itself."""

import contextlib
from pathlib import Path
from typing import Any


def tables_in(folder: Path) -> frozenset[int]:
    """Return the numbers of the table files that are not empty; to be asked before an open."""
    found = set()
    for each in folder.glob("*.sst"):
        with contextlib.suppress(OSError, ValueError):
            if each.stat().st_size:
                found.add(int(each.stem))
    return frozenset(found)


def has_unknown_tables(before: frozenset[int], database: Any) -> bool:
    """Tell whether there were table files that the database which was opened does not know.

    A manifest that was cut short names fewer files than there are. RocksDB then goes on with those
    and with the last write-ahead log: thousands of rows are missing in between, and what was
    written last, the offset in the changelog, is there. The others are removed.

    One that was killed while it wrote a table leaves an unknown one, too, and misses nothing. The
    two look the same, and reading the changelog costs less than rows that are missing for ever.
    """
    return bool(before - {int(Path(each["name"]).stem) for each in database.live_files()})
