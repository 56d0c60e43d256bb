"""Idempotent creates on AWS: the key's item decides which id a request sets its timer under.

A new key costs one write more than a plain create, and no read. The item is written before the row.
If its writer dies in between, the next equal request writes the same row under the same id, and so
do two equal requests at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from chalicelib.aws.key_holder import (
    PUT_WITHIN_MS,
    Holder,
    KeyKind,
    KeyName,
)
from chalicelib.domain.errors import RateLimited, Unavailable
from chalicelib.domain.idempotency import SetOnce, replay, require_same
from chalicelib.domain.timer import Idempotency, NewTimer, Timer
from chalicelib.service.ports import Clock

MAX_TRIES = 5
"""How often a key is tried while other requests keep taking it."""


class Keys(Protocol):
    """The items of keys. ``KeyItems`` is one. Every method raises ``Unavailable``."""

    def find(self, name: KeyName) -> Holder | None:
        """Return the holder of a key, None if it has none."""

    def assign(self, name: KeyName, holder: Holder, *, seen: Holder | None) -> Holder:
        """Give a key to ``holder`` if ``seen`` has it, or nobody. Return who has it afterwards."""

    def keep(self, name: KeyName, timer_id: int, until: int) -> None:
        """Make the item of a timer that is due at ``until`` (epoch ms) outlive it."""

    def lasts(self, holder: Holder, until: int) -> bool:
        """Return whether the item outlives its timer if that is due at ``until`` (epoch ms)."""


class RowsByKey(Protocol):
    """The store's part in setting timers with keys."""

    @property
    def keys(self) -> Keys:
        """The items of keys."""

    def next_id(self, tenant: str) -> int:
        """Return an id that was never given before. Raises ``RateLimited``."""

    def give_back(self, tenant: str, unused: int) -> None:
        """Take back an id that was not used."""

    def find(self, tenant: str, timer_id: int) -> Timer | None:
        """Return one timer, None if there is none."""


Put = Callable[[Timer, int], None]
"""Store a new timer and register its wake-up, for a request that was accepted at a time (epoch ms).

Raises ``IdTaken``, and ``Unavailable`` if the request has taken too long.
"""


class IdempotentCreates:
    """Sets the timers of idempotent requests."""

    def __init__(self, store: RowsByKey, put: Put, clock: Clock) -> None:
        self._store = store
        self._put = put
        self._clock = clock

    def create(self, new: NewTimer) -> SetOnce:
        """Set ``new``, unless an equal request has set it. See ``TimerStore.create_once``."""
        if new.idempotency is None:
            raise ValueError("only an idempotent request can be repeated")
        try:
            timer = Timer.first(new, self._store.next_id(new.tenant))
        except RateLimited:
            # A repeated request sets no timer, so no rate can refuse it.
            before = self.find(new.tenant, new.idempotency)
            if before is None:
                raise
            return before
        return self._set(timer, new.idempotency)

    def find(self, tenant: str, wanted: Idempotency) -> SetOnce | None:
        """Return what ``create`` returned for this request; None if there is no such timer."""
        holder = self._store.keys.find(_name(tenant, wanted))
        timer = holder and self._store.find(tenant, holder.timer_id)
        return replay(timer, wanted) if timer else None

    def _set(self, timer: Timer, wanted: Idempotency) -> SetOnce:
        name, ours = _name(timer.tenant, wanted), Holder.of(timer)
        seen: Holder | None = None
        for _ in range(MAX_TRIES):
            holder = self._store.keys.assign(name, ours, seen=seen)
            if holder.timer_id == timer.id:
                self._put(timer, timer.created_at)
                return SetOnce(timer.id, replayed=False)
            before = self._answer_of(holder, timer, wanted)
            if before is not None:
                self._store.give_back(timer.tenant, timer.id)
                return before
            seen = holder  # its timer is gone
        raise Unavailable("Other requests keep taking this Idempotency-Key; try again.")

    def _answer_of(self, holder: Holder, timer: Timer, wanted: Idempotency) -> SetOnce | None:
        """Return the answer of the request that has the key; None if its timer is gone.

        A request that has not written its row is finished.
        """
        stored = self._store.find(timer.tenant, holder.timer_id)
        if stored is not None:
            return replay(stored, wanted)
        if not holder.unfinished(self._clock()):
            return None
        require_same(holder.digest, wanted)
        self._put(
            replace(
                timer,
                id=holder.timer_id,
                created_at=holder.created_at,
                due_at=holder.due_at,
                next_attempt_at=holder.due_at,
            ),
            timer.created_at,
        )
        return SetOnce(holder.timer_id, replayed=True)


def require_in_time(accepted_at: int, now: float) -> None:
    """Raise ``Unavailable`` if it is too late to write the row of a timer that has keys.

    The request was accepted at ``accepted_at`` (epoch ms). Others may have finished it since, and
    the timer may be gone again.
    """
    if now - accepted_at >= PUT_WITHIN_MS:
        raise Unavailable("The request took too long; nothing was set. Send it again.")


def _name(tenant: str, wanted: Idempotency) -> KeyName:
    return KeyName(KeyKind.REQUEST, tenant, wanted.key)
