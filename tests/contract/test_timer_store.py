"""The contract of every timer store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.claim import Claimed, NotYet, Reschedule, Superseded
from chalicelib.domain.errors import TimerChanged, TimerInFlight, TimerNotFound, TimerSettled
from chalicelib.domain.idempotency import SetOnce
from chalicelib.domain.selection import DuePosition, Selection
from chalicelib.domain.timer import DeliveryOptions, Lease, Status, Timer
from tests.contract.stores import Store
from tests.support.clock import START
from tests.support.factories import (
    DUE,
    LEASE_MS,
    TENANT,
    URL,
    change_of,
    claim_of,
    claimed,
    new_timer,
    set_timer,
    settled,
    settlement_of,
)

SUPERSEDED = Superseded()
OTHER = "other#1"
NEVER = 2**62


def listed(
    store: Store, *, tenant: str = TENANT, status: Status | None = None, limit: int = 100
) -> list[int]:
    """Return the ids on all pages of a list."""
    ids: list[int] = []
    before = None
    for _ in range(1_000):
        page = store.list(tenant, before=before, status=status, limit=limit)
        assert len(page.timers) <= limit
        ids += [timer.id for timer in page.timers]
        if page.before is None:
            return ids
        assert before is None or page.before < before
        before = page.before
    raise AssertionError("the list does not end")


def purge(store: Store, tenant: str = TENANT, limit: int = 100) -> None:
    before = store.purge(tenant, before=None, limit=limit)
    while before is not None:
        following = store.purge(tenant, before=before, limit=limit)
        assert following is None or following < before
        before = following


def due_ids(store: Store, now: int = NEVER, limit: int = 100) -> list[int]:
    return [wakeup.id for wakeup in store.due(now, limit)]


# Setting and reading


def test_a_timer_is_read_as_it_was_set(store: Store) -> None:
    timer = store.create(new_timer(url="https://h/caf%C3%A9?k=v#é"))

    assert timer == Timer(
        tenant=TENANT,
        id=1,
        url="https://h/caf%C3%A9?k=v#é",
        created_at=START,
        due_at=DUE,
        next_attempt_at=DUE,
    )
    assert store.get(TENANT, timer.id) == timer


def test_ids_count_from_1(store: Store) -> None:
    assert [set_timer(store).id for _ in range(10)] == list(range(1, 11))


@pytest.mark.parametrize("timer_id", [1, 2, 255, 256, 2**63 - 1])
def test_an_id_that_was_never_given_is_not_found(store: Store, timer_id: int) -> None:
    with pytest.raises(TimerNotFound):
        store.get(TENANT, timer_id)


def test_tenants_do_not_see_each_other(store: Store) -> None:
    ours = set_timer(store)
    theirs = set_timer(store, tenant=OTHER, url="https://theirs.example")

    assert (ours.id, theirs.id) == (1, 1)
    assert store.get(OTHER, 1) == theirs
    assert listed(store, tenant=OTHER) == [1]
    purge(store, OTHER)
    assert store.get(TENANT, 1) == ours
    assert {(wakeup.tenant, wakeup.id) for wakeup in store.due(DUE, 10)} == {(TENANT, 1)}


@pytest.mark.parametrize(("one", "another"), [("a", "a#0"), ("a#0", "a"), ("a", "A"), ("", "#")])
def test_two_tenants_with_similar_names_stay_apart(store: Store, one: str, another: str) -> None:
    timer = set_timer(store, tenant=one)

    assert store.get(one, timer.id).tenant == one
    with pytest.raises(TimerNotFound):
        store.get(another, timer.id)
    assert listed(store, tenant=another) == []


# Listing


def test_a_new_store_lists_nothing(store: Store) -> None:
    page = store.list(TENANT, before=None, status=None, limit=100)
    assert (list(page.timers), page.before) == ([], None)


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_list_shows_every_timer_once_highest_id_first(
    store: Store, status: Status | None, limit: int
) -> None:
    statuses = {}
    for wanted in (*Status, *Status):
        timer = set_timer(store)
        statuses[timer.id] = wanted
        if wanted is not Status.PENDING:
            settled(store, timer, wanted)

    expected = [i for i in sorted(statuses, reverse=True) if status in (None, statuses[i])]
    assert listed(store, status=status, limit=limit) == expected


def test_a_list_shows_timers_as_they_are_stored(store: Store) -> None:
    timer = settled(store, set_timer(store), Status.FAILED)

    for status in (None, Status.FAILED):
        page = store.list(TENANT, before=None, status=status, limit=10)
        assert list(page.timers) == [timer]


def test_a_list_continues_over_gaps_and_several_hundred_ids(store: Store) -> None:
    ids = [set_timer(store).id for _ in range(300)]
    for timer_id in ids[30:290]:
        store.cancel(TENANT, timer_id, START)

    expected = [*reversed(ids[290:]), *reversed(ids[:30])]
    assert listed(store, limit=15) == expected
    assert listed(store, limit=1_000) == expected
    assert listed(store, status=Status.PENDING, limit=7) == expected


def test_a_continued_list_shows_no_timer_set_since_its_first_page(store: Store) -> None:
    for _ in range(3):
        set_timer(store)
    first = store.list(TENANT, before=None, status=None, limit=2)
    set_timer(store)

    second = store.list(TENANT, before=first.before, status=None, limit=2)

    assert [timer.id for timer in (*first.timers, *second.timers)] == [3, 2, 1]


@pytest.mark.parametrize("status", [None, *Status])
def test_a_list_below_an_id_out_of_reach_starts_at_the_top(
    store: Store, status: Status | None
) -> None:
    timer = set_timer(store)
    if status not in (None, Status.PENDING):
        settled(store, timer, status)

    page = store.list(TENANT, before=2**63 - 1, status=status, limit=10)

    assert [listed.id for listed in page.timers] == [timer.id]


# Cancelling


def test_a_cancelled_timer_is_gone(store: Store) -> None:
    timer = set_timer(store)

    assert store.cancel(TENANT, timer.id, START) == timer
    with pytest.raises(TimerNotFound):
        store.get(TENANT, timer.id)
    assert listed(store) == []
    assert due_ids(store) == []
    assert store.claim(claim_of(timer.wakeup())) == SUPERSEDED


def test_a_timer_is_cancelled_once(store: Store) -> None:
    timer = set_timer(store)
    store.cancel(TENANT, timer.id, START)

    with pytest.raises(TimerNotFound):
        store.cancel(TENANT, timer.id, START)


def test_a_timer_in_flight_is_not_cancelled(store: Store) -> None:
    timer = claimed(store, set_timer(store))

    with pytest.raises(TimerInFlight):
        store.cancel(TENANT, timer.id, DUE + LEASE_MS - 1)
    assert store.get(TENANT, timer.id) == timer


def test_a_timer_whose_lease_is_over_can_be_cancelled(store: Store) -> None:
    timer = claimed(store, set_timer(store))

    store.cancel(TENANT, timer.id, DUE + LEASE_MS)

    assert not store.settle(settlement_of(timer))
    with pytest.raises(TimerNotFound):
        store.get(TENANT, timer.id)


@pytest.mark.parametrize("status", [Status.FIRED, Status.FAILED])
def test_a_settled_timer_is_not_cancelled_and_stays(store: Store, status: Status) -> None:
    timer = settled(store, set_timer(store), status)

    for _ in range(2):
        with pytest.raises(TimerSettled, match=f"has {status.value}"):
            store.cancel(TENANT, timer.id, DUE + 200)
    assert store.get(TENANT, timer.id) == timer
    assert listed(store, status=status) == [timer.id]


def test_a_timer_that_waits_for_a_retry_can_be_cancelled(store: Store) -> None:
    timer = claimed(store, set_timer(store))
    assert store.settle(settlement_of(timer, status=Status.PENDING, retry_at=DUE + 5_000))

    assert store.cancel(TENANT, timer.id, DUE + 200).attempts == 1
    assert due_ids(store) == []


# Purging


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_purge_removes_timers_in_any_state(store: Store, limit: int) -> None:
    set_timer(store)
    settled(store, set_timer(store), Status.FIRED)
    settled(store, set_timer(store), Status.FAILED)
    in_flight = claimed(store, set_timer(store))

    purge(store, limit=limit)

    assert listed(store) == []
    assert listed(store, status=Status.FAILED) == []
    assert due_ids(store) == []
    assert not store.settle(settlement_of(in_flight))


def test_a_purge_reaches_the_first_id_over_gaps(store: Store) -> None:
    for timer_id in range(1, 301):
        assert set_timer(store).id == timer_id
        if timer_id > 1:
            store.cancel(TENANT, timer_id, START)

    purge(store, limit=10)

    assert listed(store) == []


def test_a_purge_of_an_empty_store_does_nothing(store: Store) -> None:
    purge(store)
    set_timer(store)
    purge(store)
    purge(store)
    assert listed(store) == []


def test_a_purge_removes_at_most_as_many_as_it_may(store: Store) -> None:
    for _ in range(5):
        set_timer(store)

    before = store.purge(TENANT, before=None, limit=2)

    assert listed(store) == [3, 2, 1]
    assert before == 4


def test_a_second_purge_also_removes_timers_set_since_the_first(store: Store) -> None:
    for _ in range(5):
        set_timer(store)
    store.purge(TENANT, before=None, limit=2)
    set_timer(store)

    purge(store, limit=2)

    assert listed(store) == []


def test_no_id_is_used_again_after_a_purge_or_a_cancel(store: Store) -> None:
    for _ in range(3):
        last = set_timer(store)
    store.cancel(TENANT, last.id, START)
    assert set_timer(store).id > last.id
    highest = set_timer(store).id

    purge(store)

    assert set_timer(store).id > highest


# Claiming


def test_a_claim_takes_the_lease_and_changes_nothing_else(store: Store) -> None:
    timer = set_timer(store)

    result = store.claim(claim_of(timer.wakeup(), "mine", now=DUE))

    lease = Lease(token="mine", until=DUE + LEASE_MS)
    assert result == Claimed(replace(timer, lease=lease), lease)
    assert store.get(TENANT, timer.id) == result.timer


def test_a_timer_is_not_claimed_early(store: Store) -> None:
    timer = set_timer(store)

    assert store.claim(claim_of(timer.wakeup(), now=DUE - 1)) == NotYet(DUE)
    assert store.get(TENANT, timer.id) == timer
    claimed(store, timer, now=DUE)


def test_a_claimed_timer_is_not_claimed_again(store: Store) -> None:
    timer = claimed(store, set_timer(store), "first")

    for now in (DUE, DUE + LEASE_MS - 1):
        assert store.claim(claim_of(timer.wakeup(), "second", now=now)) == NotYet(DUE + LEASE_MS)
    assert store.get(TENANT, timer.id) == timer


def test_a_timer_is_claimed_again_once_the_lease_is_over(store: Store) -> None:
    timer = claimed(store, set_timer(store), "first")

    again = claimed(store, timer, "second", now=DUE + LEASE_MS)

    assert again.lease == Lease(token="second", until=DUE + 2 * LEASE_MS)
    assert again.version == timer.version


def test_a_wakeup_of_another_version_claims_nothing(store: Store) -> None:
    timer = set_timer(store)
    old = timer.wakeup()
    rescheduled = store.reschedule(change_of(timer, at=DUE, now=START))

    assert store.claim(claim_of(old)) == SUPERSEDED
    assert store.claim(claim_of(replace(old, version=99))) == SUPERSEDED
    claimed(store, rescheduled)


@pytest.mark.parametrize("status", [Status.FIRED, Status.FAILED])
def test_a_settled_timer_is_not_claimed(store: Store, status: Status) -> None:
    timer = set_timer(store)
    settled(store, timer, status)

    assert store.claim(claim_of(timer.wakeup(), "another", now=NEVER)) == SUPERSEDED


def test_a_claim_on_an_unknown_timer_is_void_and_creates_nothing(store: Store) -> None:
    wakeup = replace(set_timer(store).wakeup(), id=7)

    assert store.claim(claim_of(wakeup)) == SUPERSEDED
    with pytest.raises(TimerNotFound):
        store.get(TENANT, 7)


# A policy of its own, and the record of attempts


def test_a_timer_keeps_its_own_policy_in_every_state(store: Store) -> None:
    timer = set_timer(store, max_attempts=3, timeout_s=5, on_failure_url="https://a.example/x")

    for seen in (
        timer,
        store.get(TENANT, timer.id),
        *store.list(TENANT, before=None, status=None, limit=1).timers,
        claimed(store, timer),
        settled(
            store,
            set_timer(store, max_attempts=3, timeout_s=5, on_failure_url="https://a.example/x"),
        ),
    ):
        assert seen.options == DeliveryOptions(
            max_attempts=3, timeout_s=5, on_failure_url="https://a.example/x"
        )


def test_every_settle_replaces_the_attempt_log(store: Store) -> None:
    timer = claimed(store, set_timer(store))
    first = settlement_of(timer, retry_at=DUE + 5_000)
    store.settle(first)
    again = claimed(store, store.get(TENANT, timer.id), "again", now=DUE + 5_000)
    assert again.log == first.log
    second = settlement_of(again, "again", now=DUE + 5_100, status=Status.FAILED)
    store.settle(second)

    assert len(second.log) == 2
    assert store.get(TENANT, timer.id).log == second.log
    (failed,) = store.list(TENANT, before=None, status=Status.FAILED, limit=1).timers
    assert failed.log == second.log


def test_a_settle_of_a_stale_sender_records_nothing(store: Store) -> None:
    timer = claimed(store, set_timer(store), "first")
    holder = claimed(store, timer, "second", now=DUE + LEASE_MS)

    store.settle(settlement_of(timer, "first"))

    assert store.get(TENANT, timer.id) == holder
    assert holder.log == ()


# Settling


@pytest.mark.parametrize("status", [Status.FIRED, Status.FAILED])
def test_a_settled_timer_keeps_its_attempt_log(store: Store, status: Status) -> None:
    timer = claimed(store, set_timer(store))

    settlement = settlement_of(timer, now=DUE + 100, status=status)
    assert store.settle(settlement)

    assert store.get(TENANT, timer.id) == replace(
        timer,
        status=status,
        attempts=1,
        next_attempt_at=None,
        lease=None,
        settled_at=DUE + 100,
        log=settlement.log,
    )


def test_a_failed_attempt_is_tried_again_under_a_new_version(store: Store) -> None:
    timer = claimed(store, set_timer(store))

    settlement = settlement_of(timer, retry_at=DUE + 5_000)
    assert store.settle(settlement)

    retry = store.get(TENANT, timer.id)
    assert retry == replace(
        timer,
        version=2,
        attempts=1,
        next_attempt_at=DUE + 5_000,
        lease=None,
        log=settlement.log,
    )
    assert store.claim(claim_of(timer.wakeup(), "old", now=NEVER)) == SUPERSEDED
    assert store.claim(claim_of(retry.wakeup(), "early", now=DUE + 4_999)) == NotYet(DUE + 5_000)
    claimed(store, retry, "second", now=DUE + 5_000)
    assert store.settle(settlement_of(retry, "second", status=Status.FIRED))
    assert store.get(TENANT, timer.id).attempts == 2


def test_a_stale_token_settles_nothing(store: Store) -> None:
    timer = claimed(store, set_timer(store), "first")
    second = claimed(store, timer, "second", now=DUE + LEASE_MS)

    assert not store.settle(settlement_of(timer, "first"))
    assert store.get(TENANT, timer.id) == second
    assert store.settle(settlement_of(timer, "second"))
    fired = store.get(TENANT, timer.id)
    assert not store.settle(settlement_of(timer, "first", status=Status.FAILED))
    assert store.get(TENANT, timer.id) == fired


def test_the_token_of_an_earlier_attempt_settles_nothing(store: Store) -> None:
    timer = claimed(store, set_timer(store), "first")
    store.settle(settlement_of(timer, "first", retry_at=DUE + 5_000))
    retry = claimed(store, store.get(TENANT, timer.id), "second", now=DUE + 5_000)

    assert not store.settle(settlement_of(timer, "first"))
    assert store.get(TENANT, timer.id) == retry


@pytest.mark.parametrize("retry_at", [None, DUE + 5_000])
def test_an_attempt_is_recorded_once_however_often_it_is_settled(
    store: Store, retry_at: int | None
) -> None:
    timer = claimed(store, set_timer(store))
    store.settle(settlement_of(timer, retry_at=retry_at))
    recorded = store.get(TENANT, timer.id)

    store.settle(settlement_of(timer, now=DUE + 900, retry_at=retry_at))

    assert store.get(TENANT, timer.id) == recorded


def test_an_expired_lease_still_settles_if_no_other_sender_claimed(store: Store) -> None:
    timer = claimed(store, set_timer(store))

    assert store.settle(settlement_of(timer, now=DUE + LEASE_MS + 1))
    assert store.get(TENANT, timer.id).status is Status.FIRED


def test_an_unclaimed_timer_is_not_settled(store: Store) -> None:
    timer = set_timer(store)

    assert not store.settle(settlement_of(timer))
    assert not store.settle(settlement_of(replace(timer, id=7)))
    assert store.get(TENANT, timer.id) == timer
    with pytest.raises(TimerNotFound):
        store.get(TENANT, 7)


# Due


def test_due_timers_are_returned_longest_overdue_first(store: Store) -> None:
    times = [DUE + 300, DUE + 100, DUE + 200, DUE + 400]
    timers = [set_timer(store, due_at=at) for at in times]

    assert list(store.due(DUE + 300, 10)) == [timers[i].wakeup() for i in (1, 2, 0)]
    assert due_ids(store, DUE + 300, limit=2) == [2, 3]
    assert due_ids(store, DUE + 99) == []


@pytest.mark.parametrize("armed", [True, False])
def test_an_overdue_timer_is_found_armed_or_not(store: Store, *, armed: bool) -> None:
    if not armed:
        store.break_wakeups()
    timer = set_timer(store)
    assert due_ids(store, DUE) == [timer.id]


def test_settled_timers_are_no_longer_due(store: Store) -> None:
    settled(store, set_timer(store), Status.FIRED)
    settled(store, set_timer(store), Status.FAILED)

    assert due_ids(store) == []


def test_a_timer_whose_sender_died_is_due_again(store: Store) -> None:
    timer = claimed(store, set_timer(store))

    assert due_ids(store, DUE + LEASE_MS) == [timer.id]


def test_a_retry_is_due_at_its_own_time_only(store: Store) -> None:
    timer = claimed(store, set_timer(store))
    store.settle(settlement_of(timer, retry_at=DUE + 5_000))

    assert due_ids(store, DUE + 4_999) == []
    (wakeup,) = store.due(DUE + 5_000, 10)
    assert wakeup == store.get(TENANT, timer.id).wakeup()


# Rescheduling


def test_an_outstanding_timer_moves_under_a_new_version(store: Store) -> None:
    timer = set_timer(store)

    moved = store.reschedule(change_of(timer, at=DUE + 60_000, now=START))

    expected = replace(timer, version=2, next_attempt_at=DUE + 60_000, due_at=DUE + 60_000)
    assert moved == expected
    assert store.get(TENANT, timer.id) == moved
    assert due_ids(store, DUE) == []
    assert list(store.due(DUE + 60_000, 10)) == [expected.wakeup()]


@pytest.mark.parametrize("status", [Status.FIRED, Status.FAILED])
def test_a_settled_timer_can_be_made_outstanding_again(store: Store, status: Status) -> None:
    timer = settled(store, set_timer(store), status)

    again = store.reschedule(change_of(timer, at=DUE + 60_000, now=DUE + 200))

    assert (again.status, again.version, again.attempts) == (Status.PENDING, 2, 0)
    assert again.log == timer.log
    assert (again.next_attempt_at, again.settled_at, again.lease) == (DUE + 60_000, None, None)
    assert listed(store, status=status) == []
    assert listed(store, status=Status.PENDING) == [timer.id]
    claimed(store, again, "again", now=DUE + 60_000)
    assert store.settle(settlement_of(again, "again"))


def test_a_timer_in_flight_is_not_rescheduled(store: Store) -> None:
    timer = claimed(store, set_timer(store))

    with pytest.raises(TimerInFlight):
        store.reschedule(change_of(timer, at=NEVER, now=DUE + LEASE_MS - 1))
    assert store.get(TENANT, timer.id) == timer


def test_a_timer_that_was_called_but_not_settled_is_not_rescheduled(store: Store) -> None:
    timer = claimed(store, set_timer(store))

    with pytest.raises(TimerChanged):
        store.reschedule(change_of(timer, now=DUE + LEASE_MS))
    assert store.get(TENANT, timer.id) == timer


def test_a_timer_that_changed_since_it_was_read_is_not_rescheduled(store: Store) -> None:
    timer = set_timer(store)
    fired = settled(store, timer)
    moved = set_timer(store)
    store.reschedule(change_of(moved, at=DUE + 1))

    for seen in (timer, replace(fired, status=Status.FAILED), moved):
        with pytest.raises(TimerChanged):
            store.reschedule(change_of(seen, now=DUE + 200))
    assert store.get(TENANT, timer.id) == fired


def test_an_unknown_timer_is_not_rescheduled(store: Store) -> None:
    with pytest.raises(TimerNotFound):
        store.reschedule(change_of(Timer.first(new_timer(), 7)))
    with pytest.raises(TimerNotFound):
        store.get(TENANT, 7)


# The store itself


def test_a_store_keeps_its_identity(store: Store) -> None:
    name = store.identity()

    set_timer(store)
    purge(store)

    assert name
    assert store.identity() == name
    store.check()


def test_a_retry_that_is_made_earlier_keeps_its_attempts(store: Store) -> None:
    claimed(store, set_timer(store))
    timer = store.get(TENANT, 1)
    assert store.settle(settlement_of(timer, retry_at=DUE + 60_000))
    waiting = store.get(TENANT, 1)

    now = DUE + 1_000
    fired = store.reschedule(Reschedule.of(waiting, now=now, at=now, due_at=DUE, attempts=1))

    assert (fired.attempts, fired.next_attempt_at, fired.due_at) == (1, now, DUE)
    assert (fired.version, fired.log) == (waiting.version + 1, waiting.log)
    assert store.get(TENANT, 1) == fired


@pytest.mark.parametrize(("bound", "seen"), [(DUE + 60_000, None), (DUE + 60_000, DUE + 90_000)])
def test_a_timer_whose_bound_has_changed_is_not_rescheduled(
    store: Store, bound: int, seen: int | None
) -> None:
    timer = store.create(replace(new_timer(), key="k", no_later_than=bound))
    change = change_of(replace(timer, no_later_than=seen))

    with pytest.raises(TimerChanged):
        store.reschedule(change)

    assert store.get(TENANT, timer.id) == timer
    assert store.reschedule(change_of(timer)).no_later_than == bound


# Selections, and the list by due time


def selected_ids(store: Store, status: Status | None = None, **only: Any) -> list[int]:
    """Return the ids of a whole list, page after page."""
    found: list[int] = []
    before: int | None = None
    while True:
        page = store.list(TENANT, before=before, status=status, limit=2, only=Selection(**only))
        found += [timer.id for timer in page.timers]
        before = page.before
        if before is None:
            return found


def labelled(store: Store, *labels: str, url: str = URL, due_at: int = DUE) -> int:
    new = replace(new_timer(url=url, due_at=due_at), labels=labels)
    return store.create(new).id


def test_a_list_has_what_is_selected_and_nothing_else(store: Store) -> None:
    first = labelled(store, "a", "order:7")
    second = labelled(store, "ab", url=f"{URL}/%_x", due_at=DUE + 1)
    third = labelled(store, "a", url=f"{URL}/%_x", due_at=DUE + 2)
    assert selected_ids(store, label="a") == [third, first]
    assert selected_ids(store, label="order:7") == [first]
    assert selected_ids(store, label="order") == []
    assert selected_ids(store, url_prefix=f"{URL}/%_") == [third, second]
    assert selected_ids(store, due_from=DUE + 1) == [third, second]
    assert selected_ids(store, due_until=DUE + 1) == [first]
    assert selected_ids(store, due_from=DUE + 1, due_until=DUE + 2, label="ab") == [second]
    assert selected_ids(store, Status.PENDING, label="a", url_prefix=URL) == [third, first]
    assert selected_ids(store, Status.FIRED, label="a") == []


def test_another_tenant_s_labels_are_not_seen(store: Store) -> None:
    store.create(replace(new_timer(tenant="other"), labels=("a",)))
    assert selected_ids(store, label="a") == []


def due_list(store: Store, limit: int = 2, tenant: str = TENANT, **only: Any) -> list[int]:
    """Return the ids of the whole list by due time, page after page."""
    found: list[int] = []
    after: DuePosition | None = None
    for _ in range(500):
        page = store.list_due(tenant, after=after, only=Selection(**only), limit=limit)
        assert len(page.timers) == len(page.positions) <= limit
        found += [timer.id for timer in page.timers]
        after = page.after
        if after is None:
            return found
    raise AssertionError("the list has no end")


def test_outstanding_timers_are_listed_by_their_next_time(store: Store) -> None:
    late = set_timer(store, due_at=DUE + 5_000)
    early = set_timer(store, due_at=DUE - 5_000)
    twins = [set_timer(store) for _ in range(3)]
    fired = set_timer(store)
    set_timer(store, tenant="other")
    settled(store, fired)
    assert due_list(store) == [early.id, *(twin.id for twin in twins), late.id]
    assert due_list(store, limit=100) == due_list(store, limit=1) == due_list(store)
    assert due_list(store, due_from=DUE + 1) == [late.id]
    assert due_list(store, tenant="nobody") == []


def test_a_retry_is_listed_at_its_own_time(store: Store) -> None:
    retried, other = set_timer(store), set_timer(store, due_at=DUE + 1_000)
    claimed(store, retried)
    assert store.settle(settlement_of(retried, retry_at=DUE + 60_000))
    assert due_list(store) == [other.id, retried.id]


# Batches


def test_a_batch_stores_each_timer_in_order_and_finds_each_when_it_is_due(store: Store) -> None:
    news = [new_timer(url=f"{URL}/{number}", due_at=DUE - number) for number in range(300)]
    ids = [result.timer_id for result in store.create_many(news) if isinstance(result, SetOnce)]
    assert [store.get(TENANT, timer_id).url for timer_id in ids] == [new.url for new in news]
    assert len(due_ids(store, limit=1_000)) == 300
