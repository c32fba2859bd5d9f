"""The worker's log file: kept small, and read for why a worker ended."""

import contextlib
import json
from pathlib import Path

_MAX_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 64 * 1024
#: What a worker prints when it refuses to go on; the rest is a sentence for people.
_VERDICT = "deeplens: "
_GRAVE = ("critical", "error", "warning")


def rotate(log: Path) -> None:
    """Put a log that has grown large aside; of those one is kept."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _MAX_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


def size(log: Path) -> int:
    """Return the bytes in the log now, for `last_words` to begin at."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def last_words(log: Path, offset: int = 0) -> str | None:
    """Return what the log says, from `offset` on, that most likely ended its worker."""
    try:
        with log.open("rb") as file:
            file.seek(max(offset, size(log) - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    said: dict[str, str] = {}
    for line in filter(str.strip, lines):
        level, text = _parse(line)
        said[level] = text
    for level in (_VERDICT, *_GRAVE, ""):
        if level in said:
            return said[level]
    return None


def _parse(line: str) -> tuple[str, str]:
    """Return a line's level and what it says to people."""
    if line.startswith(_VERDICT):
        return _VERDICT, line.removeprefix(_VERDICT)
    try:
        entry = json.loads(line)
        event = str(entry["event"]).strip().partition("\n")[0]
    except (ValueError, KeyError, TypeError):
        return "", line.strip()
    reason = entry.get("reason") or entry.get("error")
    return str(entry.get("level", "")), f"{event}: {reason}" if reason else event
