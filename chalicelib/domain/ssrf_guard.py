"""Which addresses may be called: the protection against SSRF (server-side request forgery).

A sender resolves a name once, lets the guard check every address of it, and connects to one of
these addresses only. A check of the URL alone is not enough: a name may resolve to another address
the second time, and one IPv4 address has many spellings in IPv6.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ADDRESSES = 16
"""The most addresses of one name that a sender tries. With thousands it would be a port scanner."""

MAX_CHECKED = 256
"""Addresses of one name. One with more is no receiver's, and checking thousands would take long."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


NOT_GLOBAL = _networks(
    # IPv4: the IANA special-purpose address registry, multicast and reserved space
    "0.0.0.0/8",  # this network: Linux connects to itself
    "10.0.0.0/8",  # private (RFC 1918)
    "100.64.0.0/10",  # carrier-grade NAT (RFC 6598); some clouds use it inside
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local (RFC 3927), with the metadata services of clouds
    "172.16.0.0/12",  # private (RFC 1918)
    "192.0.0.0/24",  # IETF protocol assignments
    "192.0.2.0/24",  # documentation (RFC 5737)
    "192.31.196.0/24",  # AS112 (RFC 7535)
    "192.52.193.0/24",  # AMT relays (RFC 7450)
    "192.88.99.0/24",  # 6to4 relays, deprecated (RFC 7526)
    "192.168.0.0/16",  # private (RFC 1918)
    "192.175.48.0/24",  # AS112 (RFC 7534)
    "198.18.0.0/15",  # benchmarks of network devices (RFC 2544)
    "198.51.100.0/24",  # documentation (RFC 5737)
    "203.0.113.0/24",  # documentation (RFC 5737)
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    # IPv6: IANA assigns global addresses from 2000::/3 only, so all outside it is blocked
    "::/3",  # with loopback (::1) and all IPv6 forms of IPv4 addresses but 6to4
    "4000::/2",
    "8000::/1",  # with unique local (fc00::/7), link-local (fe80::/10) and multicast (ff00::/8)
    # IPv6: special-purpose networks within 2000::/3
    "2001::/23",  # IETF protocol assignments, with Teredo
    "2001:db8::/32",  # documentation (RFC 3849)
    "2002::/16",  # 6to4: contains an IPv4 address
    "2620:4f:8000::/48",  # AS112 (RFC 7534)
    "3fff::/20",  # documentation (RFC 9637)
)
"""Networks that are not globally routable. They are called only with ``allow_private``."""

ALWAYS_BLOCKED = _networks(
    # Metadata services of clouds: they give a machine's credentials to every caller on the machine
    "169.254.0.0/16",  # link-local: AWS, its ECS and EKS, Google, Azure, Oracle and most others
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure; a public address that Microsoft owns
    "192.0.0.192/32",  # Oracle
    "fd00:c1::a9fe:a9fe/128",  # Oracle
    "fd00:ec2::/32",  # AWS
    "fd20:ce::254/128",  # Google
    "fd00:42::42/128",  # Scaleway
    "fd00:100::100:200/128",  # Alibaba
    "fd00:a9fe:a9fe::1/128",  # Akamai (Linode)
    "fe80::a9fe:a9fe/128",  # OpenStack
    # Multicast and broadcast
    "224.0.0.0/4",
    "255.255.255.255/32",
    "ff00::/8",
    # Tunnels: the address alone does not tell their IPv4 destination
    "64:ff9b:1::/48",  # local-use NAT64 (RFC 8215)
    "2001::/32",  # Teredo (RFC 4380)
)
"""Blocked even when private addresses are allowed."""

_IPV4_IN_IPV6 = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # translated (SIIT)
    (ipaddress.IPv6Network("::/96"), 0),  # compatible
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)
"""IPv6 networks whose addresses contain an IPv4 address, and the number of bits to its right."""


class ForbiddenTarget(ValueError):
    """The address must not be called. Clients of the API may read the message."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Which addresses this process may call.

    Globally routable addresses are allowed. ``allow_private`` allows loopback and private ones too,
    except for ``ALWAYS_BLOCKED``: an offline server needs this. The networks in ``allowed`` are
    allowed too. An IPv6 network that carries IPv4, such as NAT64, only leads to those IPv4
    addresses that may be called themselves.
    """

    allow_private: bool = False
    allowed: tuple[Network, ...] = field(default=())

    def check(self, host: str, addresses: Sequence[str]) -> None:
        """Raise ``ForbiddenTarget`` unless all ``addresses`` of ``host`` may be called.

        One forbidden address is enough, because chance decides to which one the sender connects.
        """
        if len(addresses) > MAX_CHECKED:
            raise ForbiddenTarget(f"{host} stands for more than {MAX_CHECKED} addresses")
        for address in addresses:
            if not _may_call(self, address):
                raise ForbiddenTarget(_refusal(host, address))

    def check_literal(self, host: str) -> None:
        """Check ``host``, without brackets, if it is an address. A name passes.

        This check is a courtesy to the client that creates a timer. It protects nothing: the
        protection is ``check``, at each call.
        """
        if _address(host) is not None:
            self.check(host, [host])


@functools.lru_cache(maxsize=4096)
def _may_call(guard: Guard, text: str) -> bool:
    """Return whether ``guard`` allows this address. A text that is no address is not allowed."""
    address = _address(text)
    if address is None:
        return False
    ipv4 = _embedded_ipv4(address)
    if _within(guard.allowed, address):
        return ipv4 == address or address.is_loopback or _may_call(guard, str(ipv4))
    if guard.allow_private:
        return not _within(ALWAYS_BLOCKED, ipv4)
    # NOT_GLOBAL contains all networks of _IPV4_IN_IPV6, so the IPv4 address inside is irrelevant.
    return not (_within(NOT_GLOBAL, address) or _within(ALWAYS_BLOCKED, address))


def _refusal(host: str, address: str) -> str:
    if address != host:
        # The host is a name. The message is the same for every address: a name may have private
        # addresses that are known inside their network only, and clients must not learn them.
        return f"{host} stands for an address that must not be called"
    if not _may_call(Guard(allow_private=True), address):
        return f"{host} must not be called"
    return (
        f"{host} must not be called here "
        "(TIMERS_ALLOW_PRIVATE or TIMERS_ALLOWED_NETWORKS would allow it)"
    )


def _address(text: str) -> Address | None:
    """Return the address without its zone (``%eth0``). None if ``text`` is no address."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _embedded_ipv4(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address contains, else ``address`` itself."""
    for network, bits in _IPV4_IN_IPV6:
        if address in network:
            return ipaddress.IPv4Address(int(address) >> bits & 0xFFFF_FFFF)
    return address


def _within(networks: tuple[Network, ...], address: Address) -> bool:
    return any(address in network for network in networks)
