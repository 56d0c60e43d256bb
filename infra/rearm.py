"""New wake-ups for a table whose queue or schedules were removed.

A wake-up is only a hint, so a second one is harmless: this may be repeated, and interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from chalicelib.aws.engine import AwsEngine
from chalicelib.aws.names import Names
from chalicelib.bootstrap import engine_options
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.timer import MAX_NEAR_S, Wakeup
from chalicelib.settings import load
from infra.errors import DeployError
from infra.stacks import Say

THREADS = 16
"""Wake-ups that are registered at once. A schedule takes about 50 ms."""

PROGRESS = 1_000
"""Timers after which a line is printed."""


def rearm(names: Names, say: Say) -> int:
    """Register the wake-up of every armed timer; return how many there are.

    Raises ``DeployError`` if a wake-up cannot be registered; those before it are.
    """
    options = engine_options(load({}))
    engine = AwsEngine(names, options, near_s=MAX_NEAR_S)
    count = 0
    with ThreadPoolExecutor(THREADS) as threads:
        try:
            for page in _armed(engine):
                for _ in threads.map(engine.wakeups.wake_at, page):
                    count += 1
                    if count % PROGRESS == 0:
                        say(f"{names.table}: {count} wake-ups registered")
        except Unavailable as error:
            raise DeployError(
                f"After {count} wake-ups: {error.detail} "
                f"`make rearm STAGE={names.stage}` starts again."
            ) from error
    say(f"{names.table}: {count} wake-ups registered, for all armed timers")
    return count


def _armed(engine: AwsEngine) -> Iterator[Sequence[Wakeup]]:
    index = engine.due_index
    for shard in index.shards():
        yield from index.armed(shard)
