"""What each decoder of the model's process works on, in memory that its parent sees, too.

A decoder that crashes tells nobody, and one that loops may hold the interpreter while it does;
what it wrote before is there all the same.
"""

import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_BYTES = mmap.PAGESIZE


class InFlightRegister:
    """Numbers of pictures, none of which is 0; one place for each decoder.

    Parameters
    ----------
    descriptor : of the shared memory; it may be closed afterwards.
    """

    def __init__(self, descriptor: int) -> None:
        self._places = memoryview(mmap.mmap(descriptor, _BYTES)).cast("Q")
        self._free = list(range(len(self._places)))

    @contextmanager
    def working(self, number: int) -> Iterator[None]:
        """Have it written that this thread works on a picture; called by its process alone."""
        place = self._free.pop()
        self._places[place] = number
        try:
            yield
        finally:
            self._places[place] = 0
            self._free.append(place)

    def read(self) -> set[int]:
        """Return what is being worked on, or was when the process ended."""
        return {number for number in self._places if number}


def shared_memory() -> IO[bytes]:
    """Return a file for one board, for a process and the child that inherits it."""
    file: IO[bytes]
    if sys.platform == "linux":  # there a container's folders may all be read-only
        file = os.fdopen(os.memfd_create("decoders"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 -- the caller closes it
    file.truncate(_BYTES)
    return file
