"""Bugs to plant: what the simulation must find, or its silence means nothing.

Each is an edit of the real code, made in memory: where the code has moved on, planting fails.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from chalicelib.domain import retry
from chalicelib.domain.timer import Timer
from chalicelib.embedded.dispatcher import Dispatcher
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.writer import Writer
from chalicelib.service import attempt, delivery
from chalicelib.service.delivery import Delivery
from chalicelib.service.sweep import Sweeper
from chalicelib.service.timers import Timers


@dataclass(frozen=True, slots=True)
class Edit:
    """In one function of ``owner``, a class or a module, one text becomes another."""

    owner: Any
    function: str
    changes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bug:
    """Something that somebody might get wrong."""

    name: str
    edits: tuple[Edit, ...]
    store: str = "sqlite"
    """Which histories can show it."""


def bug(
    name: str, owner: Any, function: str, changes: Mapping[str, str], *, store: str = "sqlite"
) -> Bug:
    """Return a bug that is in one function."""
    return Bug(name, (Edit(owner, function, changes),), store)


BUGS = (
    bug(
        "no lease",
        SQLiteTimerStore,
        "claim",
        {"AND (lease_until IS NULL OR lease_until <= ?) ": "AND ? > 0 "},
    ),
    bug(
        "no token check at settle",
        SQLiteTimerStore,
        "settle",
        {"AND token = ?": "AND ? IS NOT NULL"},
    ),
    bug("no version check", SQLiteTimerStore, "claim", {"AND version = ? ": "AND ? > 0 "}),
    bug(
        "settle before send",
        Delivery,
        "_attempt",
        {
            "settlement = self._carry_out(steps)": "self._store.settle("
            "Settlement(tenant=timer.tenant, id=timer.id, token=timer.token or '', now=0, "
            "status=Status.FIRED)); settlement = self._carry_out(steps)"
        },
    ),
    bug("no sweep", Sweeper, "sweep", {"moments = self._moments()": "return Swept()"}),
    Bug(
        "an early wake-up sends",
        (
            Edit(
                Delivery,
                "deliver",
                {
                    "if wakeup.at - self._world.clock() > WAIT_MS:": "if False:",
                    "if early_ms > 0:": "if False:",
                },
            ),
            Edit(
                Delivery,
                "_claim",
                {
                    "math.floor(self._world.clock())": "max(wakeup.at, "
                    "math.floor(self._world.clock()))"
                },
            ),
        ),
    ),
    bug(
        "a failed claim drops its wake-up",
        Delivery,
        "deliver",
        {"claimed.refusal is Refusal.LATER": "False"},
    ),
    bug(
        "acknowledged though not stored",
        SQLiteTimerStore,
        "create",
        {
            "return timer": "self._connection.execute('DELETE FROM timers WHERE id % 4 = 3')\n"
            "        return timer"
        },
    ),
    bug("a cancel ignores the lease", SQLiteTimerStore, "_free", {"timer.leased(now)": "False"}),
    bug(
        "a retry keeps its version",
        SQLiteTimerStore,
        "settle",
        {"version = version + ?": "version = version + 0 * ?"},
    ),
    bug(
        "a settled timer stays in the due index",
        SQLiteTimerStore,
        "settle",
        {"settlement.next_attempt_at,": "settlement.next_attempt_at or 0,"},
    ),
    bug(
        "an id is used again",
        SQLiteTimerStore,
        "cancel",
        {
            "return timer": "self._connection.execute('UPDATE tenants SET last_id = ("
            "SELECT coalesce(max(id), 0) FROM timers WHERE timers.tenant = tenants.tenant)')\n"
            "        return timer"
        },
    ),
    bug(
        "a sweep marks before it sends",
        Sweeper,
        "_send",
        {
            "taken = self._queue": "[self._missed.mark(each, moments, now) for each in page]; "
            "taken = self._queue"
        },
    ),
    bug(
        "what is not recorded is forgotten",
        Delivery,
        "_attempt",
        {"self._waker.wake_at(replace(timer.wakeup(), at=timer.lease_until or 0))": "pass"},
    ),
    bug(
        "what cannot be delivered is not put back",
        Delivery,
        "_deliver_or_put_back",
        {"self._waker.wake_at(replace(wakeup, at=again_at))": "pass"},
    ),
    bug(
        "a timer whose write outlasts its delay is not woken again",
        Timers,
        "set",
        {"self._clock() >= due_at": "False"},
    ),
    bug(
        "a retry whose write outlasts its delay is not woken again",
        Delivery,
        "_attempt",
        {"self._world.clock() >= retry.at": "False"},
    ),
    bug(
        "a halted sender sends",
        attempt,
        "_check_lease",
        {"timer.lease_until is not None": "False"},
    ),
    bug(
        "the time left is rounded down",
        Timer,
        "time_left",
        {"-(-(self.due_at - whole) // 1000)": "(self.due_at - whole) // 1000"},
    ),
    bug(
        "nobody is told of a final failure",
        delivery,
        "attempt",
        {"timer.on_failure_url is not None": "False"},
    ),
    bug(
        "a failure counts as delivered",
        retry,
        "succeeded",
        {"outcome.status in SUCCESS": "outcome.status is not None"},
    ),
    bug(
        "the dispatcher claims before the time",
        Dispatcher,
        "_claim_due",
        {"now = int(self._clock())": "now = int(self._clock()) + 50"},
        store="embedded",
    ),
    bug(
        "the dispatcher claims what it is calling",
        Dispatcher,
        "_due",
        {"if (wakeup.tenant, wakeup.id) not in self._in_flight": ""},
        store="embedded",
    ),
    bug(
        "the dispatcher forgets results while the disk is full",
        Dispatcher,
        "_persist",
        {"while failure is not None": "while False"},
        store="embedded",
    ),
    bug(
        "the writer acknowledges what it could not write",
        Writer,
        "_fail",
        {
            "write.done(Unavailable(detail))": "write.done("
            "None if write.durable else Unavailable(detail))"
        },
        store="embedded",
    ),
)


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """Have ``bug`` in the code for a while."""
    with ExitStack() as repairs:
        for edit in bug.edits:
            original = inspect.getattr_static(edit.owner, edit.function)
            repairs.callback(setattr, edit.owner, edit.function, original)
            setattr(edit.owner, edit.function, _edited(original, edit))
        yield


def _edited(function: Any, edit: Edit) -> Any:
    source = inspect.getsource(function)
    for old, new in edit.changes.items():
        if source.count(old) != 1:
            raise LookupError(f"{edit.function} does not have this once: {old}")
        source = source.replace(old, new)
    file = f"<{edit.function} with a bug>"
    flags = __future__.annotations.compiler_flag
    made: dict[str, Any] = {}
    exec(compile(textwrap.dedent(source), file, "exec", flags), function.__globals__, made)
    return made[edit.function]
