"""The JSON bodies of requests about one timer, and about the test clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)
from pydantic.json_schema import SkipJsonSchema

from chalicelib.domain.content import (
    BYTES,
    DEFAULT_METHOD,
    NO_CONTENT,
    Content,
    body_of,
    body_of_base64,
)
from chalicelib.domain.content import MAX_BODY_BYTES as MAX_CONTENT_BYTES
from chalicelib.domain.duration import parse_duration
from chalicelib.domain.errors import Fault
from chalicelib.domain.moment import When, read_moment
from chalicelib.domain.retry import DEFAULT_DELAYS_S, attempts_allowed
from chalicelib.domain.timer import NO_OPTIONS, DeliveryOptions
from chalicelib.rest.delay import delay_s, when_fault
from chalicelib.rest.fields import (
    SECONDS_IN,
    Base64,
    ContentType,
    Duration,
    Headers,
    Hours,
    Labels,
    Method,
    Minutes,
    MomentToCome,
    RetryDelays,
    Seconds,
    Url,
    Zone,
)
from chalicelib.rest.together import (
    CONTENT_FIELDS,
    OPTION_FIELDS,
    content_fault,
    policy_fault,
)
from chalicelib.rest.validation import Body, Examples
from chalicelib.service.timers import KeyedRequest, TimerRequest

_AMOUNTS: dict[str, Any] = {"anyOf": [{"required": [name]} for name in SECONDS_IN]}

WAYS_TO_SAY_WHEN: dict[str, Any] = {
    "oneOf": [_AMOUNTS, {"required": ["delay"]}, {"required": ["at"]}]
}
"""The JSON Schema of the rule that a request says when in exactly one way."""


# Settings give these two limits, so they reach a validator in the context (validation.Limits).
def _check_attempts(value: int, info: ValidationInfo) -> int:
    # With delays of its own, a timer has as many attempts as they say (together.py).
    own_delays = info.data.get("retry") is not None
    maximum = info.context.max_attempts if info.context and not own_delays else value
    if value > maximum:
        raise ValueError(f"may be at most {maximum} here (TIMERS_RETRY_DELAYS)")
    return value


def _check_timeout(value: int, info: ValidationInfo) -> int:
    maximum = info.context.timeout_s if info.context else value
    if value > maximum:
        raise ValueError(f"may be at most {maximum:g} seconds here (TIMERS_SEND_TIMEOUT)")
    return value


def _check_body(value: Any) -> Any:
    body_of(value)
    return value


class MoveTimer(Body):
    """When: in exactly one way.

    `hours`, `minutes` and `seconds` add up, carry over, and are written without a fraction; or
    `delay` is a duration; or `at` is a moment. At most ten years of 365 days from now, 315,360,000
    seconds; 0 means now. An unknown field is refused.
    """

    model_config = ConfigDict(json_schema_extra=WAYS_TO_SAY_WHEN)

    examples: ClassVar[Examples] = {
        "later": {"value": {"minutes": 2}},
        "duration": {"value": {"delay": "1h30m"}},
    }

    hours: Hours = 0
    minutes: Minutes = 0
    seconds: Seconds = 0
    # null is no way of saying when: it is refused, as in the amounts (delay.py).
    delay: Duration | SkipJsonSchema[None] = None
    at: MomentToCome | SkipJsonSchema[None] = None
    timezone: Zone | SkipJsonSchema[None] = None

    @property
    def when(self) -> When:
        """When the timer is to be due."""
        if self.at is not None:
            return When(at=read_moment(self.at, self.timezone))
        if self.delay is not None:
            return When(parse_duration(self.delay))
        return When(delay_s(self.hours, self.minutes, self.seconds) * 1000)

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of the ways to say when, None if there is none."""
        # As they were given: a default of 0 must not pass for an amount.
        return when_fault(given)


