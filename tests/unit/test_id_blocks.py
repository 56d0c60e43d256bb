"""The ids that a process reserves on the counter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from chalicelib.aws.dynamodb.id_blocks import BUSY_MS, MAX_BLOCK, IdBlocks, next_size
from chalicelib.domain.errors import Unavailable
from tests.support.clock import ManualClock


class Counter:
    """The counters of all tenants, as the table keeps them; remembers the blocks leased."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.blocks: list[int] = []

    def lease(self, tenant: str, count: int) -> int:
        self.blocks.append(count)
        self.last[tenant] = self.last.get(tenant, 0) + count
        return self.last[tenant]


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def ids(counter: Counter, clock: ManualClock) -> IdBlocks:
    return IdBlocks(counter.lease, clock)


def test_a_quiet_service_counts_1_2_3_and_leases_no_more_than_it_uses(
    ids: IdBlocks, counter: Counter, clock: ManualClock
) -> None:
    given = []
    for _ in range(5):
        given.append(ids.next("a"))
        clock.advance(BUSY_MS + 1)

    assert given == [1, 2, 3, 4, 5]
    assert counter.blocks == [1, 1, 1, 1, 1]


def test_blocks_double_under_load_up_to_the_largest(ids: IdBlocks, counter: Counter) -> None:
    given = [ids.next("a") for _ in range(5_000)]

    assert given == list(range(1, 5_001))
    assert counter.blocks[:11] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024]
    assert set(counter.blocks[11:]) == {MAX_BLOCK}


def test_blocks_shrink_when_the_load_is_over(
    ids: IdBlocks, counter: Counter, clock: ManualClock
) -> None:
    for _ in range(7):
        ids.next("a")
    assert counter.blocks == [1, 2, 4]
    for _ in range(5):
        clock.advance(BUSY_MS + 1)
        ids.next("a")

    assert counter.blocks[3:] == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("size", "age_ms", "expected"),
    [
        (1, 0, 2),
        (4, BUSY_MS, 8),
        (4, BUSY_MS + 0.5, 2),
        (1, BUSY_MS + 1, 1),
        (MAX_BLOCK, 1, MAX_BLOCK),
        (8, -5_000, 4),
    ],
)
def test_the_next_block_depends_on_how_fast_the_last_was_used_up(
    size: int, age_ms: float, expected: int
) -> None:
    assert next_size(size, 1_000_000.0, 1_000_000.0 + age_ms) == expected


def test_each_tenant_counts_for_itself(ids: IdBlocks) -> None:
    assert [ids.next("a"), ids.next("b"), ids.next("a"), ids.next("b")] == [1, 1, 2, 2]


def test_threads_and_processes_are_never_given_the_same_id(counter: Counter) -> None:
    processes = [IdBlocks(counter.lease, ManualClock()) for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda n: processes[n % 2].next("a"), range(2_000)))

    assert len(set(given)) == 2_000
    assert min(given) == 1


def test_a_lease_that_fails_uses_up_nothing(clock: ManualClock) -> None:
    counter = Counter()
    down = True

    def lease(tenant: str, count: int) -> int:
        if down:
            raise Unavailable("down")
        return counter.lease(tenant, count)

    ids = IdBlocks(lease, clock)
    with pytest.raises(Unavailable):
        ids.next("a")
    down = False

    assert [ids.next("a"), ids.next("a")] == [1, 2]
