"""A wake-up as it travels: the body of a queue message, and the input of a schedule."""

from __future__ import annotations

import json
from typing import Any

from chalicelib.timer import Wakeup

FORMAT = 1


def encode(wakeup: Wakeup) -> str:
    """Return ``wakeup`` as JSON."""
    fields = [FORMAT, wakeup.tenant, wakeup.id, wakeup.version, wakeup.at]
    return json.dumps({"wakeup": fields}, separators=(",", ":"))


def decode(text: str) -> Wakeup:
    """Return the wake-up in ``text``. Raises ``ValueError`` when it is none of ours."""
    try:
        return read(json.loads(text))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read(document: Any) -> Wakeup:
    """Return the wake-up in a parsed document. Raises ``ValueError`` when it is none of ours."""
    fields = document.get("wakeup") if isinstance(document, dict) else None
    kinds = (int, str, int, int, int)
    if not isinstance(fields, list) or tuple(type(field) for field in fields) != kinds:
        raise ValueError("not a wake-up")
    form, tenant, timer_id, version, at = fields
    if form != FORMAT:
        raise ValueError(f"a wake-up of format {form}, which this version does not read")
    return Wakeup(tenant=tenant, id=timer_id, version=version, at=at)
