"""The attempt log: its encoding and its limits."""

from __future__ import annotations

import pytest

from chalicelib.domain.attempt_log import (
    MAX_ATTEMPTS_KEPT,
    MAX_ERROR_CHARACTERS,
    AttemptLog,
    AttemptRecord,
    decode,
    encode,
    extended,
    last_attempt,
)
from tests.support.clock import START


def made(number: int = 0, **fields: object) -> AttemptRecord:
    base = {"at": START + number, "late_ms": 3, "took_ms": 12, "status": 204}
    return AttemptRecord(**base | fields)  # type: ignore[arg-type]


LOGS: list[AttemptLog] = [
    (),
    (made(),),
    (made(status=500), made(1, status=None, error="connection refused")),
    (made(status=410), made(1, status=204, notice=True)),
    (made(status=410), made(1, status=None, error="timed out after 10 s", notice=True)),
]


@pytest.mark.parametrize("log", LOGS)
def test_a_log_is_read_as_it_was_written(log: AttemptLog) -> None:
    assert decode(encode(log)) == log


def test_a_timer_that_was_never_attempted_has_an_empty_log() -> None:
    assert decode(None) == ()


def test_a_log_keeps_the_latest_attempts() -> None:
    log: AttemptLog = ()
    for number in range(MAX_ATTEMPTS_KEPT + 5):
        log = extended(log, made(number))

    assert [attempt.at - START for attempt in log] == list(range(5, MAX_ATTEMPTS_KEPT + 5))


def test_an_attempt_with_a_response_takes_few_bytes() -> None:
    ten = tuple(made(number, status=500) for number in range(10))
    assert len(encode(ten)) <= 270


def test_a_long_error_text_of_a_library_is_shortened() -> None:
    (kept,) = decode(encode((made(status=None, error="x" * 5_000),)))
    assert kept.error == "x" * MAX_ERROR_CHARACTERS


def test_receiver_text_within_an_error_is_kept_as_plain_text() -> None:
    (kept,) = decode(encode((made(status=None, error="bad \udcff line\r\n\x00 é"),)))
    assert kept.error == "bad ? line??? ?"


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (made(status=204), None),
        (made(status=299), None),
        (made(status=500), "HTTP 500"),
        (made(status=302), "HTTP 302: redirects are not followed"),
        (made(status=410), "HTTP 410: the receiver wants no more calls"),
        (made(status=None, error="connection refused"), "connection refused"),
    ],
)
def test_a_reason_is_in_words_a_person_can_act_on(
    attempt: AttemptRecord, reason: str | None
) -> None:
    assert attempt.reason == reason


def test_the_last_attempt_is_the_webhooks_own() -> None:
    assert last_attempt(()) is None
    assert last_attempt((made(), made(1, status=500), made(2, notice=True))) == made(1, status=500)
