"""Which addresses may be called (SSRF). Pure: senders resolve a name once, ask here about every
address it stands for, and connect to one of those and no other.

What counts is the address that is connected to, not what the URL looks like: a name may resolve
differently the second time, and ``http://2130706433/`` is loopback too.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NOT_GLOBAL = tuple(
    ipaddress.ip_network(network)
    for network in (
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
)


class ForbiddenTarget(Exception):
    """The address must not be called; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The policy of one process, the same for every sender.

    ``allow_private`` lets loopback and private addresses through, as an offline server needs;
    ``allowed`` lists networks that may be called all the same.
    """

    allow_private: bool = False
    allowed: tuple[Network, ...] = field(default=())

    def check(self, host: str, addresses: Iterable[str]) -> None:
        """Raise ``ForbiddenTarget`` unless every address that ``host`` stands for may be called.

        One forbidden address among good ones refuses them all: which one is connected to is
        chance.
        """
        if self.allow_private:
            return
        for text in addresses:
            address = ipaddress.ip_address(text.partition("%")[0])
            if not self._may_call(address):
                raise ForbiddenTarget(f"{host} stands for {address}, which must not be called")

    def check_literal(self, host: str) -> None:
        """Check ``host`` if it is an address, in any notation; a name passes.

        A courtesy when a timer is set, and the rule for hosts that no resolver is asked about.
        """
        if self.allow_private:
            return
        address = literal(host)
        if address is not None:
            self.check(host, [address])

    def _may_call(self, address: Address) -> bool:
        if any(address in network for network in self.allowed):
            return True
        return not any(address in network for network in _NOT_GLOBAL)


def literal(host: str) -> str | None:
    """Return the address that ``host`` is: dotted, decimal, octal or hexadecimal, or IPv6."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    name = host.removesuffix(".")
    if not name or not name.rpartition(".")[2][:1].isdigit():
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return None
