"""Freed memory, which glibc keeps for the thread that freed it, goes back to the system."""

import ctypes
from typing import Final

_malloc_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim() -> None:
    """Give back what is free; another C library does that by itself, or not at all."""
    if _malloc_trim is not None:
        _malloc_trim(0)
