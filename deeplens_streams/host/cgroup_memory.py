"""A memory limit of the model's process alone, below that of its container.

When a container reaches its limit, the kernel may end all of its processes at once, as it does
under Kubernetes. Then nobody is left who knows of which picture it was. With a limit of its own
the model's process ends alone, and the worker finds out.
"""

import errno
import os
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Bytes of memory that decoding one picture maps for each plain pixel: it takes 4 of them.
MAPPED_BYTES = 5
#: The same of one picture after another, because malloc keeps what was freed in pieces.
WANTED_BYTES = 8
#: The exit status of a process that ran out of it. It ends, since malloc may keep what was freed in
#: pieces, and the limit counts what is kept: sooner or later nothing large would fit any more.
OUT_OF_MEMORY = errno.ENOMEM

#: Of a container's memory, one part of so many is left to the worker to grow by.
_WORKERS_PART = 8
#: With less no picture could be decoded at all.
_LEAST_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class _Names:
    """Where one version of control groups keeps a limit, what is used, and what of it is cache."""

    mount: str
    limit: str
    used: str
    cache: tuple[str, ...]


_V1 = _Names(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)
_V2 = _Names(
    "sys/fs/cgroup",
    "memory.max",
    "memory.current",
    # What it knows of files that were looked at, by the million in an audit, is cache as well.
    ("active_file", "inactive_file", "slab_reclaimable"),
)


def container_room(root: Path = Path("/")) -> int | None:
    """Return how many bytes the processes of this container may take beside what they have.

    None where there is no limit below the machine's own memory, or no Linux. What the kernel keeps
    of files counts as free. It may be negative.

    Parameters
    ----------
    root : the folder that has ``proc`` and ``sys``.
    """
    rooms = [_room(folder, names) for folder, names in _groups(root)]
    return min((each for each in rooms if each is not None), default=None)


def limit_memory(room: int) -> int:
    """Let this process map `room` bytes more of its own, and return how many these are.

    Private memory counts that can be written, whether it was or not: more than is used, so a
    process that keeps to its limit keeps to its room.
    """
    room = max(room, _LEAST_BYTES)
    limit, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _mapped() + room
    if limit == resource.RLIM_INFINITY or wanted < limit:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    return room


def memory_left() -> int | None:
    """Return how many bytes this process may map still; None without a limit."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return None if limit == resource.RLIM_INFINITY else limit - _mapped()


def _mapped() -> int:
    status = Path("/proc/self/status").read_text("ascii", errors="replace")
    found = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _groups(root: Path) -> Iterator[tuple[Path, _Names]]:
    """Yield the folders of the control groups that this process is in, with all above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = _V2
        elif "memory" in controllers.split(","):
            names = _V1
        else:
            continue
        # A container may see its own group as the root, whatever the path says.
        within = PurePosixPath(path.lstrip("/"))
        for each in (within, *within.parents):
            yield root / names.mount / each, names


def _room(group: Path, names: _Names) -> int | None:
    try:
        limit = (group / names.limit).read_text().strip()
        used = int((group / names.used).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if limit == "max" or int(limit) >= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        return None
    used -= sum(int(stat.get(each, 0)) for each in names.cache)
    return int(limit) - int(limit) // _WORKERS_PART - used
