#!/usr/bin/env bash
# obstore 0.12.1. `list(store, offset=KEY)` gives the keys greater than KEY, which invites paging: take some,
# continue behind the last. In memory, as on S3, that works, because keys come in order. A LocalStore
# gives them in the order of the folders' entries, so "behind the last" leaves out keys that were never shown.
# And `delete` of several keys goes on past a missing one in memory, and ends there in a LocalStore.
#
# Seen with 120 keys: memory: all 120 by pages. local: 18, some of them twice; with a missing key in a batch,
# FileNotFoundError, and keys behind it may stay.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
from pathlib import Path

import obstore
from obstore.store import LocalStore, MemoryStore

KEYS = [f"{first}/{second}" for first in ("c", "a", "b") for second in range(40)]


def listed(store, offset=None):
    return [meta["path"] for chunk in obstore.list(store, offset=offset) for meta in chunk]


def paged(store, size=7):
    seen, last = [], None
    while page := listed(store, last)[:size]:
        seen += page
        last = page[-1]
        if len(seen) > 10 * len(KEYS):
            break
    return seen


def batch_delete(store):
    try:
        obstore.delete(store, ["a/0", "a/none", "a/1"])
    except FileNotFoundError:
        return "FileNotFoundError"
    return "no error"


disk = Path(sys.argv[1], "objects")
disk.mkdir()
found = {}
for name, store in (("memory", MemoryStore()), ("local", LocalStore(disk))):
    for key in KEYS:
        obstore.put(store, key, b"x")
    whole, pages = listed(store), paged(store)
    found[name] = (len(set(whole)), len(set(pages)), batch_delete(store))
    print(f"{name}: {found[name][0]} listed whole, {found[name][1]} of {len(KEYS)} by pages, "
          f"{len(pages) - len(set(pages))} twice; a batch delete with a missing key: {found[name][2]}")
as_seen = (
    found["memory"] == (len(KEYS), len(KEYS), "no error")
    and found["local"][0] == len(KEYS)
    and found["local"][1] < len(KEYS)
    and found["local"][2] == "FileNotFoundError"
)
sys.exit(0 if as_seen else 1)
PY
