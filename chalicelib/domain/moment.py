"""When a timer is due: after a delay, or at a moment, which a client may give in local time."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import overload
from zoneinfo import ZoneInfo

from chalicelib.domain.duration import format_duration
from chalicelib.domain.errors import Fault, InvalidRequest

MAX_DELAY_S = 10 * 365 * 24 * 60 * 60
"""Ten years of 365 days: the longest delay accepted."""

DELAY_TOO_LONG = f"the delay may be at most 10 years ({MAX_DELAY_S} seconds)"

MAX_PAST_MS = 60_000
"""A moment that passed so long ago at most means now. Clocks differ, and requests take time."""

MAX_ZONE_CHARACTERS = 64

_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d{1,18}))?(Z|z|[+-]\d\d:\d\d)?", re.ASCII
)
MOMENT_PATTERN = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,18})?"
    "([Zz]|[+-][0-9]{2}:[0-9]{2})?$"
)
ZONE_PATTERN = "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"
"""Regular expressions (ECMA 262) that every moment and every name of a zone matches."""

_ZONE = re.compile(ZONE_PATTERN.strip("^$"), re.ASCII)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (UTC by name: differences are in whole numbers)
_MILLISECOND = timedelta(milliseconds=1)
_LEAP_SECOND = 60
_MAX_OFFSET = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class When:
    """The time of a timer as its client gave it: ``delay_ms`` from now, or ``at`` (epoch ms)."""

    delay_ms: int = 0
    at: int | None = None

    def due_at(self, now: float) -> int:
        """Return when the timer is due (epoch ms), for a request accepted at ``now`` (epoch ms).

        Raises ``InvalidRequest`` for a moment that is too long ago or too far away.
        """
        # Rounded up: rounded down, the timer would fire a fraction of a millisecond early.
        now_ms = math.ceil(now)
        if self.at is None:
            return now_ms + self.delay_ms
        if self.at < now_ms - MAX_PAST_MS:
            ago = format_duration((now_ms - self.at) // 1000 * 1000)
            raise InvalidRequest([Fault("at", f"is {ago} ago; at most 60s ago means now")])
        if self.at > now_ms + MAX_DELAY_S * 1000:
            raise InvalidRequest([Fault("at", DELAY_TOO_LONG)])
        return max(self.at, now_ms)


def has_offset(text: str) -> bool:
    """Tell whether a moment says its offset from UTC. Raises ``ValueError`` if it is none."""
    return _parts(text)[4] is not None


def read_moment(text: str, zone: str | None = None) -> int:
    """Return a moment as epoch milliseconds, rounded up.

    ``text`` is RFC 3339 with an offset, or local time without one in ``zone`` (an IANA name). A
    local time that does not exist, in spring, is the first one after it that does. One that exists
    twice, in autumn, is the earlier. Raises ``ValueError``.
    """
    date, minute, second, fraction, offset = _parts(text)
    leap = int(second) == _LEAP_SECOND
    try:
        local = datetime.fromisoformat(f"{date}T{minute}:{'59' if leap else second}")
    except ValueError as error:
        raise ValueError(f"is no date and time that exists ({error})") from None
    # In whole numbers, and a fraction of a millisecond upwards: nothing is early.
    digits = (fraction or "0").ljust(3, "0")
    milliseconds = int(digits[:3]) + (int(digits[3:] or "0") > 0)
    rest = timedelta(seconds=int(leap), milliseconds=milliseconds)
    try:
        if offset is not None:
            utc = local - _offset(offset) + rest
        elif zone is not None:
            utc = _in_zone(local, rest, read_zone(zone))
        else:
            raise ValueError("has no offset from UTC: add one, or send timezone")
    except OverflowError:
        raise ValueError("is beyond the year 9999 or before the year 1") from None
    return (utc - _EPOCH) // _MILLISECOND


@functools.lru_cache(maxsize=64)
def read_zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name. Raises ``ValueError`` if there is none."""
    unknown = "must be the IANA name of a time zone, such as Europe/Berlin"
    if len(name) > MAX_ZONE_CHARACTERS or not _ZONE.fullmatch(name):
        raise ValueError(unknown)
    # Imported late: 12 ms that only requests with a time zone need.
    from importlib import resources

    # Not the zones of the system: it may have none, or older ones, or names that only it knows.
    zones = resources.files("tzdata") / "zoneinfo"
    try:
        with zones.joinpath(*name.split("/")).open("rb") as file:
            return ZoneInfo.from_file(file, name)
    except (ValueError, OSError) as error:
        raise ValueError(unknown) from error


@overload
def rfc3339(epoch_ms: int) -> str: ...
@overload
def rfc3339(epoch_ms: int | None) -> str | None: ...
def rfc3339(epoch_ms: int | None) -> str | None:
    """Return epoch milliseconds as an RFC 3339 time in UTC; None as None."""
    if epoch_ms is None:
        return None
    # In whole numbers: a float would round some milliseconds wrongly.
    seconds, milliseconds = divmod(epoch_ms, 1000)
    time = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def _parts(text: str) -> tuple[str, str, str, str | None, str | None]:
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError(
            "must be a time as in RFC 3339, such as 2026-11-24T12:00:00+01:00, "
            "or 2026-11-24T12:00:00 with timezone"
        )
    date, minute, second, fraction, offset = found.groups()
    return date, minute, second, fraction, offset


def _offset(text: str) -> timedelta:
    if text in ("Z", "z"):
        return timedelta(0)
    size = timedelta(hours=int(text[1:3]), minutes=int(text[4:]))
    if size >= _MAX_OFFSET or int(text[4:]) >= 60:  # noqa: PLR2004 (minutes of an hour)
        raise ValueError("has an offset from UTC that does not exist")
    return -size if text[0] == "-" else size


def _in_zone(local: datetime, rest: timedelta, zone: ZoneInfo) -> datetime:
    """Return the moment of a local time and a ``rest`` in UTC, both without a time zone.

    ``local`` is in whole seconds. If the clocks skip it, the rest does not matter.
    """
    earlier, later = _utc(local, zone, fold=0), _utc(local, zone, fold=1)
    if _exists(local, earlier, zone):
        return earlier + rest
    # The clocks skip ``local``. They do so between these two moments: look for the first second of
    # the new offset, which is the first local time that exists.
    before, after = min(earlier, later), max(earlier, later)
    new = _shift(after, zone)
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if _shift(middle, zone) == new:
            after = middle
        else:
            before = middle
    return after


def _utc(local: datetime, zone: ZoneInfo, *, fold: int) -> datetime:
    aware = local.replace(tzinfo=zone, fold=fold)
    return aware.astimezone(timezone.utc).replace(tzinfo=None)


def _exists(local: datetime, utc: datetime, zone: ZoneInfo) -> bool:
    there = utc.replace(tzinfo=timezone.utc).astimezone(zone)
    return there.replace(tzinfo=None, fold=0) == local


def _shift(utc: datetime, zone: ZoneInfo) -> timedelta | None:
    return utc.replace(tzinfo=timezone.utc).astimezone(zone).utcoffset()
