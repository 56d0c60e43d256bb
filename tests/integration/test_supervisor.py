"""How the supervisor stops a child process that ignores signals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.child import Child
from tests.support.waiting import PATIENCE_S, eventually

IGNORES = """
import signal, time
from pathlib import Path
asked = []
def handle(number, frame):
    asked.append(number)
    if len(asked) > {count}:
        raise SystemExit(0)
signal.signal(signal.SIGTERM, handle)
Path({ready!r}).touch()
while True:
    time.sleep(60)
"""


@pytest.fixture
def child_that_ignores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], Child]]:
    """Return a function that starts a process which ignores so many signals."""
    children = []

    def start(count: int) -> Child:
        ready = tmp_path / "ready"
        (tmp_path / "ignoring.py").write_text(IGNORES.format(count=count, ready=str(ready)))
        child = Child("ignoring", ask_again_s=0.1)
        child.start()
        children.append(child)
        assert eventually(ready.exists), "the process does not start"
        return child

    # ``Child`` starts a module by its name, so Python must find this one.
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield start
    for child in children:
        child.stop(0)


def test_a_process_that_misses_a_signal_is_asked_again(
    child_that_ignores: Callable[[int], Child],
) -> None:
    child = child_that_ignores(2)

    assert child.stop(PATIENCE_S)

    assert child.exit_code() == 0


def test_a_process_that_does_not_end_is_killed(
    child_that_ignores: Callable[[int], Child],
) -> None:
    child = child_that_ignores(1_000_000)

    assert not child.stop(0.3)

    assert child.exit_code() == -signal.SIGKILL


def test_a_process_that_has_ended_or_never_started_is_left_alone(
    child_that_ignores: Callable[[int], Child],
) -> None:
    child = child_that_ignores(0)
    assert child.stop(PATIENCE_S)

    assert child.stop(0)
    assert Child("never").stop(0)

    assert child.exit_code() == 0
