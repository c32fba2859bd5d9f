"""Which addresses a stranger may have this system connect to."""

import socket

import pytest

from deeplens_streams.ingest.private_networks import NotPublic, PublicSockets, is_public


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "93.184.215.14", "223.255.255.254", "2606:4700::1111", "2a00:1450:4001::1"),
        *("::ffff:1.1.1.1", "64:ff9b::101:101"),
    ],
)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.0.9", "::1", "::"),
        *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254"),
        *("169.254.169.254", "169.254.170.2", "fe80::1", "fe80::1%lo", "fec0::1"),
        *("100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1"),
        *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "ff02::1"),
        *("240.0.0.1", "255.255.255.255", "192.88.99.1"),
        # IPv4 in the clothes of IPv6
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2002:0a00:0001::1", "2001:0:7f00:1::1", "2001:db8::1", "2001:20::1"),
        *("2606:4700::1111%1", "localhost", "example.com", "", "1.1.1.1.1", "0x7f.1"),
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(address)


def test_no_socket_is_made_for_an_address_that_is_not_public() -> None:
    sockets = PublicSockets()
    with pytest.raises(NotPublic):
        sockets((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    assert sockets.refused
    with PublicSockets()((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 80))) as made:
        assert made.family == socket.AF_INET
