"""The OpenAPI document, read from its file, with functions that find their way in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema_rs
import yaml

from infra.package import ROOT

PATH = ROOT / "docs" / "openapi.yaml"
URN = "urn:webhook-timers:"
METHODS = ("get", "post", "put", "patch", "delete")


class Operation(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    definition: dict[str, Any]


def read() -> dict[str, Any]:
    """Return the document anew, so that a test may change it."""
    document: dict[str, Any] = yaml.safe_load(PATH.read_text())
    return document


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield Operation(method.upper(), path, item[method])


def resolved(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the document that ``node`` refers to, or ``node`` itself."""
    if "$ref" not in node:
        return node
    found: Any = document
    for name in node["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return resolved(document, found)


def without_keys() -> dict[str, Any]:
    """Return the document for a service without keys."""
    document = read()
    for operation in operations(document):
        operation.definition.pop("security", None)
    return document


def codes(document: dict[str, Any], response: dict[str, Any]) -> set[str]:
    """Return the codes of the errors that a response may carry."""
    content = response.get("content", {}).get("application/problem+json")
    if content is None:
        return set()
    if "oneOf" in content["schema"]:
        kinds = content["schema"]["oneOf"]
        parts = [{"content": {"application/problem+json": {"schema": kind}}} for kind in kinds]
        return set().union(*(codes(document, part) for part in parts))
    narrowed = content["schema"] if "properties" in content["schema"] else None
    kind = (narrowed or resolved(document, content["schema"]))["properties"]["type"]
    return {urn.removeprefix(URN) for urn in kind.get("enum") or [kind["const"]]}


def examples(content: dict[str, Any]) -> list[Any]:
    """Return the examples of a body: the only one, or all of several."""
    if "example" in content:
        return [content["example"]]
    return [example["value"] for example in content.get("examples", {}).values()]


def faults(document: dict[str, Any], schema: dict[str, Any], instance: Any) -> list[str]:
    """Return the faults of ``instance`` by ``schema``, which is a part of the document."""
    validator = jsonschema_rs.Draft202012Validator(
        {"components": document["components"], **schema}, validate_formats=True
    )
    return [error.message for error in validator.iter_errors(instance)]
