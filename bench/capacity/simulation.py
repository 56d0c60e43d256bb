"""A deterministic simulation of the service on AWS, in steps of a tenth of a second.

It moves whole timers through the gateway, the API, DynamoDB, Scheduler, the queue and the function
that delivers. Each may take only what its limits allow. Nothing random, no clock, no network.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.capacity.limits import DEFAULTS
from chalicelib.aws.dynamodb.rows import SHARDS
from chalicelib.functions import BATCH_SIZE
from infra.cost import API_S, BATCH_WAIT_S, RESPONSE_S
from infra.work import CREATE, DELIVERY, Work

STEPS_PER_S = 10
SCALING_PERIOD_S = 10
"""Lambda's concurrency scaling rate is published per 10 s, and refilled continuously."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What clients and receivers do.

    ``creates_per_s`` come for ``creates_s`` seconds. Each is due after ``delay_s``; if it is
    ``far``, it needs a schedule and is not due in the run. ``due_at_once`` timers are due at the
    start, and their messages are on the queue. A receiver takes ``receiver_s`` to respond.
    ``API_S``, ``BATCH_WAIT_S`` and ``RESPONSE_S`` are assumed, as in ``infra.cost``.
    """

    creates_per_s: int = 0
    creates_s: int = 0
    delay_s: int = 60
    far: bool = False
    due_at_once: int = 0
    receiver_s: float = RESPONSE_S
    run_s: int = 120

    @property
    def batch_steps(self) -> int:
        """Return how many steps one batch occupies an execution."""
        return max(1, math.ceil((BATCH_WAIT_S + self.receiver_s) * STEPS_PER_S))


@dataclass(frozen=True, kw_only=True)
class Met:
    """A limit that something had to wait for, or was refused for.

    ``at_s`` is when this happened first. ``asked`` is what was asked of the limit then, in its own
    unit.
    """

    limit: str
    at_s: float
    asked: float


@dataclass(frozen=True, kw_only=True)
class Second:
    """The sums of one second: timers by what happened to them, and the state at its end."""

    created: int
    refused: int
    unarmed: int
    delivered: int
    waiting: int
    batches: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """The simulated run: each second, and the limits in the order in which they were met."""

    seconds: tuple[Second, ...]
    met: tuple[Met, ...]
    latest_s: float
    """How late the last delivery of the run began, in seconds after its due time."""


class Bucket:
    """A token bucket: ``rate`` tokens a second, ``burst`` of them at most. It begins full."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst

    def refill(self) -> None:
        """Add the tokens of one step."""
        self._tokens = min(self._burst, self._tokens + self._rate / STEPS_PER_S)

    def room(self, each: float) -> int:
        """Return for how many events of ``each`` tokens there is room now."""
        return math.floor(self._tokens / each + 1e-9)

    def take(self, tokens: float) -> None:
        """Use up tokens that ``room`` promised."""
        self._tokens -= tokens


@dataclass
class _Counts:
    created: int = 0
    refused: int = 0
    unarmed: int = 0
    delivered: int = 0


@dataclass
class _State:
    """What changes during a run. ``due`` holds the number of messages by the step they are due."""

    load: Load
    limits: Mapping[str, float]
    counts: _Counts = field(default_factory=_Counts)
    met: dict[str, Met] = field(default_factory=dict)
    due: deque[tuple[int, int]] = field(default_factory=deque)
    running: deque[tuple[int, int, int]] = field(default_factory=deque)
    """Batches in delivery: the step at which they end, how many, and their messages."""
    first_message: int | None = None
    latest: int = 0
    api_busy: int = 0
    """Executions of the API's function in the step before."""

    def __post_init__(self) -> None:
        limit = self.limits
        shards = SHARDS * limit["partition_writes"]
        self.buckets = {
            "stage_rate": Bucket(limit["stage_rate"], limit["stage_burst"]),
            "gateway_rate": Bucket(limit["gateway_rate"], limit["gateway_burst"]),
            "table_warm": Bucket(limit["table_warm"], limit["table_warm"]),
            "index_warm": Bucket(limit["index_warm"], limit["index_warm"]),
            "table_quota": Bucket(limit["table_quota"], limit["table_quota"]),
            "partition_writes": Bucket(shards, shards),
            "create_schedule": Bucket(limit["create_schedule"], limit["create_schedule"]),
        }
        growth = limit["lambda_scaling"]
        self.api_growth = Bucket(growth / SCALING_PERIOD_S, growth)
        self.api_environments = 0
        if self.load.due_at_once:
            self.due.append((0, self.load.due_at_once))

    def waiting(self, step: int) -> int:
        return sum(count for at, count in self.due if at <= step)

    def batches(self) -> int:
        return sum(batches for _, batches, _ in self.running)

    def note(self, limit: str, step: int, asked: float) -> None:
        self.met.setdefault(limit, Met(limit=limit, at_s=step / STEPS_PER_S, asked=round(asked, 1)))


def simulate(load: Load, limits: Mapping[str, float] = DEFAULTS) -> Result:
    """Run ``load`` against ``limits``, which has a value for each name of ``LIMITS``."""
    state = _State(load, limits)
    seconds = []
    for step in range(load.run_s * STEPS_PER_S):
        for bucket in (*state.buckets.values(), state.api_growth):
            bucket.refill()
        _finish(state, step)
        _deliver(state, step)
        _create(state, step)
        if (step + 1) % STEPS_PER_S == 0:
            seconds.append(_second(state, step))
    return Result(
        seconds=tuple(seconds),
        met=tuple(sorted(state.met.values(), key=lambda met: met.at_s)),
        latest_s=state.latest / STEPS_PER_S,
    )


