"""Whether the web server can listen where it is to, said before anything is started."""

import socket
import time

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError

#: Seconds that the sockets of a process have to close which was killed a moment ago.
LEFT_BEHIND_S = 5.0
_POLL_S = 0.1


def require_port(settings: Settings, hint: str, *, patience_s: float = 0.0) -> None:
    """Raise `ConfigurationError` unless the web server can listen where it is to.

    Parameters
    ----------
    patience_s : seconds that whoever listens there has to end.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _try_port(settings, hint)
        except ConfigurationError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_S)


def _try_port(settings: Settings, hint: str) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.web_host, settings.web_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise ConfigurationError(
            f"Port {settings.web_port} on {settings.web_host} cannot be used "
            f"({(error.strerror or str(error)).lower()}); choose another with {hint}."
        ) from None
