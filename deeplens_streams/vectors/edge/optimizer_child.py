"""Optimizes a collection that nobody else has open: ``python -m …optimizer_child FOLDER PARENT``.

Edge holds Python's lock for as long as it works, half a minute and more, so this is a process of
its own. It prints whether anything was changed.
"""

import ctypes
import os
import signal
import sys

import qdrant_edge as edge

#: Below what people wait for.
_NICENESS = 10
_PR_SET_PDEATHSIG = 1


def main() -> None:
    folder, parent = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to act on
    os.nice(_NICENESS)
    _end_with(parent)
    shard = edge.EdgeShard.load(folder)
    changed = shard.optimize()
    shard.flush()
    shard.close()
    sys.stdout.write("changed" if changed else "unchanged")


def _end_with(parent: int) -> None:
    """Have Linux kill this process when its parent dies; elsewhere it ends with its work."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("its parent died")


if __name__ == "__main__":
    main()
