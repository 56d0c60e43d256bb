"""The validation of requests: it finds every fault, and describes each in our own words."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from chalicelib.domain.errors import MAX_FAULTS, Fault, InvalidRequest, excerpt
from chalicelib.domain.retry import attempts_allowed
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.rest import strict_json
from chalicelib.rest.reading import MAX_BODY_BYTES
from chalicelib.rest.strict_json import JsonDocument
from chalicelib.settings import Settings

Examples = dict[str, dict[str, Any]]
"""Bodies by name, each under ``value``, as OpenAPI has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one timer's retry policy in this service, and the addresses it may call."""

    max_attempts: int
    timeout_s: float
    guard: Guard

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits from the settings."""
        return cls(
            max_attempts=attempts_allowed(settings.retry_delays_s),
            timeout_s=settings.send_timeout_s,
            guard=settings.guard,
        )


class _Request(BaseModel):
    """A part of a request. A name that the model does not know is a fault."""

    noun: ClassVar[str]

    @classmethod
    def fault_together(cls, given: Mapping[str, Any]) -> Fault | None:
        """Return the fault of several fields together, None if there is none."""

    @classmethod
    def _read(
        cls,
        given: Any,
        repeated: Sequence[str],
        limits: Limits | None = None,
        max_faults: int = MAX_FAULTS,
    ) -> Self:
        """Return the model of ``given``.

        Raises ``InvalidRequest`` with every fault, of which ``max_faults`` are named.
        """
        # Beyond the limit, a fault need not be described.
        found = {
            name: Fault(name, f"this {cls.noun} is given more than once")
            for name in repeated[: max_faults + 1]
        }
        request = None
        try:
            request = cls.model_validate(given, context=limits)
        except ValidationError as error:
            # No message repeats a value that was sent: it may be a secret.
            details = error.errors(include_url=False, include_input=False)
            for detail in details[: max_faults + 1]:
                fault = cls._fault(detail)
                found.setdefault(fault.field, fault)
        together = cls.fault_together(given) if isinstance(given, dict) else None
        if together:
            found.setdefault(together.field, together)
        if request is None or found:
            known = cls._known()
            # Unknown names come last: there may be any number of them.
            faults = sorted(found.values(), key=lambda fault: fault.field not in known)
            raise InvalidRequest(faults, max_faults)
        return request

    @classmethod
    def _known(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def _fault(cls, detail: Any) -> Fault:
        # Requests are flat, so the first part of the location is the field.
        field = str(detail["loc"][0]) if detail["loc"] else "body"
        if detail["type"] == "extra_forbidden":
            return Fault(field, _unknown(field, cls.noun, cls._known()))
        if detail["type"] == "too_long":
            return Fault(field, f"may have at most {detail['ctx']['max_length']} entries")
        if detail["type"] == "value_error":
            return Fault(field, str(detail["ctx"]["error"]))
        return Fault(field, _message(detail))


class Body(_Request):
    """A JSON body. An unknown field is a fault."""

    # Strict: pydantic would otherwise read "5" and 5.0 as 5, and true as 1.
    model_config = ConfigDict(extra="forbid", strict=True)

    noun = "field"
    examples: ClassVar[Examples] = {}
    max_bytes: ClassVar[int] = MAX_BODY_BYTES

    @classmethod
    def parse(cls, body: bytes, limits: Limits | None = None) -> Self:
        """Read a request body.

        Raises ``MalformedBody`` when it is not JSON and ``InvalidRequest`` with every fault when
        it is JSON but no valid request.
        """
        document = strict_json.read(body)
        return cls._read(document.value, document.repeated, limits)

    @classmethod
    def read_part(
        cls, document: JsonDocument, part: Any, limits: Limits | None, max_faults: int
    ) -> Self:
        """Read one part of a longer document as ``parse`` reads a whole one.

        Raises ``InvalidRequest``, which names ``max_faults`` at most.
        """
        return cls._read(part, document.repeated_in(part), limits, max_faults)


class Query(_Request):
    """The parameters of a query. Without fields it is the query of a path that takes none."""

    model_config = ConfigDict(extra="forbid")

    noun = "parameter"

    @classmethod
    def parse(cls, query: Mapping[str, Sequence[str]]) -> Self:
        """Read the values of each parameter. Raises ``InvalidRequest`` with every fault."""
        if not query:
            return cls._without_parameters()
        repeated = [name for name, values in query.items() if len(values) > 1]
        return cls._read({name: values[-1] for name, values in query.items()}, repeated)

    @classmethod
    @functools.cache
    def _without_parameters(cls) -> Self:
        return cls._read({}, ())


def _unknown(name: str, noun: str, known: Sequence[str]) -> str:
    """Return the message about an unknown name: the name that was meant, or all known ones."""
    if not known:
        return f"unknown {noun}; none is known here"
    # Cut off first: the comparison takes longer the longer the name is.
    meant = difflib.get_close_matches(excerpt(name).lower(), known, n=1)
    if meant:
        return f"unknown {noun}; did you mean {meant[0]}?"
    return f"unknown {noun}; known are {', '.join(known)}"


def _message(detail: Any) -> str:
    """Return our words for what pydantic found."""
    bounds = detail.get("ctx", {})
    messages = {
        "missing": "is required",
        "greater_than_equal": f"must be {bounds.get('ge')} or more",
        "less_than_equal": f"must be {bounds.get('le')} or less",
        "bool_type": "must be true or false",
        "float_type": "must be a number, written without quotes",
        "int_type": "must be a whole number, written without quotes or a fraction",
        "string_type": "must be a string",
        "list_type": "must be a list",
        "dict_type": "must be an object",
        "string_too_long": f"must have at most {bounds.get('max_length')} characters",
        "literal_error": f"must be {bounds.get('expected')}",
        "model_type": "must be a JSON object",
    }
    message: str = messages.get(detail["type"], detail["msg"])
    return message
