"""What happened in a history, for people to read and for machines to compare."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.clock import START

_MOMENT = re.compile(r"\b1[789]\d{11}(\.\d+)?\b")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, at a moment (epoch ms), in a process or around them."""

    at: float
    who: str
    what: str
    about: tuple[object, ...]

    def __str__(self) -> str:
        about = " ".join(map(shown, self.about))
        return f"{_since(self.at):>12}  {self.who:<10} {self.what:<26} {about}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of one history. ``broken``: the rule that it broke, if it broke one."""

    seed: int
    broken: BaseException | None
    trace: Sequence[Event]
    counted: Counter[str]

    def digest(self) -> str:
        """Return what two runs of one history have in common, and hardly two others."""
        return hashlib.sha256("\n".join(map(str, self.trace)).encode()).hexdigest()[:16]


def shown(value: object) -> str:
    """Return a value in few words: moments from the start of the test on, no defaults."""
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
    return _MOMENT.sub(lambda found: _since(float(found[0])), str(value))


def _since(moment: float) -> str:
    return f"+{(moment - START) / 1000:.4f}s"
