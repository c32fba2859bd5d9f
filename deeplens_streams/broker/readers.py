"""Which role reads which topic, and in which consumer group."""

from deeplens_streams.config import Role
from deeplens_streams.topics import (
    COMPLETED,
    DELETED,
    EXTRACTION,
    FAILED,
    INDEXING,
    PROGRESS,
    TENANT_CHANGES,
    UPLOADED,
    Topic,
)

#: Who reads what.
READERS: tuple[tuple[Role, Topic], ...] = (
    (Role.PROCESS, UPLOADED),
    (Role.EXTRACT, EXTRACTION),
    (Role.INDEX, INDEXING),
    (Role.INDEX, DELETED),
    (Role.API, PROGRESS),
    (Role.API, COMPLETED),
    (Role.API, FAILED),
    (Role.API, TENANT_CHANGES),
)
ROLES = {topic: role for role, topic in READERS}


def group_id(role: Role, namespace: str) -> str:
    """Return the consumer group of a role, which is its app's ID."""
    prefix = f"{namespace}-" if namespace else ""
    return f"{prefix}deeplens-{role.value}"
