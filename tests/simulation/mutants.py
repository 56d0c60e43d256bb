"""Mutants: small faulty edits of the real code, which the simulation must find.

A simulation that finds no mutant would find no bug either. The edits are made in memory. A mutant
whose text is no longer in the code raises ``LookupError``.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from chalicelib.aws.batch_creates import BatchCreates
from chalicelib.aws.idempotent_creates import IdempotentCreates
from chalicelib.aws.keyed_timers import KeyedTimers
from chalicelib.aws.waking_store import WakingTimerStore
from chalicelib.domain import keyed, retry
from chalicelib.domain.timer import Timer
from chalicelib.embedded.claims import Claims
from chalicelib.embedded.dispatcher import Dispatcher
from chalicelib.embedded.egress import Egress
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.turns import Turns
from chalicelib.embedded.writer import Writer
from chalicelib.service import attempt, delivery
from chalicelib.service.delivery import Delivery
from chalicelib.service.many_timers import ManyTimers
from chalicelib.service.sweep import Sweeper


@dataclass(frozen=True, slots=True)
class Edit:
    """Texts to replace in one function of ``owner``, a class or a module."""

    owner: Any
    function: str
    changes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake that somebody might make."""

    name: str
    edits: tuple[Edit, ...]
    store: str = "sqlite"
    """The store on which runs can find it."""


def mutant(
    name: str, owner: Any, function: str, changes: Mapping[str, str], *, store: str = "sqlite"
) -> Mutant:
    """Return a mutant with one edit."""
    return Mutant(name, (Edit(owner, function, changes),), store)


