"""The JSON texts of clients, read more strictly than Python reads them (RFC 8259, RFC 7493). Pure.

Python keeps the last of several members with one name, reads any Unicode encoding and halves of
surrogate pairs, and fails with other errors on long numbers and deep nesting.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.errors import MalformedBody

MAX_DEPTH = 200
"""How deep lists and objects may nest. No valid request comes near it."""

MAX_DIGITS = 40
"""The digits of an integer that are read. Every limit of ours has far fewer."""

_UTF8_BOM = b"\xef\xbb\xbf"
# A string that is not closed matches to the end, so that no search begins inside it.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonDocument:
    """A JSON value, and the names that one of its objects has more than once, at any depth."""

    value: Any
    repeated: tuple[str, ...]

    def repeated_in(self, part: Any) -> tuple[str, ...]:
        """Return the names that an object in ``part`` of the value has more than once."""
        if not self.repeated:  # nearly always
            return ()
        return tuple(dict.fromkeys(_repeated_in(part)))


class _Object(dict[str, Any]):
    """An object that has some names more than once."""

    def __init__(self, members: Iterable[tuple[str, Any]], repeated: Sequence[str]) -> None:
        super().__init__(members)
        self.repeated = repeated


def read(body: bytes) -> JsonDocument:
    """Return the JSON document in ``body``. Raises ``MalformedBody``.

    Of a name that is given twice, the last value counts. An integer of more than ``MAX_DIGITS``
    digits becomes a shorter one, which has the same sign and is beyond every limit. ``1e400``,
    ``NaN`` and ``Infinity`` become floats, so that a field can refuse them by name.
    """
    text = _decoded(body)
    if _too_deep(text):
        raise _malformed(f"lists and objects may nest {MAX_DEPTH} deep")
    repeated: dict[str, None] = {}

    def to_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(members)
        if len(value) < len(members):
            counts = Counter(name for name, _ in members)
            value = _Object(members, [name for name, count in counts.items() if count > 1])
            repeated.update(dict.fromkeys(value.repeated))
        return value

    try:
        value = json.loads(text, object_pairs_hook=to_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    _require_unicode(text, value)
    return JsonDocument(value, tuple(repeated))


def _repeated_in(part: Any) -> Iterator[str]:
    if isinstance(part, _Object):
        yield from part.repeated
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _repeated_in(each)


def _decoded(body: bytes) -> str:
    if not body.strip():
        raise _malformed("the body is empty")
    if body.startswith(_UTF8_BOM):
        raise _malformed("it begins with a byte order mark; send UTF-8 without one")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _malformed(f"byte {error.start} is not UTF-8") from error


def _too_deep(text: str) -> bool:
    """Tell whether lists and objects nest too deep in ``text``, which need not be valid JSON."""
    # Python's reader calls itself for each level. How many levels it survives depends on the
    # version and on the stack of the thread, so the limit is checked before it starts.
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif match[0] in "]}":
            depth -= 1
    return False


def _integer(digits: str) -> int:
    # Python refuses to read thousands of digits (CVE-2020-10735).
    return int(digits[:MAX_DIGITS])


def _require_unicode(text: str, value: Any) -> None:
    """Raise ``MalformedBody`` if a string has half of a surrogate pair, which is no character."""
    # Only an escape can write one: the decoder has refused its UTF-8 form already.
    if "\\ud" not in text and "\\uD" not in text:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _malformed("a \\u escape is half of a surrogate pair") from error


def _malformed(reason: str) -> MalformedBody:
    return MalformedBody(f"The body must be JSON: {reason}")
