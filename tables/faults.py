"""What a table's store raises, as a dependency that is away."""

from collections.abc import Iterator
from contextlib import contextmanager

from deeplens_streams.errors import TableUnavailable


@contextmanager
def table_faults() -> Iterator[None]:
    """Whatever a table's store raises passes with its disk, and is no fault of the event."""
    try:
        yield
    except Exception as error:
        raise TableUnavailable from error
