"""The writer of the embedded engine: group commits, full disks and the write-ahead log."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.errors import TimerNotFound, Unavailable
from chalicelib.domain.timer import NewTimer, Timer
from chalicelib.embedded.database import open_store
from chalicelib.embedded.store import SQLiteTimerStore
from chalicelib.embedded.writer import Writer
from tests.support.loop import on_a_loop

TENANT = "default"
NEW = NewTimer(tenant=TENANT, url="http://h/" + "a" * 400, created_at=0, due_at=1_000)


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Writer]:
    writer = Writer(SQLiteTimerStore.open(str(folder / "timers.db")), **options)
    try:
        yield writer
    finally:
        await writer.close()


def create(writer: Writer, *, durable: bool = True) -> asyncio.Future[Timer]:
    return writer.submit(lambda: writer.store.create(NEW), durable=durable)


def cancel(writer: Writer, timer_id: int) -> asyncio.Future[Timer]:
    return writer.submit(lambda: writer.store.cancel(TENANT, timer_id, 0), durable=True)


def ids(store: SQLiteTimerStore) -> list[int]:
    timers = store.list(TENANT, before=None, status=None, limit=100_000).timers
    return sorted(timer.id for timer in timers)


def stored(file: Path) -> list[int]:
    """Return the ids in the store ``file``, as another process would find them."""
    connection = open_store(str(file))
    try:
        return ids(SQLiteTimerStore(connection))
    finally:
        connection.close()


def leave_behind(folder: Path) -> None:
    """Copy the store as a process that is killed now would leave it."""
    for file in folder.glob("timers.db*"):
        shutil.copy(file, folder / f"left-{file.name}")


def without_its_log(folder: Path) -> Path:
    """Return a copy of the store as it is without its write-ahead log."""
    return Path(shutil.copy(folder / "timers.db", folder / "copy.db"))


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """Hold a read transaction open, as a database browser does."""
    reader = sqlite3.connect(folder / "timers.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM timers").fetchone()
    yield reader
    reader.close()


def commits(writer: Writer) -> list[str]:
    """Return a list that grows by one with every commit."""
    seen: list[str] = []

    def note(statement: str) -> None:
        if statement == "COMMIT":
            seen.append(statement)

    writer.store._connection.set_trace_callback(note)
    return seen


def fill_disk(writer: Writer, *, room: int = 0) -> Callable[[], None]:
    """Limit the file to ``room`` more pages; return a function that lifts the limit."""
    connection = writer.store._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages + room}")

    def make_room() -> None:
        connection.execute("PRAGMA max_page_count=1000000")

    return make_room


@on_a_loop
async def test_operations_submitted_together_are_committed_together(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        seen = commits(writer)
        timers = await asyncio.gather(*(create(writer) for _ in range(50)))
        assert [timer.id for timer in timers] == list(range(1, 51))
        assert len(seen) == 1


@on_a_loop
async def test_operations_that_arrive_during_a_commit_form_the_next_group(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        seen = commits(writer)
        first = create(writer)
        first.add_done_callback(lambda _: None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the first group is with the disk by now
        rest = [create(writer) for _ in range(20)]
        assert [timer.id for timer in await asyncio.gather(first, *rest)] == list(range(1, 22))
        assert len(seen) == 2


@on_a_loop
async def test_operations_submitted_one_by_one_have_a_commit_each(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        seen = commits(writer)
        for expected in range(1, 30):
            assert (await create(writer)).id == expected
        assert len(seen) == 29


@pytest.mark.parametrize("durable", [True, False])
def test_acknowledged_writes_survive_the_death_of_the_process(
    tmp_path: Path, *, durable: bool
) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as writer:
            await asyncio.gather(*(create(writer, durable=durable) for _ in range(5)))
            leave_behind(tmp_path)

    asyncio.run(scenario())
    assert stored(tmp_path / "left-timers.db") == [1, 2, 3, 4, 5]


@on_a_loop
async def test_a_group_with_one_durable_write_is_durable(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        modes: list[int] = []

        def note_mode() -> None:
            (mode,) = writer.store._connection.execute("PRAGMA synchronous").fetchone()
            modes.append(mode)

        await writer.submit(note_mode, durable=False)
        await asyncio.gather(
            writer.submit(note_mode, durable=False), writer.submit(lambda: None, durable=True)
        )
        await writer.submit(note_mode, durable=False)
        normal, full = 1, 2
        assert modes == [normal, full, normal]


@on_a_loop
async def test_a_refused_operation_does_not_fail_the_rest_of_its_group(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        seen = commits(writer)
        before, refused, after = await asyncio.gather(
            create(writer), cancel(writer, 99), create(writer), return_exceptions=True
        )
        assert isinstance(before, Timer)
        assert isinstance(refused, TimerNotFound)
        assert isinstance(after, Timer)
        assert ids(writer.store) == [1, 2]
        assert len(seen) == 1


@on_a_loop
async def test_an_operation_sees_the_writes_of_earlier_ones_in_its_group(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        created, cancelled = await asyncio.gather(create(writer), cancel(writer, 1))
        assert created == cancelled
        assert ids(writer.store) == []


@pytest.mark.parametrize("durable", [True, False])
def test_on_a_full_disk_a_group_fails_as_a_whole_and_writes_nothing(
    tmp_path: Path, *, durable: bool
) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as writer:
            kept = (await create(writer)).id
            make_room = fill_disk(writer, room=2)
            group = [create(writer, durable=durable) for _ in range(100)]
            outcomes = await asyncio.gather(*group, return_exceptions=True)
            assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
            assert ids(writer.store) == [kept]
            make_room()
            assert (await create(writer)).id == kept + 1

    asyncio.run(scenario())
    assert stored(tmp_path / "timers.db") == [1, 2]


@on_a_loop
async def test_a_full_disk_does_not_stop_operations_that_need_no_space(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        await create(writer)
        fill_disk(writer)
        with pytest.raises(Unavailable):
            await asyncio.gather(*(create(writer) for _ in range(100)))
        await cancel(writer, 1)
        assert ids(writer.store) == []


@on_a_loop
async def test_the_detail_of_a_failed_group_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        fill_disk(writer)
        outcomes = await asyncio.gather(
            *(create(writer) for _ in range(100)), return_exceptions=True
        )
        assert all("full" in str(outcome) for outcome in outcomes)


@on_a_loop
async def test_a_commit_that_fails_fails_its_group_and_only_that(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        connection = writer.store._connection
        connection.execute("PRAGMA foreign_keys=1")
        connection.execute("CREATE TABLE parent (id PRIMARY KEY)")
        connection.execute(
            "CREATE TABLE child (id REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        orphan = writer.submit(
            lambda: connection.execute("INSERT INTO child VALUES (1)"), durable=True
        )
        outcomes = await asyncio.gather(create(writer), orphan, return_exceptions=True)
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        assert ids(writer.store) == []
        assert (await create(writer)).id == 1


@on_a_loop
async def test_an_operation_that_breaks_fails_its_group_and_only_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as writer:
        broken: asyncio.Future[float] = writer.submit(lambda: 1 / 0, durable=True)
        outcomes = await asyncio.gather(create(writer), broken, return_exceptions=True)
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        assert "ZeroDivisionError" in caplog.text
        assert (await create(writer)).id == 1


@on_a_loop
async def test_a_cancelled_caller_does_not_fail_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        abandoned, refused, kept = create(writer), cancel(writer, 99), create(writer)
        abandoned.cancel()
        refused.cancel()
        assert (await kept).id == 2


@on_a_loop
async def test_closing_finishes_the_submitted_operations(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        waiting = [create(writer) for _ in range(10)]
    assert [waited.result().id for waited in waiting] == list(range(1, 11))
    assert stored(tmp_path / "timers.db") == list(range(1, 11))


@on_a_loop
async def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        await create(writer)
        await writer.checkpoint()
        assert stored(without_its_log(tmp_path)) == []


@on_a_loop
async def test_a_long_log_is_moved_into_the_file_and_used_again(
    tmp_path: Path,
) -> None:
    lengths = []
    async with opened(tmp_path, log_bytes=0, checkpoint_changes=100) as writer:
        for _ in range(10):
            await asyncio.gather(*(create(writer) for _ in range(100)))
            lengths.append((tmp_path / "timers.db-wal").stat().st_size)
            await writer.checkpoint()
        assert stored(without_its_log(tmp_path)) == list(range(1, 1_001))
    assert lengths[-1] < 2 * lengths[0]


@on_a_loop
async def test_writes_go_on_while_the_log_is_moved(tmp_path: Path) -> None:
    async with opened(tmp_path, checkpoint_changes=1) as writer:
        await create(writer)
        moved = asyncio.ensure_future(writer.checkpoint())
        written = [create(writer) for _ in range(10)]
        await asyncio.sleep(0)
        written += [create(writer) for _ in range(10)]
        await moved
        written += [create(writer) for _ in range(10)]
        assert len(await asyncio.gather(*written)) == 30
        assert ids(writer.store) == list(range(1, 32))


@on_a_loop
async def test_a_log_that_a_reader_still_needs_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, checkpoint_changes=1) as writer:
        await create(writer)
        with reading(tmp_path) as reader:
            await create(writer)
            await writer.checkpoint()
            assert (await create(writer)).id == 3
            assert reader.execute("SELECT count(*) FROM timers").fetchone() == (1,)
        assert ids(writer.store) == [1, 2, 3]


@on_a_loop
async def test_no_write_waits_for_a_reader(tmp_path: Path) -> None:
    async with opened(tmp_path, checkpoint_changes=1) as writer:
        # A busy timeout that the test would not outlive: nothing may use it.
        writer.store._connection.execute("PRAGMA busy_timeout=1000000")
        await create(writer)
        with reading(tmp_path):
            await create(writer)
            await writer.checkpoint()
            assert (await create(writer)).id == 3
        (timeout_ms,) = writer.store._connection.execute("PRAGMA busy_timeout").fetchone()
        assert timeout_ms == 1_000_000


@on_a_loop
async def test_a_log_that_grew_for_a_reader_is_short_again_afterwards(tmp_path: Path) -> None:
    log_file = tmp_path / "timers.db-wal"
    async with opened(tmp_path, checkpoint_changes=1) as writer:
        writer.store._connection.execute("PRAGMA journal_size_limit=100000")
        with reading(tmp_path):
            for _ in range(30):
                await asyncio.gather(*(create(writer) for _ in range(100)))
                await writer.checkpoint()
            grown = log_file.stat().st_size
        await writer.checkpoint()  # moves what the reader had held back
        await create(writer)
        assert log_file.stat().st_size <= 100_000 < grown
        assert stored(without_its_log(tmp_path)) == list(range(1, 3_001))


@on_a_loop
async def test_when_writes_pause_the_file_alone_has_all_timers(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        await create(writer)
        await writer.checkpoint()
        assert stored(without_its_log(tmp_path)) == []
        await writer.checkpoint()
        assert stored(without_its_log(tmp_path)) == [1]


@on_a_loop
async def test_timers_in_the_log_of_a_killed_process_are_moved(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir(mode=0o700)
    async with opened(tmp_path / "killed") as writer:
        await create(writer)
        shutil.copytree(tmp_path / "killed", tmp_path / "started")
    async with opened(tmp_path / "started") as writer:
        await writer.checkpoint()
        assert stored(without_its_log(tmp_path / "started")) == [1]


@on_a_loop
async def test_a_store_in_memory_has_no_log_to_move() -> None:
    writer = Writer(SQLiteTimerStore.in_memory())
    await create(writer)
    await writer.checkpoint()
    assert ids(writer.store) == [1]
    await writer.close()