class SetTimer(MoveTimer):
    """A URL to call, and how long from now, in amounts as in `MoveTimer`."""

    examples: ClassVar[Examples] = {
        "plain": {
            "value": {"hours": 4, "minutes": 0, "seconds": 1, "url": "https://example.com/hook"}
        },
        "policy": {
            "value": {
                "minutes": 90,
                "url": "https://example.com/hook?k=v",
                "max_attempts": 3,
                "timeout": 5,
                "on_failure_url": "https://example.com/failed",
            }
        },
        "content": {
            "value": {
                "delay": "1h30m",
                "url": "https://example.com/orders",
                "method": "PUT",
                "headers": {"Authorization": "Bearer secret"},
                "body": {"order": 7},
                "labels": ["order:7"],
            }
        },
        "retries": {
            "value": {
                "delay": "15m",
                "url": "https://example.com/hook",
                "retry": ["30s", "5m", "1h"],
                "max_lateness": "10m",
                "repeatable": True,
            }
        },
    }

    url: Url
    retry: Annotated[
        RetryDelays | None,
        Field(
            description="Delays before the second, third, … attempt, in place of the service's. "
            "Each is lengthened by up to a tenth at random."
        ),
    ] = None
    max_attempts: (
        Annotated[
            int,
            Field(
                ge=1,
                description="Attempts at most. The retry schedule of the service "
                "(`TIMERS_RETRY_DELAYS`) sets the limit. With `retry` it is one more than delays.",
                json_schema_extra={"maximum": attempts_allowed(DEFAULT_DELAYS_S)},
            ),
            AfterValidator(_check_attempts),
        ]
        | None
    ) = None
    timeout: (
        Annotated[
            int,
            Field(
                ge=1,
                description="Seconds that one attempt may take, `TIMERS_SEND_TIMEOUT` at most.",
                json_schema_extra={"maximum": 10},  # the default of TIMERS_SEND_TIMEOUT
            ),
            AfterValidator(_check_timeout),
        ]
        | None
    ) = None
    on_failure_url: Annotated[
        Url | None, Field(description="Called once when the timer fails for good or expires.")
    ] = None
    max_lateness: Annotated[
        Duration | None,
        Field(
            description="A first call that cannot start within this time after it is due is not "
            "made: the timer is `expired`."
        ),
    ] = None
    repeatable: Annotated[
        bool,
        Field(
            description="A receiver that responds 2xx with `timer-again`, seconds or an HTTP date, "
            "is called again then."
        ),
    ] = False
    method: Annotated[Method, Field(description="The method of the webhook.")] = DEFAULT_METHOD
    headers: Headers | None = None
    body: Annotated[
        Any,
        AfterValidator(_check_body),
        Field(
            description="The body of the webhook: a string as it is, any other value as compact "
            f"JSON. At most {MAX_CONTENT_BYTES} bytes as it is sent."
        ),
    ] = None
    body_base64: Base64 | None = None
    content_type: ContentType | None = None
    append_id: Annotated[bool, Field(description="Append `/<id>` to the path of the URL.")] = True
    labels: Labels | None = None

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of several fields together, None if there is none."""
        return super().fault_together(given) or policy_fault(given) or content_fault(given)

    def timer_request(self) -> TimerRequest:
        """Return the timer that the client asks for."""
        return TimerRequest(
            url=self.url,
            when=self.when,
            options=self._options(),
            content=self._content(),
            labels=tuple(self.labels or ()),
        )

    def _options(self) -> DeliveryOptions:
        if self.model_fields_set.isdisjoint(OPTION_FIELDS):
            return NO_OPTIONS
        return DeliveryOptions(
            max_attempts=None if self.retry is not None else self.max_attempts,
            timeout_s=self.timeout,
            on_failure_url=self.on_failure_url,
            retry_delays_ms=(
                None if self.retry is None else tuple(map(parse_duration, self.retry))
            ),
            max_lateness_ms=(
                None if self.max_lateness is None else parse_duration(self.max_lateness)
            ),
            repeatable=self.repeatable,
        )

    def _content(self) -> Content:
        given = self.model_fields_set
        if given.isdisjoint(CONTENT_FIELDS):
            return NO_CONTENT
        body, kind = b"", None
        if "body" in given:
            body, kind = body_of(self.body)
        elif self.body_base64 is not None:
            body, kind = body_of_base64(self.body_base64), BYTES
        return Content(
            method=self.method,
            headers=tuple((self.headers or {}).items()),
            body=body,
            content_type=self.content_type or kind,
            append_id=self.append_id,
        )


class SetKeyedTimer(SetTimer):
    """The timer of a key, as in `SetTimer`.

    If the timer exists, it is moved, and all that it sends is replaced: an option that is absent
    has its default again.
    """

    examples: ClassVar[Examples] = {
        "debounce": {
            "value": {"seconds": 30, "no_later_than": "5m", "url": "https://example.com/hook"}
        },
        "next": {"value": {"hours": 1, "if_in_flight": "new", "url": "https://example.com/hook"}},
    }

    no_later_than: Annotated[
        Duration | None,
        Field(
            description="A bound, counted from the first set of the timer. A later move never goes "
            "past it: a time beyond it becomes the bound. It stays when it is not sent, and later "
            "requests can only tighten it. A duration such as `90m`, `1h30m` or `PT4H1S`."
        ),
    ] = None
    if_in_flight: Annotated[
        Literal["new"] | None,
        Field(
            description="What to do while the webhook of the timer is being called. `new` sets the "
            "next timer, to which the key passes. Otherwise the response is 409 `timer-in-flight`."
        ),
    ] = None

    def keyed_request(self) -> KeyedRequest:
        """Return the timer that the client asks for."""
        bound = self.no_later_than
        return KeyedRequest(
            timer=self.timer_request(),
            no_later_than_ms=None if bound is None else parse_duration(bound),
            new_if_in_flight=self.if_in_flight == "new",
        )


class AdvanceClock(Body):
    """How far to move the clock: by `delay`, or `until` no timer is outstanding."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["delay"]}, {"required": ["until"]}]}
    )

    examples: ClassVar[Examples] = {
        "days": {"value": {"delay": "3d"}},
        "idle": {"value": {"until": "idle"}},
    }

    delay: Duration | SkipJsonSchema[None] = None
    until: Literal["idle"] | SkipJsonSchema[None] = None

    @property
    def delay_ms(self) -> int | None:
        """How far the clock is moved (ms); None for as far as the last timer."""
        return None if self.delay is None else parse_duration(self.delay)

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of the two fields together, None if there is none."""
        ways = [name for name in ("delay", "until") if given.get(name) is not None]
        if len(ways) == 1:
            return None
        return Fault("delay", 'give either delay, such as "3d", or until, which is "idle"')
