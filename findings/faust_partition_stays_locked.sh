#!/usr/bin/env bash
# faust-streaming 0.15.3 with rocksdict 0.3.29. When a table's partition goes to another worker, Faust's RocksDB store says
# "closing db" in its log and closes nothing: it forgets the database and runs the garbage collector. As long as anything
# else refers to that database (a row's change that waits for its acknowledgement, the frame of an exception that somebody
# keeps), RocksDB holds the lock of its folder, against its own process, too. If the partition comes back meanwhile, it
# cannot be opened; Faust tries thirty times, a second apart, and then the worker ends.
#
# Seen: with one reference left the folder cannot be opened again by the store that "closed" it; without it, it can.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check faust-streaming==0.15.3 rocksdict==0.3.29
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import asyncio
import sys

import faust
from faust.types import TP


async def main():
    app = faust.App("rebalanced", store="rocksdb://", datadir="data", autodiscover=False)
    table = app.Table("rows", partitions=1)
    store = table.data
    mine = {TP(table.changelog_topic.get_topic_name(), 0)}

    def comes_back():
        """Return what opening the partition says, once it has been away."""
        store.revoke_partitions(table, mine)
        try:
            store._db_for_partition(0)
        except Exception as error:
            return str(error).split(",")[0]
        return "opened"

    store._db_for_partition(0).put(b"key", b"value")
    alone = comes_back()
    kept = store._db_for_partition(0)
    held = comes_back()
    del kept
    let_go = comes_back()
    print("nothing else refers to it:", alone)
    print("something does:", held)
    print("no longer:", let_go)
    return (alone, "lock hold by current process" in held, let_go) == ("opened", True, "opened")


sys.exit(0 if asyncio.run(main()) else 1)
PY
