"""The bodies of requests: fields, limits and faults."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from chalicelib.domain.content import NO_CONTENT
from chalicelib.domain.errors import InvalidRequest, MalformedBody
from chalicelib.domain.moment import DELAY_TOO_LONG, MAX_DELAY_S, rfc3339
from chalicelib.domain.timer import NO_OPTIONS, NewTimer, Timer
from chalicelib.rest.bulk_requests import ReplayTimers
from chalicelib.rest.models import timer_item, timer_status
from chalicelib.rest.problems import problem
from chalicelib.rest.requests import MoveTimer, SetTimer
from chalicelib.rest.together import CONTENT_FIELDS, OPTION_FIELDS
from chalicelib.rest.validation import Limits
from chalicelib.settings import load

URL = "https://someserver.com"
DUE = 1_800_000_000_000


def parse(**fields: Any) -> SetTimer:
    return SetTimer.parse(json.dumps({"url": URL} | fields).encode())


def faults(body: bytes) -> dict[str, str]:
    """Return the faults of ``body`` by field, and check that no field has two."""
    with pytest.raises(InvalidRequest) as refusal:
        SetTimer.parse(body)
    found = {fault.field: fault.message for fault in refusal.value.faults}
    assert len(found) == len(refusal.value.faults)
    return found


def amount_faults(amount: str, field: str = "seconds") -> dict[str, str]:
    """Return the faults of a body whose JSON has the text ``amount``."""
    return faults(f'{{"{field}": {amount}, "url": "{URL}"}}'.encode())


def test_the_request_of_the_contract_is_accepted() -> None:
    request = parse(hours=4, minutes=0, seconds=1)
    assert request.when.delay_ms == (4 * 3600 + 1) * 1000
    assert request.url == URL


def test_a_request_without_options_and_content_has_the_defaults() -> None:
    request = parse(seconds=1).timer_request()
    assert (request.options, request.content, request.labels) == (NO_OPTIONS, NO_CONTENT, ())


def test_each_field_is_a_time_an_option_content_or_a_label() -> None:
    others = {*OPTION_FIELDS, *CONTENT_FIELDS, "url", "labels"}
    assert SetTimer.model_fields.keys() - MoveTimer.model_fields.keys() == others


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"seconds": 0}, 0),
        ({"hours": 0, "minutes": 0, "seconds": 0}, 0),
        ({"seconds": 5}, 5),
        ({"minutes": 2}, 120),
        ({"hours": 1}, 3600),
        ({"minutes": 90}, 5400),
        ({"seconds": 3_601}, 3_601),
        ({"hours": 25, "minutes": 61, "seconds": 61}, 25 * 3600 + 61 * 60 + 61),
    ],
)
def test_absent_amounts_are_0_and_large_ones_carry_over(
    fields: dict[str, int], seconds: int
) -> None:
    assert parse(**fields).when.delay_ms == seconds * 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"seconds": MAX_DELAY_S},
        {"minutes": MAX_DELAY_S // 60},
        {"hours": 87_600},
        {"hours": 87_599, "minutes": 59, "seconds": 60},
    ],
)
def test_ten_years_exactly_are_accepted(fields: dict[str, int]) -> None:
    assert parse(**fields).when.delay_ms == 315_360_000 * 1000


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"seconds": MAX_DELAY_S + 1}, "seconds"),
        ({"hours": 87_600, "seconds": 1}, "hours"),
        ({"hours": 87_599, "minutes": 59, "seconds": 61}, "hours"),
        ({"hours": 0, "minutes": 5_256_001}, "minutes"),
        ({"hours": 1, "seconds": MAX_DELAY_S}, "seconds"),
    ],
)
def test_a_second_more_than_ten_years_is_refused_with_the_limit(
    fields: dict[str, int], blamed: str
) -> None:
    found = faults(json.dumps({"url": URL} | fields).encode())
    assert list(found) == [blamed]
    assert "10 years" in found[blamed]
    assert "315360000" in found[blamed]


@pytest.mark.parametrize("amount", [10**30, 2**63, 2**63 - 1, 2**64, 2**31, 10**308, 10**4000])
@pytest.mark.parametrize("field", ["hours", "minutes", "seconds"])
def test_no_size_of_number_overflows_anything(field: str, amount: int) -> None:
    assert "10 years" in amount_faults(str(amount), field)[field]


@pytest.mark.parametrize("digits", [41, 309, 4_300, 4_301, 4_400, 60_000])
@pytest.mark.parametrize("field", ["hours", "minutes", "seconds"])
def test_a_number_of_thousands_of_digits_is_refused_with_the_limit(digits: int, field: str) -> None:
    assert amount_faults("9" * digits, field) == {field: DELAY_TOO_LONG}
    assert amount_faults("-" + "9" * digits, field) == {field: "must be 0 or more"}


@pytest.mark.parametrize("field", ["max_attempts", "timeout"])
def test_every_whole_number_may_have_thousands_of_digits(field: str) -> None:
    limits = Limits.of(load({}))
    body = f'{{"seconds": 1, "url": "{URL}", "{field}": {"9" * 4_400}}}'
    with pytest.raises(InvalidRequest, match=f"{field}: may be at most"):
        SetTimer.parse(body.encode(), limits)


@pytest.mark.parametrize(
    "number", ["9" * 4_400, "-" + "9" * 4_400, "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-0"]
)
def test_a_number_of_replays_beyond_the_limits_is_refused(number: str) -> None:
    with pytest.raises(InvalidRequest, match="per_second: must be"):
        ReplayTimers.parse(f'{{"per_second": {number}}}'.encode())


@pytest.mark.parametrize("amount", ["0", "-0"])
def test_minus_0_is_0(amount: str) -> None:
    body = f'{{"seconds": {amount}, "url": "{URL}"}}'
    assert SetTimer.parse(body.encode()).when.delay_ms == 0


@pytest.mark.parametrize("amount", ["-1", "-0.5", "-2147483649", "-" + "9" * 30])
@pytest.mark.parametrize("field", ["hours", "minutes", "seconds"])
def test_a_negative_amount_is_refused(field: str, amount: str) -> None:
    assert list(amount_faults(amount, field)) == [field]


def test_a_negative_amount_is_refused_even_where_the_total_is_not() -> None:
    found = faults(json.dumps({"url": URL, "minutes": 1, "seconds": -1}).encode())
    assert found == {"seconds": "must be 0 or more"}


@pytest.mark.parametrize(
    "amount",
    [
        "1.5",
        "1.0",
        "1e0",
        "1E2",
        "1e400",
        "0.0",
        '"1"',
        '""',
        '"abc"',
        "true",
        "false",
        "null",
        "[]",
        "[1]",
        "{}",
        "NaN",
        "Infinity",
        "-Infinity",
    ],
)
@pytest.mark.parametrize("field", ["hours", "minutes", "seconds"])
def test_an_amount_that_is_not_an_integer_is_refused(field: str, amount: str) -> None:
    found = amount_faults(amount, field)
    assert found == {field: "must be a whole number, written without quotes or a fraction"}


@pytest.mark.parametrize("amount", ["01", "+1", ".5", "1.", "0x10", "1_000", "'1'", "undefined"])
def test_a_number_that_json_does_not_know_is_malformed(amount: str) -> None:
    with pytest.raises(MalformedBody):
        SetTimer.parse(f'{{"seconds": {amount}, "url": "{URL}"}}'.encode())


def test_a_request_without_a_time_is_refused() -> None:
    found = faults(json.dumps({"url": URL}).encode())
    assert list(found) == ["seconds"]
    assert "at least one of hours, minutes, seconds" in found["seconds"]


def test_a_missing_url_is_refused() -> None:
    assert faults(b'{"seconds": 1}') == {"url": "is required"}


@pytest.mark.parametrize("url", ["null", "5", "true", "[]", '["https://h"]', "{}"])
def test_a_url_that_is_no_string_is_refused(url: str) -> None:
    assert faults(f'{{"seconds": 1, "url": {url}}}'.encode()) == {"url": "must be a string"}


@pytest.mark.parametrize(
    "url", ["", "h", "ftp://h", "file:///x", "javascript:x", "http://", "http://a b"]
)
def test_a_url_that_cannot_be_called_is_refused(url: str) -> None:
    assert list(faults(json.dumps({"seconds": 1, "url": url}).encode())) == ["url"]


def test_a_url_of_2049_characters_is_refused_with_the_limit() -> None:
    url = "http://h/" + "a" * 2040
    found = faults(json.dumps({"seconds": 1, "url": url}).encode())
    assert found == {"url": "must have at most 2048 characters"}


@pytest.mark.parametrize("field", ["url", "on_failure_url"])
def test_a_url_of_more_than_2048_bytes_is_refused_with_the_limit(field: str) -> None:
    body = {"seconds": 1, "url": URL, field: "http://h/" + "é" * 340}
    found = faults(json.dumps(body, ensure_ascii=False).encode())
    assert found == {
        field: "must have at most 2048 bytes, also where other characters become escapes"
    }


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("minuets", "minutes"),
        ("Seconds", "seconds"),
        ("secs", "seconds"),
        ("hour", "hours"),
        ("URL", "url"),
        ("url ", "url"),
        ("maxAttempts", "max_attempts"),
        ("on_failure", "on_failure_url"),
    ],
)
def test_an_unknown_field_names_the_one_that_was_meant(field: str, meant: str) -> None:
    found = faults(json.dumps({"seconds": 1, "url": URL, field: 1}).encode())
    assert found == {field: f"unknown field; did you mean {meant}?"}


@pytest.mark.parametrize("field", ["id", "", "__class__", "é", "\x00", "\U0001f552", "payload"])
def test_an_unknown_field_like_no_other_names_the_known_ones(field: str) -> None:
    found = faults(json.dumps({"seconds": 1, "url": URL, field: 1}).encode())
    known = ", ".join(SetTimer.model_fields)
    assert found == {field: f"unknown field; known are {known}"}


@pytest.mark.parametrize(
    "body",
    [
        '{"seconds": -1, "seconds": 7200, "url": "https://h"}',
        '{"seconds": 7200, "seconds": 7200, "url": "https://h"}',
        '{"seconds": 7200, "s\\u0065conds": -1, "url": "https://h"}',
        '{"seconds": 7200, "url": "https://h", "seconds": null, "seconds": "x"}',
    ],
)
def test_a_field_that_is_given_twice_is_refused_by_name(body: str) -> None:
    assert faults(body.encode()) == {"seconds": "this field is given more than once"}


def test_a_name_given_twice_deep_in_the_body_is_refused_too() -> None:
    found = faults(b'{"seconds": 1, "url": "https://h", "x": [{"a": {"k": 1, "k": 2}}]}')
    assert found["k"] == "this field is given more than once"
    assert list(found) == ["k", "x"]


def test_the_same_name_in_two_objects_is_not_given_twice() -> None:
    found = faults(b'{"seconds": 1, "url": "https://h", "x": [{"k": 1}, {"k": 2}]}')
    assert list(found) == ["x"]


def test_a_field_given_twice_is_named_beside_other_faults() -> None:
    found = faults(b'{"x": 1, "url": 5, "seconds": 1, "seconds": 2, "hours": -1}')
    assert set(found) == {"hours", "url", "seconds", "x"}


@pytest.mark.parametrize(
    "body",
    [
        {"seconds": -1} | {f"x{number}": 1 for number in range(5_000)},
        {"seconds": -1} | {f"{number}" + "x" * 2_000: 1 for number in range(30)},
        {"seconds": -1} | {f"{number:06}" + "\U0001f552" * 40: 1 for number in range(200)},
    ],
    ids=["many names", "long names", "names of escapes"],
)
def test_no_more_than_20_faults_are_named_and_little_of_the_body_is_repeated(body: Any) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        SetTimer.parse(json.dumps(body).encode())
    found = refusal.value.faults
    assert len(found) == 20
    # The faults of known fields come before those of any number of unknown ones.
    assert [fault.field for fault in found[:2]] == ["seconds", "url"]
    assert all(len(fault.field) <= 41 for fault in found)
    assert refusal.value.detail.endswith("; and more")
    assert len(str(problem(refusal.value).body)) < 24_000


def test_a_body_of_20_faults_has_no_more() -> None:
    body = {"seconds": 1, "url": URL} | {f"x{number}": 1 for number in range(20)}
    with pytest.raises(InvalidRequest) as refusal:
        SetTimer.parse(json.dumps(body).encode())
    assert len(refusal.value.faults) == 20
    assert "and more" not in refusal.value.detail


def test_no_more_than_20_names_given_twice_are_named() -> None:
    members = ", ".join(f'"x{number % 3_000}": 1' for number in range(6_000))
    with pytest.raises(InvalidRequest) as refusal:
        SetTimer.parse(f'{{"seconds": 1, "url": "{URL}", {members}}}'.encode())
    assert len(refusal.value.faults) == 20


def test_every_fault_is_named_at_once() -> None:
    body = {"hours": -1, "minutes": "2", "seconds": 10**30, "url": "ftp://h", "minuets": 3}
    found = faults(json.dumps(body).encode())
    assert set(found) == {"hours", "minutes", "url", "minuets"}


def test_an_amount_beyond_the_limit_is_named_beside_other_faults() -> None:
    found = faults(json.dumps({"hours": -1, "seconds": 10**30, "url": 5}).encode())
    assert set(found) == {"hours", "seconds", "url"}
    assert "10 years" in found["seconds"]


def test_a_missing_time_is_named_beside_other_faults() -> None:
    assert set(faults(b'{"url": 5, "minuets": 1}')) == {"url", "minuets", "seconds"}


def test_an_empty_object_lacks_both_time_and_url() -> None:
    assert set(faults(b"{}")) == {"seconds", "url"}


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"text"', b"true", b"[{}]"])
def test_json_that_is_not_an_object_is_refused(body: bytes) -> None:
    assert faults(body) == {"body": "must be a JSON object"}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{]",
        b'{"seconds": 1',
        b"{'seconds': 1}",
        b"seconds=1&url=https://h",
        b'{"seconds": 1, "url": "https://h",}',
        b'{"seconds": 1, "url": "https://h"} x',
        b'{"seconds": 1, "url": "https://h"}{}',
        b'{"seconds": 1 /* soon */, "url": "https://h"}',
        b'{"seconds": 1, "url": "https://h\n"}',
        b"\x00",
        b"\xff\xfe",
        b'{"seconds": 1, "url": "https://h/\xff"}',
        b'{"seconds": 1, "url": "https://h/\xc3"}',
        b'{"seconds": 1, "url": "https://h/\xed\xa0\x80"}',
        b'{"seconds": 1, "url": "https://h/\\ud800"}',
        b'{"seconds": 1, "url": "https://h/\\uDC00\\uD800"}',
        b'{"seconds": 1, "url": "https://h", "\\ud800": 1}',
        b'{"seconds": 1, "url": "https://h", "x": [{"\\udfff": 1}]}',
        b'\xef\xbb\xbf{"seconds": 1, "url": "https://h"}',
        '{"seconds": 1, "url": "https://h"}'.encode("utf-32"),
        '{"seconds": 1, "url": "https://h"}'.encode("utf-16-le"),
        b'{"seconds": 1, "url": "https://h"}\x00',
        b'{"seconds": -Infinityx}',
        b"{1: 2}",
        '{"seconds": 1, "url": "https://h"}'.encode("utf-16"),
    ],
)
def test_invalid_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="must be JSON"):
        SetTimer.parse(body)


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n"])
def test_an_empty_body_is_said_to_be_empty(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="the body is empty"):
        SetTimer.parse(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"seconds":1,"url":"https://h","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b"[" * 201 + b"]" * 201,
        b'["[\\"[", ' + b"[" * 200 + b"]" * 200 + b"]",
    ],
    ids=["open lists", "open objects", "closed lists in a field", "one too many", "after a string"],
)
def test_deep_nesting_is_malformed_and_crashes_nothing(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="200 deep"):
        SetTimer.parse(body)


@pytest.mark.parametrize("text", ["[" * 1_000, '"[' * 10_000, "\\[{" * 3_000])
def test_brackets_within_a_string_do_not_nest(text: str) -> None:
    found = faults(json.dumps({"seconds": 1, "url": URL, "x": text}).encode())
    assert list(found) == ["x"]


def test_a_string_of_escapes_that_never_ends_is_read_in_no_time() -> None:
    started = time.perf_counter()
    with pytest.raises(MalformedBody):
        SetTimer.parse(b"[" * 201 + b'"' + b'\\"' * 32_000)
    assert time.perf_counter() - started < 1


def test_moderate_nesting_in_an_unknown_field_is_refused_by_name() -> None:
    body = b'{"seconds":1,"url":"https://h","x":' + b"[" * 100 + b"]" * 100 + b"}"
    assert list(faults(body)) == ["x"]


def test_no_fault_repeats_the_value_that_was_sent() -> None:
    body = {"seconds": "hunter2", "url": "ftp://user:hunter2@h", "token": "hunter2"}
    assert "hunter2" not in repr(faults(json.dumps(body).encode()))


@pytest.mark.parametrize(
    "url", ["http://h:hunter2", "http://hunter2\u2100h/", "http://[hunter2]", "http://[hunter2"]
)
def test_no_fault_repeats_a_part_of_a_url(url: str) -> None:
    assert "hunter2" not in repr(faults(json.dumps({"seconds": 1, "url": url}).encode()))


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000_000, "2027-01-15T08:00:00.000Z"),
        (1_800_000_000_007, "2027-01-15T08:00:00.007Z"),
        (1_799_999_999_999, "2027-01-15T07:59:59.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_written_in_rfc_3339_with_milliseconds(at: int, text: str) -> None:
    assert rfc3339(at) == text


def test_a_missing_time_is_written_as_null() -> None:
    assert rfc3339(None) is None


def test_a_timers_status_is_its_id_and_the_time_left() -> None:
    new = NewTimer(tenant="default", url=URL, created_at=DUE - 5_000, due_at=DUE)
    assert timer_status(Timer.first(new, 1), DUE - 644_001) == {"id": 1, "time_left": 645}


def test_a_timer_in_a_list_has_all_its_fields() -> None:
    new = NewTimer(tenant="default", url=URL, created_at=DUE - 5_000, due_at=DUE)
    item = timer_item(Timer.first(new, 2), DUE - 5_000)
    assert (
        item.items()
        >= {
            "id": 2,
            "url": URL,
            "status": "pending",
            "due_at": "2027-01-15T08:00:00.000Z",
            "time_left": 5,
        }.items()
    )
