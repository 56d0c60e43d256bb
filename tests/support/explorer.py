"""Schemathesis, run on an application in this process as its command line runs it on a server.

It calls every operation as the document allows, as the document forbids, and in sequences that
follow its links, and checks every response against the document. What is registered here on import
serves the command line too, by schemathesis.toml.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, HookContext
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from chalicelib.domain.moment import MAX_DELAY_S, MOMENT_PATTERN, ZONE_PATTERN
from chalicelib.domain.target import MAX_URL_CHARACTERS
from chalicelib.rest.cursor import MAX_ID

SEED = 1
IDS = 8
SECONDS_IN = {"hours": 3600, "minutes": 60, "seconds": 1}
HOSTS = ["h.invalid", "a-1.b_2.h.invalid", "b\u00fccher.invalid", "xn--bcher-kva.invalid."]
"""Names that never exist (RFC 6761): a timer that fires calls no real server."""

CURSORS = ["MQ", "MTAx", "NQ=="]

URLS = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "https", "HTTPS"]),
    st.sampled_from(["", "u:p%40@", "u@"]),
    st.sampled_from(HOSTS),
    st.sampled_from(["", ":1", ":65535"]),
    st.from_regex(r"([/?#][ -~\u00a1-\ud7ff]{0,30}[!-~])?", fullmatch=True),
)
AUTHORITY = re.compile(r"(https?://)([^/?#\s\\\x00-\x1f\x7f]+)", re.IGNORECASE)
schemathesis.openapi.format("webhook-url", URLS)
schemathesis.openapi.format("cursor", st.sampled_from(CURSORS))
schemathesis.openapi.format(
    "moment-to-come",
    st.builds(
        "20{}-0{}-{}T{}:00:{}{}".format,
        st.integers(30, 34),
        st.integers(1, 9),
        st.integers(10, 28),
        st.integers(10, 23),
        st.sampled_from(["00", "59.999", "60"]),
        st.sampled_from(["Z", "z", "+01:00", "-09:30"]),
    ),
)
DURATIONS = st.sampled_from(["250ms", "1.5s", "90m", "1h30m", "PT1S", "P0.5D", "0s", "PT23H59M"])
schemathesis.openapi.format("retry-delay", DURATIONS)
schemathesis.openapi.format(
    "timer-duration", st.one_of(DURATIONS, st.sampled_from(["2d", "1w", "P3650D"]))
)
NUMBERS = itertools.count()
ZONES = ["Europe/Berlin", "Asia/Kolkata", "UTC"]
schemathesis.openapi.format("time-zone", st.sampled_from(ZONES))


@dataclass
class Explored:
    """The result of a run: the wrong responses, and how often each operation gave each status."""

    failures: list[str] = field(default_factory=list)
    responses: Counter[tuple[str, int]] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)

    def statuses(self, operation: str) -> set[int]:
        """Return the statuses that ``POST /timers``, say, has given."""
        return {status for label, status in self.responses if label == operation}

    def add(self, recorder: ScenarioRecorder) -> None:
        for case_id, interaction in recorder.interactions.items():
            if interaction.response is not None:
                label = recorder.cases[case_id].value.operation.label
                self.responses[label, interaction.response.status_code] += 1
        for checks in recorder.checks.values():
            for check in checks:
                self.checks[check.name] += 1
                if check.status is not Status.SUCCESS and check.failure_info:
                    found = check.failure_info
                    text = f"{check.name}: {found.failure.message}\n{found.code_sample}"
                    self.failures.append(f"{recorder.label}: {text}")


def explore(
    document: dict[str, Any],
    app: Any,
    *,
    examples: int,
    key: str | None = None,
    recent: Callable[[], int] = lambda: IDS,
    without: Sequence[str] = (),
) -> Explored:
    """Call ``app`` as ``document`` says, some ``examples`` times an operation and phase.

    Every check is made but those named in ``without``; ``recent`` tells the highest id there is.
    The calls are the same on every run.
    """
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "continue-on-failure": True,
            "cache": {"enabled": False},
            "generation": {"max-examples": examples, "deterministic": True, "database": "none"},
            "auth": {"openapi": {"key": {"bearer": key}}} if key is not None else {},
            # What the service says when it refuses is no schema: the document must do.
            "phases": {"fuzzing": {"error-feedback": {"enabled": False}}},
            "checks": {check: {"enabled": False} for check in without},
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.app = app
    schema.hook(_hook_of_ids(recent))
    explored = Explored()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            explored.add(event.recorder)
        elif isinstance(event, events.NonFatalError):
            explored.failures.append(str(event.info))
        elif isinstance(event, events.FatalError):
            raise event.exception
    return explored


@schemathesis.hook
def map_case(_context: HookContext, case: Case[Any]) -> Case[Any]:
    """Make valid what the document cannot forbid and the service refuses; tests of the API try it.

    To JSON Schema 2.0 is an integer, three numbers together have no limit, a string is a cursor
    whether or not a response gave it, and a host that is no name is hard to tell from one that is.
    """
    if isinstance(case.body, dict):
        body: dict[str, Any] = {name: _integer(value) for name, value in case.body.items()}
        amounts = {name: body[name] for name in SECONDS_IN if _is_amount(body, name)}
        if sum(amount * SECONDS_IN[name] for name, amount in amounts.items()) > MAX_DELAY_S:
            body |= {name: amount // 3 for name, amount in amounts.items()}
        if isinstance(body.get("cursor"), str):
            body["cursor"] = CURSORS[len(body["cursor"]) % len(CURSORS)]
        body |= {name: _of_ours(body[name]) for name in body.keys() & {"url", "on_failure_url"}}
        case.body = _consistent(body)
    given = case.headers.get("Idempotency-Key") if case.headers else None
    if isinstance(given, str) and re.fullmatch("[!-~]{1,240}", given):
        # The same key for another request is refused, which no document can say.
        case.headers["Idempotency-Key"] = f"{given}-{next(NUMBERS)}"
    if isinstance(case.query, dict) and case.query.get("order") == "due":
        # Its list has a status and cursors of its own.
        case.query = {
            name: value for name, value in case.query.items() if name not in ("status", "cursor")
        }
    return case


def _consistent(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without fields that only together are wrong."""
    dropped: set[str] = set()
    if isinstance(body.get("ids"), list):
        body["ids"] = [_integer(each) for each in body["ids"]]
    filters = body.keys() & {"ids", "label", "url_prefix", "due_from", "due_until"}
    if filters and all(body[name] in (None, "") for name in filters):
        body["label"] = "order:7"  # one that says something
    zone, at = body.get("timezone"), body.get("at")
    if isinstance(zone, str) and re.fullmatch(ZONE_PATTERN, zone):
        dropped.add("timezone")  # every moment that is drawn has an offset
    if isinstance(at, str) and re.fullmatch(MOMENT_PATTERN, at) and not at.startswith("203"):
        body["at"] = "2030-01-01T00:00:00Z"  # not every moment of the form exists
    has_body = "body" in body or isinstance(body.get("body_base64"), str)
    if "body" in body and isinstance(body.get("body_base64"), str):
        dropped.add("body_base64")
    if not has_body and isinstance(body.get("content_type"), str):
        dropped.add("content_type")
    if body.get("method") == "GET" and has_body:
        dropped.add("method")
    if isinstance(body.get("retry"), list) and isinstance(body.get("max_attempts"), int):
        dropped.add("max_attempts")
    headers = body.get("headers")
    if isinstance(headers, dict) and all(isinstance(value, str) for value in headers.values()):
        dropped.add("headers")  # which names and values are allowed, no schema can tell
    return {name: value for name, value in body.items() if name not in dropped}


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_amount(body: dict[str, Any], name: str) -> bool:
    amount = body.get(name)
    return type(amount) is int and 0 <= amount * SECONDS_IN[name] <= MAX_DELAY_S


def _of_ours(url: Any) -> Any:
    """Return a URL whose host is one of ``HOSTS`` where ``url`` has another that may be none."""
    found = AUTHORITY.match(url) if isinstance(url, str) else None
    if found is None or len(url) > MAX_URL_CHARACTERS or any(host in found[2] for host in HOSTS):
        return url
    return found[1] + HOSTS[0] + url[found.end() :]


def _hook_of_ids(recent: Callable[[], int]) -> Callable[..., dict[str, Any] | None]:
    """Return a hook that draws ids of recent timers: of all valid ids none would ever be met."""

    def map_path_parameters(
        _context: HookContext, parameters: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        drawn = (parameters or {}).get("timer_id")
        if parameters and type(drawn) is int and 1 <= drawn <= MAX_ID:
            return parameters | {"timer_id": max(1, recent() - drawn % IDS)}
        return parameters

    return map_path_parameters
