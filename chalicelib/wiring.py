"""The only place where the engines meet the service."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import random
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from chalicelib.aws.names import Names
from chalicelib.domain.errors import StartupError
from chalicelib.service.api_keys import ApiKeys
from chalicelib.service.attempt import Policy
from chalicelib.service.dead_letters import DeadLetters
from chalicelib.service.delivery import Delivery, Effects
from chalicelib.service.ports import ApiKeyStore, Meter, TimerStore, Waker, unmetered
from chalicelib.service.sweep import Sweeper
from chalicelib.service.timers import Timers
from chalicelib.settings import AWS, LOCAL, Settings, chalice_command, load

if TYPE_CHECKING:
    from chalicelib.aws.telemetry import Telemetry
    from chalicelib.aws.wakeups import AwsWaker

log = logging.getLogger(__name__)

REQUEST_MS = 20_000
"""How long one request may remove timers on AWS: API Gateway gives it 29 s."""

REPLAY_THREADS = 16
"""Timers replayed at once: on AWS each waits for two calls, on one machine they share a commit."""

SWEEP_MS = 45_000
"""How long one sweep may take: its function has 60 s, and the next starts after a minute."""

EMULATED_GRACE_MS = 2_000
"""How long overdue counts as missed on an emulator, whose schedules fire late or never.

Shorter than a lease, so a timer whose call takes longer is woken once more, to no effect.
"""


@functools.lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process."""
    return load()


@functools.lru_cache(maxsize=1)
def names() -> Names:
    """Return what this stage's resources on AWS are called."""
    return Names(settings().stage)


@functools.lru_cache(maxsize=1)
def scheduling() -> Timers:
    """Return the use cases of the API on the engine that is set."""
    on_aws = settings().engine == AWS
    return Timers(
        _store(),
        _waker(),
        wall_clock,
        allow_purge=settings().allow_purge,
        budget_ms=REQUEST_MS if on_aws else math.inf,
        meter=meter(),
    )


@functools.lru_cache(maxsize=1)
def dead_letters() -> DeadLetters:
    """Return the use cases of failed timers on the engine that is set."""
    return DeadLetters(_store(), scheduling(), wall_clock, width=REPLAY_THREADS)


@functools.lru_cache(maxsize=1)
def _store() -> TimerStore:
    if settings().engine == AWS:
        return _aws_store()
    from chalicelib.embedded.folder import DataFolder
    from chalicelib.embedded.ipc.client import RemoteTimerStore

    return RemoteTimerStore(DataFolder(settings().data_dir))


def _waker() -> Waker:
    if settings().engine == AWS:
        return _aws_waker()
    from chalicelib.embedded.waker import ImpliedWaker

    return ImpliedWaker()


@functools.lru_cache(maxsize=1)
def callers() -> ApiKeys:
    """Return the use cases of keys on the engine that is set."""
    return ApiKeys(_key_store(), wall_clock, secrets.token_bytes)


def _key_store() -> ApiKeyStore:
    if settings().engine == AWS:
        from chalicelib.aws import clients
        from chalicelib.aws.dynamodb.api_keys import DynamoDBApiKeyStore

        return DynamoDBApiKeyStore(clients.dynamodb(), names().table)
    from chalicelib.embedded.api_keys import SQLiteApiKeyStore
    from chalicelib.embedded.folder import DataFolder

    return SQLiteApiKeyStore(DataFolder(settings().data_dir))


@functools.lru_cache(maxsize=1)
def delivery() -> Delivery:
    """Return the use case of the functions that deliver on AWS."""
    from chalicelib.aws.sender import RequestsSender

    current = settings()
    return Delivery(
        _aws_store(),
        _aws_waker(),
        RequestsSender(current.send_timeout_s, current.guard),
        Policy(
            lease_ms=current.lease_ms,
            retry_delays_s=current.retry_delays_s,
            signing_keys=_signing_keys(current),
        ),
        Effects(
            clock=wall_clock,
            sleep=time.sleep,
            random=random.random,
            token=functools.partial(secrets.token_hex, 8),
            meter=meter(),
        ),
    )


def _signing_keys(current: Settings) -> Callable[[], Sequence[bytes]]:
    """Return where keys come from: what is set, or in a Lambda the stage's parameter."""
    if current.signing_keys or not current.in_lambda:
        return lambda: current.signing_keys
    from chalicelib.aws import clients
    from chalicelib.aws.secrets import SigningSecrets

    return SigningSecrets(clients.ssm, names().signing_secrets, wall_clock)


@functools.lru_cache(maxsize=1)
def sweeper() -> Sweeper:
    """Return the use case of the function that sweeps on AWS."""
    return _sweeper(settings().lease_ms)


def _sweeper(grace_ms: int) -> Sweeper:
    from chalicelib.aws import clients
    from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex

    return Sweeper(
        DynamoDBDueIndex(clients.dynamodb(), names().table),
        _aws_waker(),
        wall_clock,
        grace_ms=grace_ms,
        budget_ms=SWEEP_MS,
    )


def meter() -> Meter:
    """Return where this process counts."""
    return _telemetry().meter if settings().in_lambda else unmetered