MUTANTS = (
    mutant(
        "no lease",
        SQLiteTimerStore,
        "claim",
        {"AND (lease_until IS NULL OR lease_until <= ?) ": "AND ? > 0 "},
    ),
    mutant(
        "no token check at settle",
        SQLiteTimerStore,
        "settle",
        {"AND token = ?": "AND ? IS NOT NULL"},
    ),
    mutant("no version check", SQLiteTimerStore, "claim", {"AND version = ? ": "AND ? > 0 "}),
    mutant(
        "settle before send",
        Delivery,
        "_attempt",
        {
            "settlement = run(steps, self._sender.send)": "from chalicelib.domain.claim "
            "import Settlement; timer = claimed.timer; "
            "self._store.settle(Settlement(tenant=timer.tenant, id=timer.id, "
            "version=timer.version, token=claimed.lease.token, now=0, "
            "status=Status.FIRED, attempts=1)); "
            "settlement = run(steps, self._sender.send)"
        },
    ),
    mutant("no sweep", Sweeper, "sweep", {"cutoffs = self._cutoffs()": "return Swept()"}),
    Mutant(
        "an early wake-up sends",
        (
            Edit(
                Delivery,
                "deliver",
                {
                    "if wakeup.at - self._effects.clock() > MAX_WAIT_MS:": "if False:",
                    "if early_ms > 0:": "if False:",
                },
            ),
            Edit(
                Delivery,
                "_claim",
                {
                    "math.floor(self._effects.clock())": "max(wakeup.at, "
                    "math.floor(self._effects.clock()))"
                },
            ),
        ),
    ),
    mutant(
        "a failed claim drops its wake-up",
        Delivery,
        "deliver",
        {"isinstance(result, NotYet)": "False"},
    ),
    mutant(
        "a timer is acknowledged but not stored",
        SQLiteTimerStore,
        "insert",
        {"self._connection.execute(": "timer.id % 4 == 3 or self._connection.execute("},
    ),
    mutant(
        "a cancel ignores the lease",
        SQLiteTimerStore,
        "_get_unleased",
        {"timer.leased(now)": "False"},
    ),
    mutant(
        "a retry keeps its version",
        SQLiteTimerStore,
        "settle",
        {"version = version + ?": "version = version + 0 * ?"},
    ),
    mutant(
        "a settled timer stays in the due index",
        SQLiteTimerStore,
        "settle",
        {"settlement.next_attempt_at,": "settlement.next_attempt_at or 0,"},
    ),
    mutant(
        "an id is used again",
        SQLiteTimerStore,
        "cancel",
        {
            "return timer": "self._connection.execute('UPDATE tenants SET last_id = ("
            "SELECT coalesce(max(id), 0) FROM timers WHERE timers.tenant = tenants.tenant)')\n"
            "        return timer"
        },
    ),
    mutant(
        "a sweep marks wake-ups before it queues them",
        Sweeper,
        "_send",
        {
            "taken = self._queue": "[self._due_index.mark(each, cutoffs, now) for each in page]; "
            "taken = self._queue"
        },
    ),
    mutant(
        "an unrecorded outcome is not tried again",
        Delivery,
        "_attempt",
        {"self._wakeups.wake_at(replace(claimed.timer.wakeup(), at=claimed.lease.until))": "pass"},
    ),
    mutant(
        "an undelivered wake-up is not put back",
        Delivery,
        "_deliver_or_put_back",
        {"self._wakeups.wake_at(again)": "pass"},
    ),
    mutant(
        "a timer whose write outlasts its delay is not woken again",
        WakingTimerStore,
        "_write",
        {"self._clock() >= wakeup.at": "False"},
    ),
    mutant(
        "a retry whose write outlasts its delay is not woken again",
        WakingTimerStore,
        "settle",
        {
            "self._write(retry, lambda armed: self._store.settle(settlement, armed=armed))": ""
            "self._store.settle(settlement, armed=self.register(retry))"
        },
    ),
    mutant(
        "a sender sends after its lease has ended",
        attempt,
        "_check_lease",
        {"now >= lease.until - min_left_ms": "False"},
    ),
    mutant(
        "the time left is rounded down",
        Timer,
        "time_left",
        {"-(-(self.due_at - whole) // 1000)": "(self.due_at - whole) // 1000"},
    ),
    mutant(
        "no failure notice is sent",
        delivery,
        "attempt",
        {"timer.options.on_failure_url is not None": "False"},
    ),
    mutant(
        "a failure counts as delivered",
        retry,
        "succeeded",
        {"outcome.status in SUCCESS": "outcome.status is not None"},
    ),
    mutant(
        "the dispatcher claims timers early",
        Claims,
        "new_round",
        {"int(self._clock())": "int(self._clock()) + 50"},
        store="embedded",
    ),
    mutant(
        "the dispatcher claims a timer it is calling for",
        Claims,
        "_due",
        {"if (timer.wakeup.tenant, timer.wakeup.id) not in self._in_flight": ""},
        store="embedded",
    ),
    mutant(
        "the dispatcher forgets outcomes while the disk is full",
        Dispatcher,
        "_persist",
        {"while failure is not None": "while False"},
        store="embedded",
    ),
    mutant(
        "held timers are forgotten when their receiver has room",
        Turns,
        "call_ended",
        {"self.release(receiver)": "pass"},
        store="embedded",
    ),
    mutant(
        "held timers stay held after a crash",
        SQLiteTimerStore,
        "void_leases",
        {"SET held_for = NULL WHERE": "SET held_for = held_for WHERE"},
        store="embedded",
    ),
    mutant(
        "calls over the rate of a receiver are made",
        Egress,
        "start",
        {"usage.pace.spend(now, self._receiver_rate(usage)[0])": "pass"},
        store="embedded",
    ),
    Mutant(
        "a tenant takes more than its share",
        (
            Edit(
                Egress,
                "tenant_room",
                {
                    "int(min(allowed - usage.in_flight, self.free, by_rate))": (
                        "int(min(self.free, by_rate))"
                    )
                },
            ),
            Edit(
                Egress,
                "receiver_room",
                {
                    "fair_share(limits.max_in_flight, others, limits.tenant_share)": (
                        "limits.max_in_flight - others"
                    )
                },
            ),
        ),
        store="embedded",
    ),
    mutant(
        "the writer acknowledges failed writes",
        Writer,
        "_committed",
        {"self._fail(group, error)": "self.store.rollback(); self._succeed(group, results)"},
        store="embedded",
    ),
    mutant(
        "the retry of a lost settlement is not woken",
        WakingTimerStore,
        "settle",
        {"if write_first or self._clock() >= retry.at:": "if self._clock() >= retry.at:"},
    ),
    mutant(
        "an idempotency key is forgotten",
        IdempotentCreates,
        "_set",
        {"before = self._answer_of(holder, timer, wanted)": "before = None"},
        store="dynamodb",  # SQLite has a unique index
    ),
    mutant(
        "a key has two timers",
        KeyedTimers,
        "_take_key",
        {"if before is not None and before.next_attempt_at is not None:": "if False:"},
        store="dynamodb",
    ),
    mutant(
        "a later move passes the bound",
        keyed,
        "_replaced",
        {"at = new.due_at if bound is None else min(new.due_at, bound)": "at = new.due_at"},
    ),
    mutant(
        "a bound is loosened",
        keyed,
        "_tightened",
        {"min(timer.no_later_than, bound)": "bound"},
    ),
    mutant(
        "a timer that is too late is called",
        Timer,
        "too_late",
        {"return now > self.wakeup().at + max_lateness_ms": "return False"},
    ),
    mutant(
        "a timer expires too early",
        Timer,
        "too_late",
        {"self.wakeup().at + max_lateness_ms": "self.wakeup().at"},
    ),
    mutant(
        "a repeat goes on counting attempts",
        delivery,
        "attempt",
        {"attempts=0 if decision.repeat else": "attempts="},
    ),
    mutant(
        "a batch acknowledges what was not stored",
        BatchCreates,
        "_stored",
        {"return refusal": "pass"},
    ),
    mutant(
        "a cancel by label takes all timers",
        ManyTimers,
        "_page",
        {", only=only)": ")"},
    ),
)


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Apply the edits of ``mutant`` to the loaded code, and undo them afterwards."""
    with ExitStack() as undo:
        for edit in mutant.edits:
            original = inspect.getattr_static(edit.owner, edit.function)
            undo.callback(setattr, edit.owner, edit.function, original)
            setattr(edit.owner, edit.function, _edited(original, edit))
        yield


def _edited(function: Any, edit: Edit) -> Any:
    source = inspect.getsource(function)
    for old, new in edit.changes.items():
        if source.count(old) != 1:
            raise LookupError(f"{edit.function} does not have this once: {old}")
        source = source.replace(old, new)
    file = f"<{edit.function} mutated>"
    flags = __future__.annotations.compiler_flag
    made: dict[str, Any] = {}
    exec(compile(textwrap.dedent(source), file, "exec", flags), function.__globals__, made)
    return made[edit.function]
