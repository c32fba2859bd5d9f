"""Signals as a terminal's programs have them, whoever has started the tests."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """Start processes that SIGINT reaches.

    A shell's background job ignores it, and so does whatever it starts: `exec` resets a handler and
    keeps an ignored signal ignored.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
