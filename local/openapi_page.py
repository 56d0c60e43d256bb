"""docs/openapi.yaml: the OpenAPI document as YAML."""

from __future__ import annotations

from typing import Any

import yaml

from app import api
from chalicelib.rest.openapi import document
from chalicelib.settings import load

PATH = "docs/openapi.yaml"

_HEADER = "# Written by `make docs` from the routes, models and errors in the code. Do not edit.\n"


def render() -> str:
    """Return the document."""
    text: str = yaml.dump(
        document(api.routes_of(load({}))),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    return _HEADER + text


class _Dumper(yaml.SafeDumper):
    """Writes paragraphs as blocks, and a value that occurs twice both times in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)
