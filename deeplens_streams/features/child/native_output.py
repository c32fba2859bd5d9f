"""What native libraries print to file descriptor 2 of the model's process, as lines of the log.

The process itself logs elsewhere, so that its parent can tell the two apart.
"""

import asyncio
import logging
import os
import sys

#: Characters of a line that are kept.
_LINE = 300

#: `logs` lets one line of it through in a while: pictures of strangers make libraries talk.
_native = logging.getLogger("native")


def log_to(descriptor: int) -> None:
    """Have this process log to `descriptor` and leave 2 to libraries."""
    sys.stderr = os.fdopen(descriptor, "w", buffering=1, errors="backslashreplace")


async def relay(printed: asyncio.StreamReader) -> None:
    """Log each line that comes, to the end of the stream."""
    while True:
        try:
            line = await printed.readline()
        except ValueError:  # longer than the reader's buffer, which drops it
            continue
        if not line:
            return
        if text := line.decode("utf-8", "replace").strip():
            _native.info("a native library printed: %s", text[:_LINE])
