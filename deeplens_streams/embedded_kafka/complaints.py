"""What a run of Kafka said in its logs: its errors, and which of them says why it ended."""

import re
from pathlib import Path

_EXCEPTION = re.compile(r"(Caused by: )?[\w.$]+(Exception|Error): ")
_ERROR = re.compile(r".* (ERROR|FATAL) ")
#: What log4j begins a record with: time and level.
_RECORD = re.compile(r"\d{4}-\d\d-\d\dT[\d:,.]+Z (?P<level>[A-Z]+) ")
_BAD = {"ERROR", "FATAL"}


def lines(path: Path, offset: int = 0) -> list[str]:
    """Return what was written behind `offset`, but for blank lines and frames of stack traces."""
    try:
        text = path.read_bytes()[offset:].decode("utf-8", "replace")
    except OSError:
        return []
    # Frames say little, and the JVM's own warnings are about the future.
    found = (line for line in text.splitlines() if line.strip())
    return [line for line in found if not line.startswith(("\t", " ", "WARNING:"))]


def last_words(said: list[str]) -> str:
    """Return the line that most likely says why it ended."""
    for pattern in (_EXCEPTION, _ERROR):
        found = [line for line in said if pattern.match(line)]
        if found:
            return found[-1].removeprefix("Caused by: ")
    return said[-1] if said else "it said nothing"


def errors(said: list[str]) -> list[str]:
    """Return each error and the exceptions behind it; of what it mends itself Kafka warns."""
    found, is_bad = list[str](), True
    for line in said:
        record = _RECORD.match(line)
        is_bad = is_bad if record is None else record["level"] in _BAD
        if is_bad:
            found.append(line)
    return found
