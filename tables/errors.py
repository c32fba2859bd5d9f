"""What a table's store raises, by whose matter it is."""

from collections.abc import Iterator
from contextlib import contextmanager

from deeplens_streams.errors import TableUnavailable
from tables.damage import TableFolderUnusable, is_of_rocksdb


@contextmanager
def table_faults() -> Iterator[None]:
    """Have what passes with a table's disk be a dependency that is away.

    A mistake of ours stays one, and a partition that is read from Kafka again says so itself.
    """
    try:
        yield
    except Exception as error:
        if is_of_rocksdb(error) or isinstance(error, OSError | TableFolderUnusable):
            raise TableUnavailable from error
        raise
