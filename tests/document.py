"""The OpenAPI document, as the tests read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from infra.package import ROOT

PATH = ROOT / "docs" / "openapi.yaml"
METHODS = ("get", "post", "patch", "delete")


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
    """Return what ``node`` refers to, or itself."""
    if "$ref" not in node:
        return node
    found: Any = document
    for name in node["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return resolved(document, found)


def without_keys() -> dict[str, Any]:
    """Return the document as it holds where no caller needs a key."""
    document = read()
    for operation in operations(document):
        operation.definition.pop("security", None)
    return document