def _second(state: _State, step: int) -> Second:
    counts, state.counts = state.counts, _Counts()
    return Second(
        created=counts.created,
        refused=counts.refused,
        unarmed=counts.unarmed,
        delivered=counts.delivered,
        waiting=state.waiting(step),
        batches=state.batches(),
    )


def _create(state: _State, step: int) -> None:
    """Let this step's creates through the gateway, the API's function and the store."""
    load = state.load
    if step >= load.creates_s * STEPS_PER_S:
        state.api_busy = 0
        return
    arrived = _share(load.creates_per_s, step)
    passed = _admit(state, step, arrived, ("stage_rate", "gateway_rate"), arrived)
    requests = _invoke(state, step, passed)
    # The wake-up is registered first, as the service does it.
    armed = _admit(state, step, requests, ("create_schedule",), requests) if load.far else requests
    stored = _write(state, step, requests, CREATE)
    state.counts.created += stored
    state.counts.refused += arrived - stored
    state.counts.unarmed += max(0, stored - armed)
    if not load.far:
        state.due.append((step + load.delay_s * STEPS_PER_S, stored))


def _invoke(state: _State, step: int, requests: int) -> int:
    """Return how many requests find an execution of the API's function."""
    per_execution = math.floor(1 / (API_S * STEPS_PER_S))  # one after the other, in one step
    wanted = math.ceil(requests / per_execution)
    free = int(state.limits["lambda_concurrency"]) - state.batches()
    if wanted > free:
        state.note("lambda_concurrency", step, wanted + state.batches())
        wanted = max(0, free)
    new = max(0, wanted - state.api_environments)
    room = state.api_growth.room(1)
    if new > room:
        state.note("lambda_scaling", step, new)
        new = room
    state.api_growth.take(new)
    state.api_environments += new
    state.api_busy = min(wanted, state.api_environments)
    return min(requests, state.api_busy * per_execution)


def _write(state: _State, step: int, events: int, work: Work) -> int:
    """Return for how many events DynamoDB takes the writes, to the table and to its index."""
    units = {
        "table_warm": work.table_writes,
        "table_quota": work.table_writes,
        "index_warm": work.index_writes,
        "partition_writes": work.index_writes,
    }
    granted = events
    for name, each in units.items():
        room = state.buckets[name].room(each)
        if events > room:
            state.note(name, step, events * each * STEPS_PER_S)
        granted = min(granted, room)
    for name, each in units.items():
        state.buckets[name].take(granted * each)
    return granted


def _admit(state: _State, step: int, events: int, names: tuple[str, ...], asked: int) -> int:
    """Let events through buckets in turn; each notes what it turns away."""
    for name in names:
        bucket = state.buckets[name]
        room = bucket.room(1)
        if events > room:
            state.note(name, step, asked * STEPS_PER_S)
        events = min(events, room)
        bucket.take(events)
    return events


def _deliver(state: _State, step: int) -> None:
    """Start batches of due messages, as many as pollers and concurrency allow."""
    waiting = state.waiting(step)
    if not waiting:
        return
    if state.first_message is None:
        state.first_message = step
    # A batch is short when few messages wait: Lambda does not hold them back for a full one.
    free = _free_batches(state, step, math.ceil(waiting / BATCH_SIZE))
    messages = min(waiting, free * BATCH_SIZE)
    messages = _write(state, step, messages, DELIVERY)
    if not messages:
        return
    state.running.append(
        (step + state.load.batch_steps, math.ceil(messages / BATCH_SIZE), messages)
    )
    while messages > 0:
        at, count = state.due.popleft()
        taken = min(count, messages)
        messages -= taken
        state.latest = max(state.latest, step - at)
        if taken < count:
            state.due.appendleft((at, count - taken))


def _free_batches(state: _State, step: int, wanted: int) -> int:
    """Return how many of ``wanted`` batches may start, and note the limit that holds the rest."""
    limits, busy = state.limits, state.batches()
    elapsed_s = (step - (state.first_message or 0)) / STEPS_PER_S
    grown = math.floor(limits["poller_start"] + limits["poller_growth"] * elapsed_s / 60)
    rooms = {
        "poller_start" if elapsed_s == 0 else "poller_growth": grown - busy,
        "poller_most": int(limits["poller_most"]) - busy,
        "lambda_concurrency": int(limits["lambda_concurrency"]) - busy - state.api_busy,
        "in_flight": int(limits["in_flight"]) // BATCH_SIZE - busy,
    }
    name, room = min(rooms.items(), key=lambda item: item[1])
    if wanted > room:
        state.note(name, step, busy + wanted)
    return max(0, min(wanted, room))


def _finish(state: _State, step: int) -> None:
    while state.running and state.running[0][0] <= step:
        state.counts.delivered += state.running.popleft()[2]


def _share(per_s: int, step: int) -> int:
    """Return this step's whole part of a rate, so that ten steps sum up to it."""
    place = step % STEPS_PER_S
    return per_s * (place + 1) // STEPS_PER_S - per_s * place // STEPS_PER_S
