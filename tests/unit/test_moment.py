"""Moments as clients write them: with an offset, or as local time in a zone."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis.strategies import datetimes, sampled_from

from chalicelib.domain.errors import InvalidRequest
from chalicelib.domain.moment import MAX_DELAY_S, When, read_moment, read_zone, rfc3339

BERLIN = "Europe/Berlin"
NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("moment", "zone", "utc"),
    [
        ("2026-11-24T12:00:00+01:00", None, "2026-11-24T11:00:00.000Z"),
        ("2026-11-24t12:00:00.25z", None, "2026-11-24T12:00:00.250Z"),
        ("2026-11-24T12:00:00", BERLIN, "2026-11-24T11:00:00.000Z"),
        ("2026-06-30T23:59:60Z", None, "2026-07-01T00:00:00.000Z"),
    ],
)
def test_a_moment_is_read_to_the_millisecond(moment: str, zone: str | None, utc: str) -> None:
    assert rfc3339(read_moment(moment, zone)) == utc


def test_more_digits_than_milliseconds_are_rounded_up() -> None:
    assert rfc3339(read_moment("2026-11-24T12:00:00.0001Z")) == "2026-11-24T12:00:00.001Z"
    assert rfc3339(read_moment("2026-11-24T12:00:59.9999Z")) == "2026-11-24T12:01:00.000Z"


@pytest.mark.parametrize(
    ("moment", "zone", "utc"),
    [
        ("2026-03-29T02:00:00", BERLIN, "2026-03-29T01:00:00.000Z"),
        ("2026-03-29T02:30:00.5", BERLIN, "2026-03-29T01:00:00.000Z"),
        ("2026-03-29T02:59:59.9999", BERLIN, "2026-03-29T01:00:00.000Z"),
        ("2026-03-29T03:00:00", BERLIN, "2026-03-29T01:00:00.000Z"),
        # Half an hour is skipped, and a whole day.
        ("2026-10-04T02:10:00", "Australia/Lord_Howe", "2026-10-03T15:30:00.000Z"),
        ("2011-12-30T12:00:00", "Pacific/Apia", "2011-12-30T10:00:00.000Z"),
    ],
)
def test_a_skipped_local_time_is_the_first_after_it(moment: str, zone: str, utc: str) -> None:
    assert rfc3339(read_moment(moment, zone)) == utc


@pytest.mark.parametrize(
    ("moment", "utc"),
    [
        ("2026-10-25T02:30:00.25", "2026-10-25T00:30:00.250Z"),
        ("2026-10-25T02:59:59.9999", "2026-10-25T01:00:00.000Z"),
        ("2026-10-25T03:00:00", "2026-10-25T02:00:00.000Z"),
    ],
)
def test_a_local_time_that_exists_twice_is_the_earlier(moment: str, utc: str) -> None:
    assert rfc3339(read_moment(moment, BERLIN)) == utc


@settings(deadline=None, database=None)
@given(
    datetimes().map(
        lambda local: local.replace(year=1990 + local.year % 46, day=min(local.day, 28))
    ),
    sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]),
)
def test_a_local_time_is_never_early(local: datetime, zone: str) -> None:
    found = read_moment(local.isoformat(), zone) / 1000
    there = datetime.fromtimestamp(found, timezone.utc).astimezone(ZoneInfo(zone))
    assert there.replace(tzinfo=None) >= local.replace(microsecond=local.microsecond // 1000 * 1000)


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("2026-02-29T12:00:00Z", "is no date and time that exists"),
        ("2026-11-24T24:00:00Z", "is no date and time that exists"),
        ("0000-01-01T00:00:00Z", "is no date and time that exists"),
        ("0001-01-01T00:00:00+01:00", "is beyond the year 9999 or before the year 1"),
        ("9999-12-31T23:59:60Z", "is beyond the year 9999 or before the year 1"),
        ("2026-11-24T12:00:00+24:00", "has an offset from UTC that does not exist"),
        ("2026-11-24T12:00:00", "has no offset from UTC: add one, or send timezone"),
        ("20261124T120000Z", "must be a time as in RFC 3339"),
        ("2026-11-24", "must be a time as in RFC 3339"),
        ("\u0662026-11-24T12:00:00Z", "must be a time as in RFC 3339"),
        ("2026-11-24T12:00:00." + "0" * 99 + "Z", "must be a time as in RFC 3339"),
    ],
)
def test_an_error_says_what_is_wrong(moment: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        read_moment(moment)


@pytest.mark.parametrize(
    "name",
    ["Europe", "europe/berlin", "CEST", "../etc/passwd", "/etc/localtime", "", "A" * 99, "UTC\x00",
     "localtime", "posixrules", "right/UTC", "tzdata.zi", "zones"],
)  # fmt: skip
def test_only_the_names_of_the_pinned_zones_are_known(name: str) -> None:
    # `localtime` and `right/` are zones of many systems, and differ from one to the next.
    with pytest.raises(ValueError, match="must be the IANA name"):
        read_zone(name)


@pytest.mark.parametrize(("ago_ms", "due_at"), [(0, NOW), (60_000, NOW), (1, NOW), (-1, NOW + 1)])
def test_a_moment_up_to_a_minute_ago_is_now(ago_ms: int, due_at: int) -> None:
    assert When(at=NOW - ago_ms).due_at(NOW) == due_at


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (NOW - 60_001, "at: is 1m ago"),
        (NOW - 3_725_000, "at: is 1h2m5s ago"),
        (NOW + MAX_DELAY_S * 1000 + 1, "at: the delay may be at most 10 years"),
    ],
)
def test_other_moments_are_refused(at: int, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        When(at=at).due_at(NOW)
