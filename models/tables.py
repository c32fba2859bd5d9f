"""What is told of a table's partitions."""

from enum import StrEnum


class PartitionState(StrEnum):
    """Whether a partition's rows can be read."""

    READY = "ready"
    RECOVERING = "recovering"
    """Its changelog is being read."""
    STANDBY = "standby"
    """A copy, kept for the day that its owner is gone."""
    MOVING = "moving"
    """Nobody owns it at this moment."""
    UNREACHABLE = "unreachable"
    """Its owner does not answer."""
