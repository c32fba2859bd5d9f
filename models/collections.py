"""What is told of a collection of vectors."""

from enum import StrEnum


class CollectionStatus(StrEnum):
    """What a collection's state is called, as Qdrant calls it."""

    GREEN = "green"
    """All is well."""
    YELLOW = "yellow"
    """It is being optimized, or an optimization waits; everything works meanwhile."""
    RED = "red"
    """It cannot be read, or its last optimization failed."""
