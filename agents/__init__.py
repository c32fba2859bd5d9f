"""Faust agents, one a file, in pipeline order.

Each file has one loop and a plain ``process`` that a test can call without Faust. They are
imported by name, because Faust's autodiscovery goes on without an agent that fails to import.
"""

from types import ModuleType

from agents import (
    dead_letters,
    feature_extraction,
    image_processing,
    notifications,
    purging,
    status_tracking,
    tenants,
    vector_indexing,
)
from deeplens_streams.config import Role

#: What each role runs, in pipeline order.
AGENTS: dict[Role, tuple[ModuleType, ...]] = {
    Role.PROCESS: (image_processing,),
    Role.EXTRACT: (feature_extraction,),
    Role.INDEX: (vector_indexing, purging),
    Role.API: (status_tracking, tenants, notifications, dead_letters),
}
