"""The simulation of capacity, against small cases that were computed by hand."""

from __future__ import annotations

import json

import pytest

from bench.capacity import by_count, pending
from bench.capacity.__main__ import main
from bench.capacity.document import PAGE, document, page
from bench.capacity.limits import DEFAULTS, LIMITS
from bench.capacity.scenarios import SCENARIOS, carried_by, totals
from bench.capacity.simulation import Bucket, Load, Result, simulate

WIDE = dict.fromkeys(DEFAULTS, 1e9)
"""Limits that nothing meets."""


def limits(**changed: float) -> dict[str, float]:
    return WIDE | changed


def names(result: Result) -> list[str]:
    return [met.limit for met in result.met]


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(rate=100, burst=50)
    bucket.refill()
    assert bucket.room(1) == 50, "it was full"
    bucket.take(50)
    bucket.refill()
    assert (bucket.room(1), bucket.room(3)) == (10, 3)


def test_nothing_is_met_below_every_limit() -> None:
    result = simulate(Load(creates_per_s=1_003, creates_s=2, delay_s=1, run_s=6), WIDE)
    assert result.met == ()
    assert (totals(result)["created"], totals(result)["delivered"]) == (2_006, 2_006)
    assert [second.created for second in result.seconds] == [1_003, 1_003, 0, 0, 0, 0]


def test_the_gateway_admits_its_burst_and_its_rate() -> None:
    load = Load(creates_per_s=1_000, creates_s=10, far=True, run_s=10)
    result = simulate(load, limits(stage_rate=100, stage_burst=50))
    # 50 at once, and 10 in each of the 99 steps that follow.
    assert totals(result)["created"] == 50 + 99 * 10
    assert totals(result)["refused"] == 10_000 - 1_040
    assert names(result) == ["stage_rate"]
    assert (result.met[0].at_s, result.met[0].asked) == (0.0, 1_000)


def test_five_pollers_deliver_five_batches_at_a_time() -> None:
    load = Load(due_at_once=500, receiver_s=0.2, run_s=20)  # a batch takes 1.2 s
    result = simulate(load, limits(poller_start=5, poller_growth=0))
    # 50 batches, five at a time: ten rounds of 1.2 s; the last begins at 10.8 s.
    assert totals(result)["last_delivery_s"] == 13
    assert result.latest_s == pytest.approx(10.8)
    assert [second.delivered for second in result.seconds[:3]] == [0, 50, 50]
    assert names(result) == ["poller_start", "poller_growth"]


def test_pollers_grow_evenly() -> None:
    result = simulate(
        Load(due_at_once=100_000, receiver_s=99, run_s=12),
        limits(poller_start=5, poller_growth=300),
    )
    assert [result.seconds[at].batches for at in (0, 5, 11)] == [9, 34, 64]


def test_the_table_holds_deliveries_back_and_nothing_is_lost() -> None:
    load = Load(due_at_once=1_000, receiver_s=0.2, run_s=20)
    result = simulate(load, limits(table_warm=200))
    # 200 units at first and 200 a second, two for each delivery: 100, then 10 in each step.
    assert result.seconds[0].waiting == 1_000 - 100 - 9 * 10
    assert totals(result)["delivered"] == 1_000
    assert result.latest_s == pytest.approx(9.0)
    assert names(result) == ["table_warm"]


def test_executions_of_the_api_leave_less_for_deliveries() -> None:
    # 100 requests a step take 50 executions, two requests of 50 ms each in 100 ms.
    load = Load(creates_per_s=1_000, creates_s=5, far=True, due_at_once=2_000, run_s=5)
    result = simulate(load, limits(lambda_concurrency=70))
    # Deliveries come first: their 70 batches leave the API none until they end.
    assert result.seconds[0].created == 0
    assert max(second.batches for second in result.seconds) == 70
    assert "lambda_concurrency" in names(result)


def test_new_executions_of_the_api_are_limited_in_number() -> None:
    load = Load(creates_per_s=1_000, creates_s=1, far=True, run_s=1)
    result = simulate(load, limits(lambda_scaling=20))
    # 20 executions at once, and 0.2 more in each step: 21 after five steps. Two requests each.
    assert totals(result)["created"] == 5 * 40 + 5 * 42
    assert names(result) == ["lambda_scaling"]


def test_far_timers_beyond_the_rate_of_schedules_are_stored_unarmed() -> None:
    load = Load(creates_per_s=1_000, creates_s=2, far=True, run_s=2)
    result = simulate(load, limits(create_schedule=500))
    # 500 at first, then 50 in each of the steps after the burst is gone.
    assert totals(result)["created"] == 2_000
    assert totals(result)["unarmed"] == 2_000 - (500 + 19 * 50)
    assert names(result) == ["create_schedule"]


def test_what_carries_a_load_is_found_by_raising_what_is_met() -> None:
    found = carried_by(Load(creates_per_s=10_000, creates_s=5, far=True, run_s=5))
    assert found["raised"]["stage_rate"]["to"] == 10_000
    assert found["stays"] == []
    assert found["then"]["refused"] == 0


def test_rates_by_count_are_limits_divided_by_use() -> None:
    near = by_count.rates(far=False)
    assert near["poller_most"] == 10_416.7, "1,250 batches of ten in 1.2 s"
    assert near["table_warm"] == 1_250, "3 units, and 0.2 for the id"
    assert next(iter(near)) == "table_warm"
    assert by_count.rates(far=True)["invocations"] == 1_000
    assert by_count.due_in_one_second() == 600_000


def test_sweeps_fall_behind_only_beyond_their_rate() -> None:
    assert pending.behind_after(3, unarmed_per_s=10, able_per_s=10) == 0
    assert pending.behind_after(3, unarmed_per_s=15, able_per_s=10) == 3 * 300


def test_a_billion_pending_timers_meet_the_number_of_schedules() -> None:
    found = pending.count(1_000_000_000, 30)
    assert found.armed == 10_000_000
    assert found.unarmed == 990_000_000
    assert found.unarmed_per_s == 381.9, "a billion in 30 days, less the hundredth with schedules"
    assert found.behind == 0


def test_a_run_is_the_same_every_time() -> None:
    load = SCENARIOS["100,000 timers due in one second"]
    assert simulate(load) == simulate(load)


def test_every_limit_has_its_source_and_what_moves_it() -> None:
    for limit in LIMITS.values():
        assert limit.source
        assert limit.moved_by
        assert limit.value > 0


def test_the_page_is_that_of_the_simulation() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m bench.capacity --write"


def test_the_document_is_json_and_says_that_it_is_simulated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(document()))
    assert all(scenario["simulated"] for scenario in printed["scenarios"].values())
    assert main(["--cost"]) == 0
    assert json.loads(capsys.readouterr().out)["prices_of"] == "2026-11"
