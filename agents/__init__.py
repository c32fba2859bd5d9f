"""Faust agents, one a file, called as their stage in the topology.

Each file has a ``register`` and a plain ``process`` that a test can call without Faust. They are
imported by name, because Faust's autodiscovery goes on without an agent that fails to import.
"""

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from agents import status_tracking
from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topology import STAGES
from deeplens_streams.config import Role
from deeplens_streams.services import Services

if TYPE_CHECKING:
    import faust

#: What each role runs, in pipeline order.
AGENTS: dict[Role, tuple[ModuleType, ...]] = {
    role: tuple(import_module(f"agents.{each.name}") for each in STAGES if each.role is role)
    for role in Role
}


def register(
    modules: Iterable[ModuleType],
    app: "faust.App",
    services: Services,
    publisher: Publisher,
    tenants: status_tracking.Tenants | None,
) -> None:
    """Have an app run agents.

    Parameters
    ----------
    tenants : the registry, which the status table's agent asks; None without that.
    """
    for module in modules:
        known: dict[str, Any] = {"tenants": tenants} if module is status_tracking else {}
        module.register(app, services, publisher, **known)
