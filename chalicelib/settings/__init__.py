"""The settings: the only reader of the environment. Read and checked once, then frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chalicelib.domain.errors import InvalidSettings
from chalicelib.domain.rate import Rate
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.settings import table
from chalicelib.settings.addresses import is_aws, is_loopback
from chalicelib.settings.environment import LOCAL, Environment, chalice_command
from chalicelib.settings.table import (
    AWS,
    EMBEDDED,
    KEYS,
    LAMBDA_SEND_TIMEOUT_S,
    OPEN,
    PRODUCTION,
    TEST,
)

__all__ = [
    "AWS",
    "EMBEDDED",
    "KEYS",
    "LAMBDA_SEND_TIMEOUT_S",
    "LOCAL",
    "OPEN",
    "PRODUCTION",
    "TEST",
    "Settings",
    "chalice_command",
    "is_aws",
    "is_loopback",
    "load",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of all settings. Durations are in the unit their name ends in.

    ``rate`` limits the creates of each tenant. Of all limits, None is no
    limit. ``emulator`` is the URL of an emulator of AWS, empty for AWS itself.
    """

    engine: str
    stage: str
    auth: str
    host: str
    port: int
    workers: int
    data_dir: Path
    test_clock: bool
    allow_purge: bool
    rate: Rate | None
    allowed_hosts: frozenset[str]
    send_timeout_s: float
    retry_delays_s: tuple[float, ...]
    keep_responses: bool
    retention_days: float
    max_in_flight: int
    calls_per_s: float | None
    receiver_calls_per_s: float | None
    receiver_connections: int | None
    stored_timers: int | None
    stored_bytes: int | None
    failing_receiver_calls_per_s: float | None
    near_limit_s: int
    guard: Guard
    signing_keys: tuple[bytes, ...] = field(repr=False)
    emulator: str
    in_lambda: bool
    under_chalice_local: bool

    @property
    def lease_ms(self) -> int:
        """How long a sender may hold a claimed timer (ms).

        It is enough for two calls, the webhook and the failure notice, and for the writes.
        """
        return int(self.send_timeout_s * 2000) + 10_000

    @property
    def needs_key(self) -> bool:
        """Whether a caller must send an API key."""
        return self.auth == KEYS

    def require_loopback_without_keys(self, host: str) -> None:
        """Raise ``InvalidSettings`` if other machines could call ``host`` without a key."""
        if not self.needs_key and not is_loopback(host):
            raise InvalidSettings(
                f"without keys only this machine may call, and {host} is not on loopback: "
                "set TIMERS_AUTH=keys and make a key (make key), or leave HOST alone"
            )


def load(
    variables: Mapping[str, str] = os.environ, arguments: Sequence[str] | None = None
) -> Settings:
    """Read the settings from ``variables``. Raises ``InvalidSettings``, which names the variable.

    An unknown variable that begins with ``TIMERS_`` is refused too: a misspelt
    ``TIMERS_SIGNING_SECRETS`` would leave webhooks unsigned without notice. ``chalice deploy`` and
    ``chalice package`` refuse it for a Lambda. The Lambda itself logs it and starts.

    ``arguments`` is the command line of this process, by default ``sys.argv``. It shows whether
    Chalice runs this process.
    """
    # Not pydantic-settings: it accepts unknown variables, and the four Lambdas that need no
    # pydantic would load it at every cold start.
    environment = Environment(variables, arguments)
    value = environment.value
    settings = Settings(
        engine=value(table.ENGINE),
        stage=value(table.STAGE),
        emulator=value(table.ENDPOINT_URL),
        auth=value(table.AUTH),
        host=value(table.HOST),
        port=value(table.PORT),
        workers=value(table.WORKERS),
        data_dir=_data_dir(environment),
        test_clock=_test_clock(environment),
        allow_purge=value(table.ALLOW_PURGE),
        rate=value(table.CREATES_PER_SECOND),
        allowed_hosts=value(table.ALLOWED_HOSTS),
        send_timeout_s=_send_timeout_s(environment),
        # A list of commas only has no number, and counts as not set.
        retry_delays_s=value(table.RETRY_DELAYS) or environment.default(table.RETRY_DELAYS),
        keep_responses=value(table.KEEP_RESPONSES),
        retention_days=value(table.RETENTION_DAYS),
        near_limit_s=value(table.NEAR_LIMIT),
        guard=Guard(
            allow_private=value(table.ALLOW_PRIVATE), allowed=value(table.ALLOWED_NETWORKS)
        ),
        signing_keys=_signing_keys(environment),
        in_lambda=environment.in_lambda,
        under_chalice_local=environment.under_chalice_local,
        max_in_flight=value(table.MAX_IN_FLIGHT),
        calls_per_s=value(table.CALLS_PER_SECOND),
        receiver_calls_per_s=value(table.RECEIVER_CALLS_PER_SECOND),
        receiver_connections=value(table.RECEIVER_CONNECTIONS),
        stored_timers=value(table.STORED_TIMERS),
        stored_bytes=value(table.STORED_BYTES),
        failing_receiver_calls_per_s=value(table.FAILING_RECEIVER_CALLS_PER_SECOND),
    )
    environment.reject_unknown_variables(table.TABLE)
    return settings


def _data_dir(environment: Environment) -> Path:
    """Return the data folder. Raises ``InvalidSettings``, but not in a Lambda, which uses none."""
    if environment.in_lambda:
        # Not expanded: the user of a Lambda need not have a home.
        return Path(table.DATA_DIR.default)
    return environment.value(table.DATA_DIR)


def _test_clock(environment: Environment) -> bool:
    """Return whether the clock can be moved. Raises ``InvalidSettings`` where it must not be."""
    clock = table.CLOCK
    if environment.value(clock) != TEST:
        return False
    if environment.for_lambda:
        raise InvalidSettings(f"{clock.name}={TEST}: a Lambda has no test clock")
    if environment.value(table.ENGINE) != EMBEDDED:
        raise InvalidSettings(
            f"{clock.name}={TEST}: only the engine {EMBEDDED} has a test clock; unset "
            f"{table.ENGINE.name} or {clock.name}"
        )
    if environment.value(table.AUTH) != OPEN:
        raise InvalidSettings(
            f"{clock.name}={TEST}: a caller with a key could move the clock of every tenant; unset "
            f"{table.AUTH.name} or {clock.name}"
        )
    return True


def _send_timeout_s(environment: Environment) -> float:
    seconds = environment.value(table.SEND_TIMEOUT)
    if environment.for_lambda and seconds > LAMBDA_SEND_TIMEOUT_S:
        raise InvalidSettings(
            f"{table.SEND_TIMEOUT.name}={seconds:g}: must be at most {LAMBDA_SEND_TIMEOUT_S:g} in "
            "a Lambda: the functions that deliver have 28 s for two calls, the webhook and the "
            "notice of its failure"
        )
    return seconds


def _signing_keys(environment: Environment) -> tuple[bytes, ...]:
    given, file = table.SIGNING_SECRETS, table.SIGNING_SECRETS_FILE
    if environment.is_set(given) and environment.is_set(file):
        raise InvalidSettings(f"{given.name} and {file.name}: set one of them, not both")
    return environment.value(file if environment.is_set(file) else given)
