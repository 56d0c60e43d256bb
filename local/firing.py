"""How timers are fired on this machine: by the dispatcher, or by a pump beside an emulator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from chalicelib.bootstrap import Service
from chalicelib.settings import AWS, EMBEDDED

EMULATED_GRACE_MS = 2_000
"""How late a timer must be for a sweep to wake it. An emulator fires schedules late or never.

This is shorter than a lease. So a timer whose call takes longer is woken once more, without effect.
"""


class Firing(Protocol):
    """The firing of timers with one engine.

    ``module`` is run as the process that fires timers. ``place`` tells the user where timers are.
    """

    module: str
    place: str

    def prepare(self) -> None:
        """Prepare the environment of this process and its children. Raises ``StartupError``."""

    def check(self) -> None:
        """Raise ``StartupError`` unless a server may be started on the place."""

    def ready(self) -> bool:
        """Tell whether the firing process accepts writes."""

    def fire(self) -> None:
        """Fire timers in this thread until it ends. Raises ``StartupError``."""


class EmbeddedFiring:
    """The embedded engine: timers are kept in a data folder."""

    module = "local.dispatcher"

    def __init__(self, service: Service) -> None:
        self._service = service
        self.place = f"in {service.settings.data_dir}"

    def prepare(self) -> None:
        """Do nothing: the settings name the folder."""

    def check(self) -> None:
        """Raise ``StartupError`` if the folder cannot be used, or another server uses it."""
        # Checked before the API starts: its workers would write to the dispatcher of the server
        # that has the folder.
        with self._service.embedded.folder.locked():
            pass

    def ready(self) -> bool:
        """Tell whether the dispatcher accepts writes; until then a request would wait for it."""
        try:
            self._service.embedded.folder.connect(1).close()
        except OSError:
            return False
        return True

    def fire(self) -> None:
        """Run the dispatcher on an event loop of this thread."""
        asyncio.run(self._service.embedded.run(asyncio.Event()))


class EmulatedFiring:
    """The AWS engine: timers are kept by an emulator of AWS."""

    module = "local.pump"

    def __init__(self, service: Service) -> None:
        self._service = service
        self.place = f"by the emulator at {service.settings.emulator}"

    def prepare(self) -> None:
        """Raise ``StartupError`` unless the settings name an emulator: AWS is never reached."""
        from local.emulator.environment import use_emulator

        use_emulator(self._service.settings.emulator)

    def check(self) -> None:
        """Do nothing: many servers may use one emulator."""

    def ready(self) -> bool:
        """Return True: the API is healthy only once the pump has made the emulator's table."""
        return True

    def fire(self) -> None:
        """Run the pump."""
        pump_timers(self._service, threading.Event())


def firing_of(service: Service) -> Firing:
    """Return how the timers of ``service`` are fired on this machine."""
    return _FIRING[service.settings.engine](service)


_FIRING: dict[str, Callable[[Service], Firing]] = {
    EMBEDDED: EmbeddedFiring,
    AWS: EmulatedFiring,
}


def pump_timers(service: Service, stopped: threading.Event) -> None:
    """Deliver and sweep the timers of an emulator until ``stopped``. Raises ``StartupError``."""
    # Imported late: the embedded engine works without boto3.
    from chalicelib.aws import message
    from infra.resources import create_missing
    from local.emulator.pump import Pump

    EmulatedFiring(service).prepare()
    engine = service.aws
    clients = engine.clients
    meter = service.telemetry.meter
    Pump(
        clients.sqs,
        engine.names.queue,
        prepare=lambda: create_missing(
            clients.dynamodb, clients.sqs, clients.scheduler, service.settings.stage
        ),
        deliver=lambda bodies: service.delivery.deliver_all(message.decode_all(bodies, meter)),
        sweep=engine.sweeper_with(grace_ms=EMULATED_GRACE_MS).sweep,
        catch_up=engine.sweeper_with(grace_ms=0).sweep,
    ).run(stopped)
