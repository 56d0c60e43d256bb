"""The trace of a run, for people to read and for machines to compare."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.invariants.violation import InvariantViolation
from tests.support.clock import START

_EPOCH_MS = re.compile(r"\b1[789]\d{11}(\.\d+)?\b")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened at a time (epoch ms), in a process or in the simulator."""

    at: float
    who: str
    what: str
    about: tuple[object, ...]

    def __str__(self) -> str:
        about = " ".join(map(shown, self.about))
        return f"{_since_start(self.at):>12}  {self.who:<10} {self.what:<26} {about}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of one run: its trace, and the invariant that it violated, if any."""

    seed: int
    violation: InvariantViolation | None
    trace: Sequence[Event]
    counts: Counter[str]
    """How many timers were requested, webhooks received, faults injected, and so on."""

    def digest(self) -> str:
        """Return a hash of the trace: equal for two runs of the same seed."""
        return hashlib.sha256("\n".join(map(str, self.trace)).encode()).hexdigest()[:16]


def shown(value: object) -> str:
    """Return a value as short text: times count from the start, default values are left out."""
    if dataclasses.is_dataclass(value) and type(value).__str__ is object.__str__:
        fields = [
            f"{field.name}={shown(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        ]
        return f"{type(value).__name__}({' '.join(fields)})"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(shown, value))}]"
    return _EPOCH_MS.sub(lambda found: _since_start(float(found[0])), str(value))


def _since_start(epoch_ms: float) -> str:
    return f"+{(epoch_ms - START) / 1000:.4f}s"
