"""Which addresses may be called: the protection against SSRF (server-side request forgery). Pure.

A sender resolves a name once, has every address of it checked here, and connects to one of those
addresses and to no other. Checking the URL alone is not enough: a name may resolve to another
address the second time, and one IPv4 address has many spellings in IPv6.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ADDRESSES = 16
"""Addresses of one name that a sender tries. A name with thousands would make it a port scanner."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


NOT_GLOBAL = _networks(
    # IANA IPv4 special-purpose registry, multicast and reserved space
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    # IPv6: IANA assigns global addresses from 2000::/3 only. Within it, these are special-purpose
    "::/3",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "4000::/2",
    "8000::/1",
)

ALWAYS_BLOCKED = _networks(
    # Metadata services: they give the machine's credentials to every caller on it
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
    # Tunnels (local-use NAT64, Teredo) whose IPv4 destination cannot be read from the address
    "64:ff9b:1::/48",
    "2001::/32",
)
"""Blocked even when private addresses are allowed."""

_IPV4_IN_IPV6 = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # translated (SIIT)
    (ipaddress.IPv6Network("::/96"), 0),  # compatible
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)
"""IPv6 networks whose addresses contain an IPv4 address, and the number of bits after it."""


class ForbiddenTarget(ValueError):
    """The address must not be called. The caller of the API may read the message."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Which addresses this process may call.

    Globally routable addresses are allowed. ``allow_private`` allows loopback and private ones too,
    as an offline server needs, except for ``ALWAYS_BLOCKED``. The networks in ``allowed`` are
    allowed without exception.
    """

    allow_private: bool = False
    allowed: tuple[Network, ...] = field(default=())

    def check(self, host: str, addresses: Iterable[str]) -> None:
        """Raise ``ForbiddenTarget`` unless all ``addresses`` of ``host`` may be called.

        One forbidden address is enough, because chance decides which one is connected to. If
        ``host`` is a name, the message is the same for every address. The addresses of a name may
        be known inside a private network only, and the message must not reveal them.
        """
        for address in addresses:
            if not _may_call(self, address):
                raise ForbiddenTarget(_refusal(host, address))

    def check_literal(self, host: str) -> None:
        """Check ``host``, without brackets, if it is an address. A name passes.

        This is a courtesy when a timer is created. The protection is ``check`` when it is sent.
        """
        if _address(host) is not None:
            self.check(host, [host])


@functools.lru_cache(maxsize=4096)
def _may_call(guard: Guard, text: str) -> bool:
    """Return whether the policy allows this address. Text that is no address is not allowed."""
    address = _address(text)
    if address is None:
        return False
    if _within(guard.allowed, address):
        return True
    if guard.allow_private:
        return not _within(ALWAYS_BLOCKED, _embedded_ipv4(address))
    # NOT_GLOBAL contains every network of _IPV4_IN_IPV6: no need to look inside those addresses.
    return not (_within(NOT_GLOBAL, address) or _within(ALWAYS_BLOCKED, address))


def _refusal(host: str, address: str) -> str:
    if address != host:
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
