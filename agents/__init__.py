"""Faust agents, one a file, called as their stage in the topology.

Each file has a ``register`` and a plain ``process`` that a test can call without Faust. They are
imported by name, because Faust's autodiscovery goes on without an agent that fails to import.
"""

from importlib import import_module
from types import ModuleType

from deeplens_streams.broker.topology import STAGES
from deeplens_streams.config import Role

#: What each role runs, in pipeline order.
AGENTS: dict[Role, tuple[ModuleType, ...]] = {
    role: tuple(import_module(f"agents.{each.name}") for each in STAGES if each.role is role)
    for role in Role
}
