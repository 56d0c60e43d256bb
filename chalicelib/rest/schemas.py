"""The JSON schemas of request and response bodies, as the OpenAPI document has them.

pydantic writes them. Here they get the names that clients know, and lose empty information.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import TypeAdapter

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"

_NAMES = {
    "AttemptItem": "Attempt",
    "InvalidRequestProblem": "Faults",
    "ReplayResult": "Replayed",
    "StatusName": "Status",
    "TimerItem": "Timer",
}
"""The names of schemas that differ from the name of the type."""

_PLAIN_KEYWORDS = {"const", "default", "enum", "example", "examples", "required"}
"""Keywords whose value contains no schema."""


class Schemas:
    """The schemas of several types, and the named schemas that they refer to."""

    def __init__(self, kinds: Iterable[Any]) -> None:
        inputs: list[tuple[Any, Literal["validation"], TypeAdapter[Any]]] = [
            (kind, "validation", TypeAdapter(kind)) for kind in kinds
        ]
        found, definitions = TypeAdapter.json_schemas(inputs, ref_template=PREFIX + "{model}")
        named = {_name(name): _cleaned(schema) for name, schema in definitions["$defs"].items()}
        self._of = {kind: _cleaned(schema) for (kind, _mode), schema in found.items()}
        self.named = dict(sorted(named.items()))

    def of(self, kind: Any) -> Schema:
        """Return the schema of a type: a reference if the schema has a name."""
        return self._of[kind]


def schema_of(kind: Any) -> Schema:
    """Return the schema of one type, never as a reference to it."""
    return _cleaned(TypeAdapter(kind).json_schema(ref_template=PREFIX + "{model}"))


def prose(text: str) -> str:
    """Return the paragraphs of a docstring, each as one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n")).strip()


def _name(name: str) -> str:
    return _NAMES.get(name, name)


def _cleaned(schema: Schema) -> Schema:
    """Return ``schema`` with our names, closed objects, and neither titles nor null defaults."""
    cleaned: Schema = {}
    for keyword, value in schema.items():
        if keyword == "title" or (keyword == "default" and value is None):
            continue
        cleaned[keyword] = _cleaned_value(keyword, value)
    # Typed dictionaries do not say so, but our responses have no other fields.
    if "properties" in cleaned:
        cleaned.setdefault("additionalProperties", False)
    return _nullable(cleaned)


def _cleaned_value(keyword: str, value: Any) -> Any:
    if keyword == "$ref":
        return PREFIX + _name(value.removeprefix(PREFIX))
    if keyword in _PLAIN_KEYWORDS:
        return value
    if keyword == "description":
        return prose(value)
    if keyword == "properties":
        return {name: _cleaned(schema) for name, schema in value.items()}
    if isinstance(value, list):
        return [_cleaned(schema) for schema in value]
    return _cleaned(value) if isinstance(value, dict) else value


def _nullable(schema: Schema) -> Schema:
    """Return ``{"type": [T, "null"]}`` if ``schema`` is ``anyOf`` a plain type and null.

    It means the same and is shorter.
    """
    choices = schema.get("anyOf", [])
    if len(choices) != 2 or choices[1] != {"type": "null"} or "type" not in choices[0]:  # noqa: PLR2004
        return schema
    plain, _null = choices
    rest = {keyword: value for keyword, value in schema.items() if keyword != "anyOf"}
    nullable = {**plain, "type": [plain["type"], "null"], **rest}
    if "enum" in nullable:
        nullable["enum"] = [*nullable["enum"], None]
    return nullable
