"""Bugs to plant: what the simulation must find, or its silence means nothing.

Each is an edit of the real code, made in memory: where the code has moved on, planting fails.
"""

from __future__ import annotations

import __future__

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from chalicelib import attempt, delivery
from chalicelib.delivery import Delivery
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.scheduling import Scheduling
from chalicelib.sweeper import Sweeper
from chalicelib.timer import Timer


@dataclass(frozen=True, slots=True)
class Edit:
    """In one function of ``owner``, a class or a module, ``old`` becomes ``new``."""

    owner: Any
    function: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Bug:
    """Something that somebody might get wrong."""

    name: str
    edits: tuple[Edit, ...]


BUGS = (
    Bug(
        "no lease",
        (
            Edit(
                SQLiteTimerStore,
                "claim",
                "AND (lease_until IS NULL OR lease_until <= ?) ",
                "AND ? > 0 ",
            ),
        ),
    ),
    Bug(
        "no token check at settle",
        (Edit(SQLiteTimerStore, "settle", "AND token = ?", "AND ? IS NOT NULL"),),
    ),
    Bug(
        "no version check",
        (Edit(SQLiteTimerStore, "claim", "AND version = ? ", "AND ? > 0 "),),
    ),
    Bug(
        "settle before send",
        (
            Edit(
                Delivery,
                "_attempt",
                "        settlement = self._carry_out(steps)\n",
                "        self._store.settle(Settlement(tenant=timer.tenant, id=timer.id,\n"
                "            token=timer.token or '', now=0, status=Status.FIRED))\n"
                "        settlement = self._carry_out(steps)\n",
            ),
        ),
    ),
    Bug(
        "no sweep",
        (Edit(Sweeper, "sweep", "moments = self._moments()", "return Swept()"),),
    ),
    Bug(
        "an early wake-up sends",
        (
            Edit(Delivery, "deliver", "wakeup.at - self._world.clock()", "0"),
            Edit(
                Delivery,
                "_claim",
                "math.floor(self._world.clock())",
                "max(wakeup.at, math.floor(self._world.clock()))",
            ),
        ),
    ),
    Bug(
        "a failed claim drops its wake-up",
        (Edit(Delivery, "deliver", "claimed.refusal is Refusal.LATER", "False"),),
    ),
    Bug(
        "acknowledged though not stored",
        (
            Edit(
                Scheduling,
                "set",
                "        timer = self._store.create(new, self._leave if put_first else self._arm)\n",
                "        timer = Timer.first(new, 0)\n"
                "        def arm(made):\n"
                "            nonlocal timer\n"
                "            timer = made\n"
                "            return not put_first and self._arm(made)\n"
                "        try:\n"
                "            timer = self._store.create(new, arm)\n"
                "        except Unavailable:\n"
                "            if timer.id == 0:\n"
                "                raise\n",
            ),
        ),
    ),
    Bug(
        "a cancel ignores the lease",
        (Edit(SQLiteTimerStore, "_free", "timer.leased(now)", "False"),),
    ),
    Bug(
        "a retry keeps its version",
        (Edit(SQLiteTimerStore, "settle", "version = version + ?", "version = version + 0 * ?"),),
    ),
    Bug(
        "a settled timer stays in the due index",
        (
            Edit(
                SQLiteTimerStore,
                "settle",
                "settlement.status.value,\n                    settlement.next_attempt_at,",
                "settlement.status.value,\n                    settlement.next_attempt_at or 0,",
            ),
        ),
    ),
    Bug(
        "a sweep marks before it sends",
        (
            Edit(
                Sweeper,
                "_send",
                "        taken = self._queue.wake_all(page)\n",
                "        for wakeup in page:\n"
                "            self._missed.mark(wakeup, moments, now)\n"
                "        taken = self._queue.wake_all(page)\n",
            ),
        ),
    ),
    Bug(
        "what is not recorded is forgotten",
        (
            Edit(
                Delivery,
                "_attempt",
                "self._waker.wake_at(replace(timer.wakeup(), at=timer.lease_until or 0))",
                "pass",
            ),
        ),
    ),
    Bug(
        "what cannot be delivered is not put back",
        (
            Edit(
                Delivery,
                "_deliver_or_put_back",
                "self._waker.wake_at(replace(wakeup, at=again_at))",
                "pass",
            ),
        ),
    ),
    Bug(
        "a halted sender sends",
        (Edit(attempt, "_check_lease", "timer.lease_until is not None", "False"),),
    ),
    Bug(
        "the time left is rounded down",
        (Edit(Timer, "time_left", "-(-(self.due_at - whole) // 1000)", "(self.due_at - whole) // 1000"),),
    ),
    Bug(
        "nobody is told of a final failure",
        (Edit(delivery, "attempt", "timer.on_failure_url is not None", "False"),),
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
    if source.count(edit.old) != 1:
        raise LookupError(f"{edit.function} does not have this once: {edit.old}")
    code = compile(
        textwrap.dedent(source.replace(edit.old, edit.new)),
        f"<{edit.function} with a bug>",
        "exec",
        flags=__future__.annotations.compiler_flag,
    )
    made: dict[str, Any] = {}
    exec(code, function.__globals__, made)
    return made[edit.function]
