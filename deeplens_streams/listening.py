"""Whether the web server can listen where it is to, said before anything is started."""

import socket

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError


def require_port(settings: Settings, hint: str) -> None:
    """Raise `ConfigurationError` unless the web server can listen where it is to."""
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
