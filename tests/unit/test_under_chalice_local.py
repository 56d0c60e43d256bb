"""When ``chalice local`` may serve."""

from __future__ import annotations

import pytest

from chalicelib.bootstrap import bootstrap
from chalicelib.settings import load
from local import chalice_local


def ended(*arguments: str, auth: str = "none", **environment: str) -> bool:
    """Start firing as ``chalice local`` with these arguments does; tell whether it is refused."""
    ends: list[None] = []
    command = ["chalice", "local", *arguments]
    settings = load(
        {"AWS_CHALICE_CLI_MODE": "true", "TIMERS_AUTH": auth, **environment}, arguments=command
    )
    assert settings.under_chalice_local
    started = chalice_local.start(
        bootstrap(settings), command, fire=lambda: None, end=lambda: ends.append(None)
    )
    started.join()
    # It ends once when firing ends, and once before that when it was refused.
    return len(ends) > 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "0.0.0.0"],
        ["--host=0.0.0.0"],
        ["--port", "1", "--host", "::"],
        ["--host", "127.0.0.1", "--host", "192.168.1.7"],
    ],
)
def test_without_keys_it_serves_no_other_machine(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert ended(*arguments)
    assert "TIMERS_AUTH=keys" in capsys.readouterr().err
    assert not ended(*arguments, auth="keys")


@pytest.mark.parametrize(
    "arguments", [[], ["--port", "8001"], ["--host", "127.0.0.1"], ["--host=::1"], ["--host"]]
)
def test_without_keys_it_serves_this_machine(arguments: list[str]) -> None:
    assert not ended(*arguments)


def test_the_aws_engine_is_refused_without_an_emulator(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(TIMERS_ENGINE="aws")
    assert "AWS_ENDPOINT_URL" in capsys.readouterr().err


def test_the_server_ends_when_firing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    ends: list[None] = []

    def fire() -> None:
        raise RuntimeError("a fault of ours")

    chalice_local.start(
        bootstrap(load({})), ["chalice", "local"], fire=fire, end=lambda: ends.append(None)
    ).join()
    assert ends
