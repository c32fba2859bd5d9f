"""Ports: whether a server can listen there, free ones, and those that were used last time."""

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import NamedTuple

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError

#: In Kafka's folder, where the ports stand.
PORTS = "ports.json"
#: Seconds that the sockets of a process have to close which was killed a moment ago.
LEFT_BEHIND_S = 5.0
_POLL_S = 0.1


class Ports(NamedTuple):
    """Where Kafka's clients connect, and where its controller listens."""

    broker: int
    controller: int


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen there now."""
    try:
        _try_to_listen(host, port)
    except (OSError, OverflowError):  # the latter of a number that is no port
        return False
    return True


def require_port(settings: Settings, hint: str, *, patience_s: float = 0.0) -> None:
    """Raise `ConfigurationError` unless the web server can listen where it is to.

    Parameters
    ----------
    hint : what sets another port.
    patience_s : seconds that whoever listens there has to end.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _try_to_listen(settings.web_host, settings.web_port)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ConfigurationError(
                    f"Port {settings.web_port} on {settings.web_host} cannot be used "
                    f"({(error.strerror or str(error)).lower()}); choose another with {hint}."
                ) from None
        time.sleep(_POLL_S)


def _try_to_listen(host: str, port: int) -> None:
    """Listen for a moment; raises the `OSError` that a server would have."""
    family, kind, _, _, address = socket.getaddrinfo(
        host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind) as probe:
        # As servers do: connections that linger from the last one are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address[0], port, *address[2:]))
        # Two binds with that option may succeed; two listeners may not.
        probe.listen(1)


def free_port() -> int:
    """Return a port that the system says is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def remembered_broker(memory: Path) -> int | None:
    """Return last time's port of the broker if something answers there now, else None."""
    port, _ = _recall(memory)
    if port is None:
        return None
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return port
    except (OSError, OverflowError):
        return None


def choose_ports(memory: Path, wanted: int | None) -> Ports:
    """Return two free ports: `wanted`, else last time's, else any; and remember them."""
    last = _recall(memory)
    chosen: list[int] = []
    for port in (wanted or last[0], last[1]):
        usable = port is not None and port not in chosen and (port == wanted or is_free(port))
        chosen.append(port if usable and port is not None else free_port())
    ports = Ports(*chosen)
    memory.write_text(json.dumps(ports._asdict()), "ascii")
    return ports


def _recall(memory: Path) -> tuple[int | None, int | None]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(memory.read_text("ascii"))
        return int(kept["broker"]), int(kept["controller"])
    return None, None
