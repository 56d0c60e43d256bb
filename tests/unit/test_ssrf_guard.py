"""The addresses that may be called, and those that may not."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv6Address, ip_network

import pytest
from hypothesis import assume, given, settings
from hypothesis.strategies import ip_addresses

from chalicelib.domain.ssrf_guard import Address, ForbiddenTarget, Guard

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

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd00:c1::a9fe:a9fe",
    "fd20:ce::254",
    "fd00:42::42",
    "fd00:100::100:200",
    "fd00:a9fe:a9fe::1",
    "fe80::a9fe:a9fe",
    "::ffff:0:a9fe:a9fe",
    "::ffff:169.254.169.254",
    "::a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "64:ff9b:1::a9fe:a9fe",
]
"""Metadata services, and their addresses written in IPv6."""

MULTICAST = ["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1", "ff05::2"]

PRIVATE_OR_GLOBAL = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "192.0.2.1",
    "203.0.113.1",
    "240.0.0.1",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "64:ff9b::a00:1",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "8.8.8.8",
    "2606:4700::1111",
]
"""Addresses that a service with ``allow_private`` may call."""


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_globally_routable_is_refused(address: str) -> None:
    with pytest.raises(ForbiddenTarget):
        Guard().check("h", [address])


@pytest.mark.parametrize("address", GLOBAL)
def test_a_global_address_may_be_called(address: str) -> None:
    Guard().check("h", [address])


def test_one_forbidden_address_among_good_ones_refuses_them_all() -> None:
    with pytest.raises(ForbiddenTarget, match="h stands for an address that must not be called"):
        Guard().check("h", ["8.8.8.8", "10.0.0.1"])


@pytest.mark.parametrize("address", [*FORBIDDEN, *METADATA, *MULTICAST])
def test_a_forbidden_address_in_a_url_is_known_without_a_look_up(address: str) -> None:
    with pytest.raises(ForbiddenTarget, match="must not be called"):
        Guard().check_literal(address)


@pytest.mark.parametrize("host", ["example.com", "localhost", "10.0.0.1.nip.io", "a.1b"])
def test_a_name_in_a_url_is_not_looked_up(host: str) -> None:
    Guard().check_literal(host)


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "127.0.0.1.", "1.2.3.4.5", "0x7f.0.0.1"]
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_text_that_is_no_address_is_refused(text: str, allow_private: bool) -> None:  # noqa: FBT001
    with pytest.raises(ForbiddenTarget):
        Guard(allow_private).check("h", [text])


@pytest.mark.parametrize("address", PRIVATE_OR_GLOBAL)
def test_an_offline_server_may_call_its_own_machine_and_network(address: str) -> None:
    Guard(allow_private=True).check("h", [address])


@pytest.mark.parametrize("address", [*METADATA, *MULTICAST])
def test_not_even_an_offline_server_calls_a_metadata_service_or_a_multicast_group(
    address: str,
) -> None:
    with pytest.raises(ForbiddenTarget):
        Guard(allow_private=True).check("h", [address])


ALLOWED = Guard(allowed=(ip_network("10.1.0.0/16"), ip_network("fd00:1::/64")))


@pytest.mark.parametrize("address", ["10.1.0.0", "10.1.255.255", "fd00:1::1", "8.8.8.8"])
def test_a_network_that_is_allowed_may_be_called(address: str) -> None:
    ALLOWED.check("h", [address])


@pytest.mark.parametrize(
    "address",
    ["10.0.255.255", "10.2.0.0", "127.0.0.1", "fd00:1:0:1::1", "::1", "::ffff:10.1.0.1"],
)
def test_allowing_a_network_allows_no_other(address: str) -> None:
    with pytest.raises(ForbiddenTarget):
        ALLOWED.check("h", [address])


def test_a_metadata_service_may_be_called_where_it_is_allowed_by_its_address() -> None:
    Guard(allowed=(ip_network("169.254.169.254/32"),)).check("h", ["169.254.169.254"])


@pytest.mark.parametrize(
    ("address", "helps"), [("10.0.0.1", True), ("::1", True), ("169.254.169.254", False)]
)
def test_the_refusal_names_the_settings_where_those_are_meant_for_it(
    address: str,
    helps: bool,  # noqa: FBT001
) -> None:
    with pytest.raises(ForbiddenTarget) as refusal:
        Guard().check_literal(address)
    assert ("TIMERS_ALLOW_PRIVATE" in str(refusal.value)) is helps
    assert str(refusal.value).startswith(f"{address} must not be called")


@pytest.mark.parametrize("address", [*FORBIDDEN, *METADATA, *MULTICAST])
def test_the_refusal_of_a_name_is_the_same_for_every_address(address: str) -> None:
    with pytest.raises(ForbiddenTarget) as refusal:
        Guard().check("db.internal", ["8.8.8.8", address])
    assert str(refusal.value) == "db.internal stands for an address that must not be called"


@settings(derandomize=True, deadline=None, max_examples=1_000)
@given(ip_addresses())
def test_every_address_that_the_standard_library_calls_not_global_is_refused(
    address: Address,
) -> None:
    assume(not address.is_global)
    with pytest.raises(ForbiddenTarget):
        Guard().check("h", [str(address)])


@settings(derandomize=True, deadline=None, max_examples=1_000)
@given(ip_addresses(v=4))
def test_an_ipv4_address_is_as_forbidden_in_ipv6(address: Address) -> None:
    number = int(address)
    carriers = (
        0xFFFF << 32 | number,
        number,
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80,
    )
    for carried in (IPv6Address(carrier) for carrier in carriers):
        with pytest.raises(ForbiddenTarget):
            Guard().check("h", [str(carried)])
        assert refused(OFFLINE, carried) == refused(OFFLINE, address)


OFFLINE = Guard(allow_private=True)


def refused(guard: Guard, address: Address) -> bool:
    try:
        guard.check("h", [str(address)])
    except ForbiddenTarget:
        return True
    return False


CARRIERS = ("64:ff9b::/96", "::ffff:0:0/96", "2002::/16")


def through(carrier: str, ipv4: str) -> str:
    """Return the address in ``carrier`` that stands for ``ipv4``."""
    number = int(ipaddress.IPv4Address(ipv4))
    base = int(ipaddress.IPv6Network(carrier).network_address)
    return str(ipaddress.IPv6Address(base | number << (80 if carrier.startswith("2002") else 0)))


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(
    ("ipv4", "off", "on"),
    [
        ("8.8.8.8", True, True),
        ("10.0.0.1", False, True),
        ("127.0.0.1", False, True),
        ("169.254.169.254", False, False),
        ("100.100.100.200", False, False),
    ],
)
def test_an_allowed_network_that_carries_ipv4_allows_what_ipv4_does(
    carrier: str, ipv4: str, *, off: bool, on: bool
) -> None:
    allowed = (ipaddress.ip_network(carrier),)
    address = through(carrier, ipv4)
    for allow_private, expected in ((False, off), (True, on)):
        guard = Guard(allow_private=allow_private, allowed=allowed)
        if expected:
            guard.check("h", [address])
        else:
            with pytest.raises(ForbiddenTarget):
                guard.check("h", [address])


def test_a_carried_address_may_be_allowed_itself() -> None:
    allowed = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "10.1.0.0/16")))
    Guard(allowed=allowed).check("h", ["64:ff9b::10.1.0.1"])
    with pytest.raises(ForbiddenTarget):
        Guard(allowed=allowed).check("h", ["64:ff9b::10.2.0.1"])


def test_loopback_may_be_allowed_in_ipv6() -> None:
    Guard(allowed=(ipaddress.ip_network("::1/128"),)).check("h", ["::1"])
