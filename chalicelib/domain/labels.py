"""Labels: the words that a client gives its timers, to find them again."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_LABELS = 5
MAX_LABEL_CHARACTERS = 64

LABEL_PATTERN = rf"^[A-Za-z0-9._:/@-]{{1,{MAX_LABEL_CHARACTERS}}}$"
_LABEL = re.compile(LABEL_PATTERN.strip("^$"), re.ASCII)


def check_label(label: str) -> str:
    """Return a label. Raises ``ValueError`` if it cannot be one."""
    if not _LABEL.fullmatch(label):
        raise ValueError(
            f"a label has 1 to {MAX_LABEL_CHARACTERS} characters of A-Z, a-z, 0-9 and ._:/@-"
        )
    return label


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of one timer. Raises ``ValueError``."""
    if len(labels) > MAX_LABELS:
        raise ValueError(f"a timer has at most {MAX_LABELS} labels")
    if len(set(labels)) < len(labels):
        raise ValueError("the same label is given more than once")
    return tuple(check_label(label) for label in labels)
