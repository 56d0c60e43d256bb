"""Which addresses may be called (SSRF). Pure: senders resolve a name once, ask here about every
address it stands for, and connect to one of those and no other.

What counts is the address that is connected to, not what the URL looks like: a name may resolve
differently the second time, and one IPv4 address can be written in IPv6 in many ways.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ADDRESSES = 16
"""How many of a name's addresses are tried: a name with thousands would have us scan ports."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_NOT_GLOBAL = _networks(
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
    # IPv6: only 2000::/3 is given out, and within it these lead elsewhere or nowhere
    "::/3",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "4000::/2",
    "8000::/1",
)

_ALWAYS_BLOCKED = _networks(
    # Metadata services, which hand out the machine's credentials to whoever can call them
    "169.254.0.0/16",  # link-local: AWS, its ECS and EKS, Google, Azure, Oracle and most others
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure, on a public address of Microsoft's
    "192.0.0.192/32",  # Oracle
    "fd00:c1::a9fe:a9fe/128",  # Oracle
    "fd00:ec2::/32",  # AWS
    "fd20:ce::254/128",  # Google
    "fd00:42::42/128",  # Scaleway
    "fd00:100::100:200/128",  # Alibaba
    "fd00:a9fe:a9fe::1/128",  # Akamai (Linode)
    "fe80::a9fe:a9fe/128",  # OpenStack
    # No one machine's
    "224.0.0.0/4",
    "255.255.255.255/32",
    "ff00::/8",
    # Tunnels in which the IPv4 address meant cannot be told
    "64:ff9b:1::/48",
    "2001::/32",
)
"""What even a service that may call private addresses does not call."""

_CARRIERS = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
"""IPv6 networks whose addresses carry one of IPv4, and how many bits stand right of it."""


class ForbiddenTarget(ValueError):
    """The address must not be called; the message says so in words for the one who asked."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The policy of one process, the same for every sender.

    ``allow_private`` lets loopback and private addresses through, as an offline server needs,
    but no metadata service; ``allowed`` lists networks that may be called whatever they are.
    """

    allow_private: bool = False
    allowed: tuple[Network, ...] = field(default=())

    def check(self, host: str, addresses: Iterable[str]) -> None:
        """Raise ``ForbiddenTarget`` unless every address that ``host`` stands for may be called.

        One forbidden address among good ones refuses them all: which one is connected to is
        chance. Of a name the message says only that, whatever it stands for: its addresses, and
        what kind they are of, may be known inside a private network alone.
        """
        for address in addresses:
            if not _may_call(self, address):
                raise ForbiddenTarget(_refusal(host, address))

    def check_literal(self, host: str) -> None:
        """Check ``host``, without brackets, if it is an address; a name passes.

        A courtesy when a timer is set: the rule is ``check``, when one is sent.
        """
        if _address(host) is not None:
            self.check(host, [host])


@functools.lru_cache(maxsize=4096)
def _may_call(guard: Guard, text: str) -> bool:
    address = _address(text)
    if address is None:
        return False
    if _within(guard.allowed, address):
        return True
    if guard.allow_private:
        return not _within(_ALWAYS_BLOCKED, _carried(address))
    return not (_within(_NOT_GLOBAL, address) or _within(_ALWAYS_BLOCKED, address))


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
    """Return the address without its zone, None where ``text`` is none."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _carried(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, else ``address`` itself."""
    for network, bits in _CARRIERS:
        if address in network:
            return ipaddress.IPv4Address(int(address) >> bits & 0xFFFF_FFFF)
    return address


def _within(networks: tuple[Network, ...], address: Address) -> bool:
    return any(address in network for network in networks)
