"""Agents as they register themselves, without Faust: their own stages, over messages at hand."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

from agents import register
from deeplens_streams.broker.topics import Message, Topic
from deeplens_streams.services import Services
from deeplens_streams.tenancy.registry import Registry
from tests.support.stage_messages import incoming


class Sender(Protocol):
    async def send(self, *messages: Message) -> None: ...


class Stream:
    """What is used of a Faust stream, all of whose messages are there from the start.

    Attributes
    ----------
    acked : messages that are at their end.
    """

    def __init__(self, values: Iterable[bytes], first_offset: int = 0) -> None:
        self._values = list(values)
        self._first = first_offset
        self._taken = self.acked = 0
        self.enable_acks = True
        self.channel = SimpleNamespace(empty=lambda: self._taken == len(self._values))

    async def events(self) -> AsyncIterator[Any]:
        for value in self._values:
            message = incoming(value)
            message.message.offset = self._first + self._taken
            message.ack = self._ack
            self._taken += 1
            yield message

    def _ack(self) -> None:
        self.acked += 1


Agent = Callable[[Stream], Awaitable[None]]


def registered(
    modules: Iterable[ModuleType],
    services: Services,
    sender: Sender,
    tables: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> dict[Topic, Agent]:
    """Return the agents of `modules` by the topic that they read."""
    agents: dict[Topic, Agent] = {}

    def agent(topic: Topic, **_options: Any) -> Callable[[Agent], Agent]:
        def keep(found: Agent) -> Agent:
            agents[topic] = found
            return found

        return keep

    app: Any = SimpleNamespace(agent=agent, tables=tables or {})
    publisher: Any = SimpleNamespace(channel=lambda topic: topic, send=sender.send)
    register(modules, app, services, publisher, registry)
    return agents
