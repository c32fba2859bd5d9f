"""Databases that only this process needs: nothing of them is to survive it."""

import sqlite3
from pathlib import Path


def open_scratch(path: Path | None, *, cache_kib: int) -> sqlite3.Connection:
    """Open a database that is made anew each time, in one transaction that never ends.

    Each transaction that ends costs more than what is done in it.

    Parameters
    ----------
    path : its file, or None for one without a name, which is gone with the process.
    cache_kib : how much of it is in memory, KiB.
    """
    database = sqlite3.connect("" if path is None else path, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{cache_kib}"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("BEGIN")
    return database
