"""The settings: the only reader of the environment. Read and checked once, then frozen."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from chalicelib.domain.errors import InvalidSettings
from chalicelib.domain.rate import Rate
from chalicelib.domain.retry import DEFAULT_DELAYS
from chalicelib.domain.signing import read_secrets
from chalicelib.domain.ssrf_guard import Guard, Network

T = TypeVar("T")

EMBEDDED = "embedded"
AWS = "aws"
OPEN = "none"
KEYS = "keys"
PRODUCTION = "prod"
LOCAL = "local"
"""The command of Chalice's that serves on this machine."""

DEFAULT_DATA_DIR = "~/.local/share/webhook-timers"
_MAX_SEND_TIMEOUT = 60.0

LAMBDA_SEND_TIMEOUT_S = 10.0
"""The longest call in a Lambda, whose 28 s (``.chalice/config.json``) must do for two."""

_MAX_PORT = 65535

DEFAULT_RATE = 100.0
"""Timers that each tenant may set a second where callers have keys."""

_AWS = (
    *("amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "api.aws"),
    *("api.amazonwebservices.com.cn", "api.amazonwebservices.eu"),
)
"""The domains of AWS's endpoints, for IPv4 and for both, in all partitions open to the public."""

_PREFIX = "TIMERS_"

MAX_NEAR_S = 900
"""The longest ``DelaySeconds`` of an SQS message: what is further away gets a schedule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Durations are in the unit their name ends in.

    ``emulator`` is where an emulator of AWS answers, empty when AWS itself is meant.
    """

    engine: str
    stage: str
    auth: str
    host: str
    port: int
    workers: int
    data_dir: Path
    allow_purge: bool
    rate: Rate | None
    allowed_hosts: frozenset[str]
    send_timeout_s: float
    retry_delays_s: tuple[float, ...]
    retention_days: float
    max_in_flight: int
    near_limit_s: int
    guard: Guard
    signing_keys: tuple[bytes, ...] = field(repr=False)
    emulator: str
    in_lambda: bool
    under_chalice_local: bool

    @property
    def lease_ms(self) -> int:
        """How long a sender may hold a timer: longer than any call can take."""
        return int(self.send_timeout_s * 2000) + 10_000

    @property
    def needs_key(self) -> bool:
        """Whether a caller must show a key."""
        return self.auth == KEYS

    def require_loopback_without_keys(self, host: str) -> None:
        """Raise ``InvalidSettings`` if ``host``, listened on, lets others in without a key."""
        if not self.needs_key and not is_loopback(host):
            raise InvalidSettings(
                f"without keys only this machine may call, and {host} is not on loopback: "
                "set TIMERS_AUTH=keys and make a key (make key), or leave HOST alone"
            )


def load(
    environment: Mapping[str, str] = os.environ, arguments: Sequence[str] | None = None
) -> Settings:
    """Read the settings from ``environment``. Raises ``InvalidSettings`` naming the variable.

    A variable that looks like a setting and is none is refused too: misspelt, it would quietly
    leave webhooks unsigned, say.

    ``arguments`` is this process's command line, which tells whether it is one of Chalice's.
    """
    in_lambda = bool(environment.get("AWS_LAMBDA_FUNCTION_NAME"))
    builds = chalice_command(environment, arguments) not in (None, LOCAL)
    read = _Reader(environment)
    engine = read.choice("TIMERS_ENGINE", AWS if in_lambda else EMBEDDED, (EMBEDDED, AWS))
    stage = read.text("TIMERS_STAGE", "dev")
    emulator = read.text("AWS_ENDPOINT_URL", "")
    # What Chalice builds on this machine runs in a Lambda: its routes must ask for a key.
    auth = read.choice("TIMERS_AUTH", KEYS if in_lambda or builds else OPEN, (OPEN, KEYS))
    # Whoever may call without a key sits at this machine; who has one may be anybody's tenant.
    at_home = (auth == OPEN and not in_lambda) or (engine == AWS and _is_emulator(emulator))
    settings = Settings(
        engine=engine,
        stage=stage,
        auth=auth,
        host=read.text("HOST", "127.0.0.1"),
        port=read.whole("PORT", 8000, 1, _MAX_PORT),
        workers=read.whole("TIMERS_WORKERS", 2, 1, 64),
        data_dir=read.folder("DATA_DIR", DEFAULT_DATA_DIR),
        allow_purge=read.switch("TIMERS_ALLOW_PURGE", default=stage != PRODUCTION),
        rate=read.rate("TIMERS_CREATES_PER_SECOND", DEFAULT_RATE if auth == KEYS else 0.0),
        allowed_hosts=frozenset(read.words("TIMERS_ALLOWED_HOSTS")),
        send_timeout_s=read.send_timeout("TIMERS_SEND_TIMEOUT", for_lambda=in_lambda or builds),
        retry_delays_s=read.numbers("TIMERS_RETRY_DELAYS", DEFAULT_DELAYS),
        retention_days=read.number("TIMERS_RETENTION_DAYS", 7.0, 0.0, 3650.0),
        near_limit_s=read.whole("TIMERS_NEAR_LIMIT", MAX_NEAR_S, 1, MAX_NEAR_S),
        guard=Guard(
            allow_private=read.switch("TIMERS_ALLOW_PRIVATE", default=at_home),
            allowed=read.networks("TIMERS_ALLOWED_NETWORKS"),
        ),
        signing_keys=read.keys("TIMERS_SIGNING_SECRETS", "TIMERS_SIGNING_SECRETS_FILE"),
        emulator=emulator,
        in_lambda=in_lambda,
        under_chalice_local=chalice_command(environment, arguments) == LOCAL,
        max_in_flight=read.whole("TIMERS_MAX_IN_FLIGHT", 10_000, 1, 1_000_000),
    )
    read.reject_unknown_variables()
    return settings


def chalice_command(
    environment: Mapping[str, str] = os.environ, arguments: Sequence[str] | None = None
) -> str | None:
    """Return the command of Chalice's that this process runs, None where it runs none.

    Every one of them imports app.py: ``local`` to serve it, ``package`` and ``deploy`` to build
    what a Lambda will serve. ``AWS_CHALICE_CLI_MODE`` does not tell them apart.
    """
    if not environment.get("AWS_CHALICE_CLI_MODE"):
        return None
    return "".join((sys.argv if arguments is None else arguments)[1:2])


def is_aws(address: str) -> bool:
    """Tell whether ``address``, a URL, is an endpoint of AWS's own."""
    return (urlsplit(address).hostname or "").endswith(_AWS)


def _is_emulator(address: str) -> bool:
    """Tell whether ``address`` can only be an emulator: a proxy or VPC endpoint of AWS has TLS."""
    return address.startswith("http://") and not is_aws(address)


def is_loopback(name: str) -> bool:
    """Tell whether ``name``, a host's name or address, is this machine seen from itself."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class _Reader:
    """Reads one variable at a time; an empty one counts as not set."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._names: set[str] = set()

    def reject_unknown_variables(self) -> None:
        """Raise ``InvalidSettings`` if a variable of ours is set that was not read."""
        for name in sorted(self._environment.keys() - self._names):
            if name.startswith(_PREFIX) and self._environment[name]:
                raise InvalidSettings(f"{name}: there is no such setting{self._hint(name)}")

    def _hint(self, name: str) -> str:
        from difflib import get_close_matches  # here: no cold start pays for it

        near = get_close_matches(name, sorted(self._names), 1, cutoff=0.8)
        return f"; did you mean {near[0]}?" if near else ""

    def text(self, name: str, default: str) -> str:
        self._names.add(name)
        return self._environment.get(name) or default

    def folder(self, name: str, default: str) -> Path:
        path = self.text(name, default)
        try:
            return Path(path).expanduser().absolute()
        except RuntimeError as error:
            raise InvalidSettings(f"{name}={path}: must begin at a home that exists") from error

    def words(self, name: str) -> list[str]:
        return [word.strip().lower() for word in self.text(name, "").split(",") if word.strip()]

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise InvalidSettings(f"{name}={value}: must be one of {', '.join(choices)}")
        return value

    def switch(self, name: str, *, default: bool) -> bool:
        return self.choice(name, "on" if default else "off", ("on", "off")) == "on"

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        return self._between(name, self.text(name, str(default)), int, least, most)

    def number(self, name: str, default: float, least: float, most: float) -> float:
        return self._between(name, self.text(name, str(default)), float, least, most)

    def send_timeout(self, name: str, *, for_lambda: bool) -> float:
        seconds = self.number(name, 10.0, 0.1, _MAX_SEND_TIMEOUT)
        if for_lambda and seconds > LAMBDA_SEND_TIMEOUT_S:
            raise InvalidSettings(
                f"{name}={seconds:g}: must be at most {LAMBDA_SEND_TIMEOUT_S:g} in a Lambda: the "
                "functions that deliver have 28 s for two calls, the webhook and the notice of "
                "its failure"
            )
        return seconds

    def rate(self, name: str, default: float) -> Rate | None:
        per_s = self.number(name, default, 0.0, 1_000_000.0)
        return Rate(per_s) if per_s else None

    def keys(self, name: str, file_name: str) -> tuple[bytes, ...]:
        """Return the keys in ``name``, or in the file that ``file_name`` names; shows neither."""
        text, path = self.text(name, ""), self.text(file_name, "")
        if text and path:
            raise InvalidSettings(f"{name} and {file_name}: set one of them, not both")
        try:
            keys = read_secrets(_uncommented(path) if path else text)
        except ValueError as error:
            raise InvalidSettings(f"{f'{file_name}={path}' if path else name}: {error}") from None
        if path and not keys:
            raise InvalidSettings(f"{file_name}={path}: has no signing secret")
        return keys

    def networks(self, name: str) -> tuple[Network, ...]:
        try:
            return tuple(ipaddress.ip_network(word) for word in self.words(name))
        except ValueError as error:
            raise InvalidSettings(f"{name}: {error}") from error

    def numbers(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        words = self.words(name) or [str(value) for value in default]
        return tuple(self._between(name, word, float, 0.0, 2_592_000.0) for word in words)

    @staticmethod
    def _between(name: str, text: str, kind: Callable[[str], T], least: T, most: T) -> T:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:  # type: ignore[operator]
            raise InvalidSettings(f"{name}={text}: must be a number from {least} to {most}")
        return value


def _uncommented(path: str) -> str:
    """Return the lines of a file that are no comments.

    Raises ``ValueError``, which never shows what is in it.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError("must be text in UTF-8") from None
    except RuntimeError:
        raise ValueError("must begin at a home that exists") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))
