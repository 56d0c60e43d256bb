from __future__ import annotations

import ipaddress

import pytest

from chalicelib.guard import ForbiddenTarget, Guard, literal

FORBIDDEN = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
"""The IANA special-purpose registries, the metadata addresses of clouds, and IPv4 in IPv6."""

GLOBAL = ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]

IN_DISGUISE = {
    "2130706433": "127.0.0.1",
    "0x7f000001": "127.0.0.1",
    "0x7f.0.0.1": "127.0.0.1",
    "0177.0.0.1": "127.0.0.1",
    "017700000001": "127.0.0.1",
    "127.1": "127.0.0.1",
    "127.0.1": "127.0.0.1",
    "127.0.0.1.": "127.0.0.1",
    "0": "0.0.0.0",
    "0xa9fea9fe": "169.254.169.254",
    "2852039166": "169.254.169.254",
    "0251.0376.0251.0376": "169.254.169.254",
    "0xa.0.0.1": "10.0.0.1",
    "[::1]": "::1",
    "[::ffff:7f00:1]": "::ffff:7f00:1",
}


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_globally_routable_is_refused(address: str) -> None:
    with pytest.raises(ForbiddenTarget):
        Guard().check("h", [address])


@pytest.mark.parametrize("address", GLOBAL)
def test_a_global_address_may_be_called(address: str) -> None:
    Guard().check("h", [address])


def test_one_forbidden_address_among_good_ones_refuses_them_all() -> None:
    with pytest.raises(ForbiddenTarget, match=r"10\.0\.0\.1"):
        Guard().check("h", ["8.8.8.8", "10.0.0.1"])


@pytest.mark.parametrize(("host", "address"), IN_DISGUISE.items())
def test_an_address_is_known_in_any_notation(host: str, address: str) -> None:
    assert literal(host) == address
    with pytest.raises(ForbiddenTarget):
        Guard().check_literal(host)


@pytest.mark.parametrize(
    "host", ["example.com", "1.example.com", "a.1b", "localhost", "10.0.0.1.nip.io"]
)
def test_a_name_is_no_address(host: str) -> None:
    assert literal(host) is None
    Guard().check_literal(host)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_offline_server_may_call_them_all(address: str) -> None:
    Guard(allow_private=True).check("h", [address])


def test_a_network_that_is_allowed_may_be_called_and_no_other() -> None:
    guard = Guard(allowed=(ipaddress.ip_network("10.1.0.0/16"),))
    guard.check("h", ["10.1.2.3"])
    with pytest.raises(ForbiddenTarget):
        guard.check("h", ["10.2.0.1"])
