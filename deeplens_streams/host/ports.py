"""Free ports on loopback, and the ones that were used last time."""

import contextlib
import json
import socket
from pathlib import Path
from typing import NamedTuple

#: In Kafka's folder, where the ports stand.
PORTS = "ports.json"


class Ports(NamedTuple):
    """Where Kafka's clients connect, and where its controller listens."""

    broker: int
    controller: int


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections that linger from the last one are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Two binds with that option may succeed; two listeners may not.
            probe.listen(1)
        except OSError:
            return False
    return True


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
