"""Sockets that reach the public internet alone, for addresses that strangers chose.

The check is made where the socket is: on the very address that is connected to, whether it came
from a name, stood in the URL as a number, or was asked for by a redirect. What a name stands for
when it is looked up again does not matter, because nobody looks again.
"""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]

#: Public by their numbers, and yet a cloud's own service or a tunnel into another network.
_NOT_FOR_STRANGERS: Final = tuple(
    ip_network(each)
    for each in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16")
)
#: Where IPv6 addresses of the public internet are.
_UNICAST: Final = IPv6Network("2000::/3")
#: IPv4 addresses as a network without IPv4 writes them.
_NAT64: Final = IPv6Network("64:ff9b::/96")


class NotPublic(OSError):
    """The address is not one of the public internet."""


def is_public(text: str) -> bool:
    """Tell whether a numeric address is one that anybody may be sent to."""
    try:
        address = _meant(ip_address(text))
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and (address not in _UNICAST or address.scope_id):
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NOT_FOR_STRANGERS)
    )


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that is written as an IPv6 one, if it is."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


class PublicSockets:
    """Makes sockets for public addresses; `refused` tells whether another was asked for."""

    def __init__(self, allow: Callable[[str], bool] = is_public) -> None:
        self.refused = False
        self._allow = allow

    def __call__(self, info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._allow(str(address[0])):
            self.refused = True
            raise NotPublic(f"{address[0]} is not public")
        return socket.socket(family, kind, protocol)
