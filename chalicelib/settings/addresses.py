"""Addresses in the settings: those of this machine, of AWS, and of an emulator."""

from __future__ import annotations

import functools
import ipaddress
from urllib.parse import urlsplit

_AWS_DOMAINS = (
    *("amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "api.aws"),
    *("api.amazonwebservices.com.cn", "api.amazonwebservices.eu"),
    *("c2s.ic.gov", "sc2s.sgov.gov", "cloud.adc-e.uk", "csp.hci.ic.gov"),
    *("api.aws.ic.gov", "api.aws.scloud", "api.cloud-aws.adc-e.uk", "api.aws.hci.ic.gov"),
)
"""The domains of AWS's endpoints (IPv4 and dual-stack) in every partition."""


# Every request on loopback names its host, and nearly all name the same.
@functools.lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Tell whether ``host``, a name or an IP address, is the loopback of this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_aws(address: str) -> bool:
    """Tell whether ``address``, a URL, is an endpoint of AWS itself."""
    host = urlsplit(address).hostname or ""
    # Whole labels: example-amazonaws.com is somebody else's.
    return any(host == domain or host.endswith(f".{domain}") for domain in _AWS_DOMAINS)


def is_emulator(address: str) -> bool:
    """Tell whether ``address``, a URL, can only be an emulator of AWS."""
    # A proxy in front of AWS and a VPC endpoint use TLS, so plain HTTP can be neither.
    return address.startswith("http://") and not is_aws(address)
