"""Figures of memory."""

from pathlib import Path

_SMAPS = Path("/proc/self/smaps")


def mapped_bytes(folder: Path) -> int | None:
    """Return how much of the files below `folder` this process has mapped and in memory.

    Pages that the kernel may drop and read again count like any other. None where the kernel does
    not tell: Linux does.
    """
    inside, total = False, 0
    try:
        with _SMAPS.open("rb") as lines:
            for line in lines:
                if line.startswith(b"Rss:"):
                    total += int(line.split()[1]) * 1024 if inside else 0
                elif b"-" in line.split(b" ", 1)[0]:  # a mapping begins: addresses … path
                    inside = f"{folder}/".encode() in line
    except FileNotFoundError:
        return None
    return total


def share(amount: int, part: int, total: int) -> int:
    """Return a tenant's share of a shared collection's `amount`, by its number of vectors."""
    return amount if part == total else round(amount * part / total)
