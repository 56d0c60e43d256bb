"""What ``chalice local`` is allowed to do."""

from __future__ import annotations

import pytest

from chalicelib import wiring
from chalicelib.settings import load


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the signals that end the server, which are sent to nobody here."""
    signals: list[int] = []
    monkeypatch.setattr("os.kill", lambda _pid, number: signals.append(number))
    monkeypatch.setattr(wiring, "_serve_or_end", lambda _fire: None)
    return signals


def start(monkeypatch: pytest.MonkeyPatch, *arguments: str, auth: str = "none") -> None:
    environment = {"AWS_CHALICE_CLI_MODE": "true", "TIMERS_AUTH": auth}
    monkeypatch.setattr("sys.argv", ["chalice", *arguments])
    monkeypatch.setenv("AWS_CHALICE_CLI_MODE", "true")
    monkeypatch.setattr(wiring, "settings", lambda: load(environment))
    wiring.start_under_chalice_local()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "0.0.0.0"],
        ["--host=0.0.0.0"],
        ["--port", "1", "--host", "::"],
        ["--host", "127.0.0.1", "--host", "192.168.1.7"],
    ],
)
def test_without_keys_it_does_not_serve_others(
    monkeypatch: pytest.MonkeyPatch,
    ended: list[int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    start(monkeypatch, "local", *arguments)
    assert len(ended) == 1
    assert "TIMERS_AUTH=keys" in capsys.readouterr().err
    start(monkeypatch, "local", *arguments, auth="keys")
    assert len(ended) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--port", "8001"], ["--host", "127.0.0.1"], ["--host=::1"], ["--host"]]
)
def test_without_keys_it_serves_this_machine(
    monkeypatch: pytest.MonkeyPatch, ended: list[int], arguments: list[str]
) -> None:
    start(monkeypatch, "local", *arguments)
    assert ended == []