@contextmanager
def observed(context: Any) -> Iterator[None]:
    """Log and count what one invocation of a Lambda does, under its request id."""
    if not settings().in_lambda:
        yield
        return
    telemetry = _telemetry()
    telemetry.of_request(context.aws_request_id)
    try:
        yield
    finally:
        telemetry.flush()


@functools.lru_cache(maxsize=1)
def _telemetry() -> Telemetry:
    from chalicelib.aws.telemetry import Telemetry

    return Telemetry(settings().stage)


@functools.lru_cache(maxsize=1)
def _aws_store() -> TimerStore:
    from chalicelib.aws import clients
    from chalicelib.aws.dynamodb.store import DynamoDBTimerStore

    return DynamoDBTimerStore(
        clients.dynamodb(),
        names().table,
        wall_clock,
        retention_days=settings().retention_days,
        rate=settings().rate,
    )


@functools.lru_cache(maxsize=1)
def _aws_waker() -> AwsWaker:
    from chalicelib.aws import clients
    from chalicelib.aws.wakeups import AwsWaker

    return AwsWaker(
        clients.sqs(), clients.scheduler, names(), wall_clock, near_s=settings().near_limit_s
    )


def serve_emulator(stopped: threading.Event) -> None:
    """Fire the timers of the emulator until ``stopped``. Raises ``StartupError``."""
    from chalicelib.aws import clients, message, pump
    from chalicelib.aws.emulator import create_missing

    use_emulator()
    deliver_all = delivery().deliver_all
    pump.Pump(
        clients.sqs(),
        names().queue,
        prepare=lambda: create_missing(
            clients.dynamodb(),
            clients.sqs(),
            clients.scheduler(),
            names(),
            visibility_s=math.ceil(settings().lease_ms / 1000),
        ),
        deliver=lambda bodies: deliver_all(message.decode_all(bodies, meter())),
        sweep=_sweeper(EMULATED_GRACE_MS).sweep,
    ).run(stopped)


def use_emulator() -> None:
    """Point this process, and what it starts, at an emulator and at nothing else.

    Raises ``InvalidSettings`` where none is named: a run on this machine never touches AWS.
    """
    from chalicelib.aws.emulator import ENVIRONMENT, check_address

    check_address(settings().emulator)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.pop("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", None)


def wall_clock() -> float:
    """Return epoch milliseconds, UTC."""
    return time.time() * 1000


async def serve_embedded(stopped: asyncio.Event) -> None:
    """Own the data folder and fire its timers until ``stopped``. Raises ``StartupError``."""
    from chalicelib.embedded.dispatcher import DispatcherPolicy
    from chalicelib.embedded.engine import raise_file_limit, serve
    from chalicelib.embedded.folder import DataFolder
    from chalicelib.embedded.sender import AiohttpSender

    current = settings()
    policy = DispatcherPolicy(
        lease_ms=current.lease_ms,
        retry_delays_s=current.retry_delays_s,
        signing_keys=_signing_keys(current),
        retention_days=current.retention_days,
        max_in_flight=raise_file_limit(current.max_in_flight),
    )
    make_sender = functools.partial(AiohttpSender, current.send_timeout_s, current.guard)
    await serve(
        DataFolder(current.data_dir), make_sender, policy, wall_clock, stopped, rate=current.rate
    )


def start_under_chalice_local() -> None:
    """Fire timers from within ``chalice local``; do nothing in any other process.

    ``chalice package`` and ``chalice deploy`` import app.py too, and must start nothing.
    """
    if not under_chalice_local():
        return
    _or_end(lambda: settings().require_loopback_without_keys(_listening_host(sys.argv)))
    fire = _fire_embedded
    if settings().engine == AWS:
        _or_end(use_emulator)  # before anything is served: no request may reach AWS either
        fire = _fire_emulated
    threading.Thread(target=_serve_or_end, args=(fire,), name="dispatcher", daemon=True).start()


def under_chalice_local() -> bool:
    """Tell whether ``chalice local`` runs in this process."""
    return chalice_command() == LOCAL


def _listening_host(arguments: list[str]) -> str:
    """Return where ``chalice local`` is told to listen: its ``--host``, the last one given."""
    words = iter(arguments)
    host = "127.0.0.1"
    for word in words:
        if word == "--host":
            host = next(words, host)
        elif word.startswith("--host="):
            host = word.partition("=")[2]
    return host


def _fire_embedded() -> None:
    asyncio.run(serve_embedded(asyncio.Event()))


def _fire_emulated() -> None:
    serve_emulator(threading.Event())


def _serve_or_end(fire: Callable[[], None]) -> None:
    """Fire timers; without that the server would only pretend, so its end is the server's."""
    _or_end(fire)
    os.kill(os.getpid(), signal.SIGTERM)


def _or_end(work: Callable[[], None]) -> None:
    """Do ``work``, or say why it cannot be done and end the server."""
    try:
        work()
        return
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr, flush=True)
    except Exception:
        log.exception("timers do not fire any more")
    os.kill(os.getpid(), signal.SIGTERM)
