"""Keyed timers on AWS: the key's item says which timer a key stands for, its row what it is.

A set costs one write and one read more than a plain create: the read finds that the key is free. A
move costs two reads and one write of the row. ``domain/keyed.py`` decides between them. Every write
names what it has seen, and another request that came between starts this one again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from chalicelib.aws.idempotent_creates import Put, RowsByKey
from chalicelib.aws.key_holder import Holder, IdTaken, KeyKind, KeyName
from chalicelib.domain.errors import TimerChanged, TimerNotFound
from chalicelib.domain.keyed import KeyedTimer, Replacement, SetByKey, decide
from chalicelib.domain.timer import NewTimer, Timer
from chalicelib.service.ports import Clock

MAX_TRIES = 5
"""How often a key is tried while other requests and calls keep changing its timer."""


class KeyedRows(RowsByKey, Protocol):
    """The store's part in setting keyed timers."""

    def give_up_key(self, timer: Timer) -> None:
        """Take the key from a timer in flight. Raises ``TimerChanged`` if it is not any more."""


Move = Callable[[Replacement], Timer]
"""Change a timer and register its wake-up if it is earlier. Raises ``TimerChanged``."""


class KeyedTimers:
    """Finds and sets the timers of keys."""

    def __init__(self, store: KeyedRows, put: Put, move: Move, clock: Clock) -> None:
        self._store = store
        self._put = put
        self._move = move
        self._clock = clock

    def get(self, tenant: str, key: str) -> Timer:
        """Return the timer of a key. Raises ``TimerNotFound``."""
        holder = self._store.keys.find(_name(tenant, key))
        timer = holder and self._store.find(tenant, holder.timer_id)
        if not timer or timer.key != key:
            raise TimerNotFound(f"There is no timer {key!r}.")
        return timer

    def set(self, wanted: SetByKey) -> KeyedTimer:
        """Set or move the timer of a key. See ``TimerStore.set_by_key``."""
        for _ in range(MAX_TRIES):
            holder = self._store.keys.find(_name(wanted.new.tenant, wanted.key))
            stored = holder and self._store.find(wanted.new.tenant, holder.timer_id)
            # A timer that was in flight may have given its key up.
            timer = stored if stored and stored.key == wanted.key else None
            decision = decide(timer, wanted)
            try:
                if isinstance(decision, Replacement):
                    return KeyedTimer(self._moved(decision, holder), created=False)
                if holder and not stored and holder.unfinished(self._clock()):
                    new = Timer.first(decision, holder.timer_id)
                else:
                    new = self._take_key(decision, holder, timer)
                self._put(new, new.created_at)
                return KeyedTimer(new, created=True)
            except (TimerChanged, IdTaken, _KeyTaken):
                continue  # another request came between: look again
        raise TimerChanged(f"The timer of key {wanted.key!r} keeps changing; try again.")

    def _moved(self, change: Replacement, holder: Holder | None) -> Timer:
        at = change.after.wakeup().at
        # Before the move: the item of a key must never expire before its timer.
        if holder is not None and not self._store.keys.lasts(holder, at):
            before = change.before
            name = KeyName(KeyKind.TIMER, before.tenant, before.key or "")
            self._store.keys.keep(name, before.id, at)
        return self._move(change)

    def _take_key(self, wanted: NewTimer, holder: Holder | None, before: Timer | None) -> Timer:
        """Give the key that ``holder`` has to a new timer, and return it.

        ``before`` is the timer that has the key, settled or in flight. Raises ``TimerChanged`` and
        ``_KeyTaken``.
        """
        # First: it may be refused, and a refused request changes nothing.
        timer = Timer.first(wanted, self._store.next_id(wanted.tenant))
        if before is not None and before.next_attempt_at is not None:
            try:
                self._store.give_up_key(before)
            except TimerChanged:
                self._store.give_back(wanted.tenant, timer.id)
                raise
        name = _name(wanted.tenant, wanted.key or "")
        if self._store.keys.assign(name, Holder.of(timer), seen=holder).timer_id != timer.id:
            self._store.give_back(wanted.tenant, timer.id)
            raise _KeyTaken
        return timer


class _KeyTaken(Exception):
    """Another request took the key at the same time."""


def _name(tenant: str, key: str) -> KeyName:
    return KeyName(KeyKind.TIMER, tenant, key)
