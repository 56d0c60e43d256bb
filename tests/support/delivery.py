"""The delivery of the AWS engine in the tests' time, on any store, wake-ups and sender."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chalicelib.aws.waking_store import ArmableStore, WakeupRegistry, WakingTimerStore
from chalicelib.service.attempt import DeliveryPolicy
from chalicelib.service.delivery import Delivery, Effects
from chalicelib.service.ports import Meter, Sender, unmetered
from tests.support.clock import ManualClock
from tests.support.factories import LEASE_MS

RETRY_DELAYS_S = (5.0, 300.0)


def delivery_of(
    store: ArmableStore,
    wakeups: WakeupRegistry,
    sender: Sender,
    clock: ManualClock,
    meter: Meter = unmetered,
    *,
    signing_keys: Callable[[], Sequence[bytes]] = tuple,
) -> Delivery:
    """Return a delivery without jitter whose sleep moves the clock, with tokens 1, 2, 3."""
    tokens = iter(range(1, 1_000_000))
    return Delivery(
        WakingTimerStore(store, wakeups, clock, meter),
        wakeups,
        sender,
        DeliveryPolicy(lease_ms=LEASE_MS, retry_delays_s=RETRY_DELAYS_S, signing_keys=signing_keys),
        Effects(
            clock=clock,
            sleep=lambda seconds: clock.advance(seconds * 1000),
            random=lambda: 0.0,
            token=lambda: f"token-{next(tokens)}",
            meter=meter,
        ),
    )
