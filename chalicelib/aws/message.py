"""The text of a wake-up: the body of a queue message, and the input of a schedule."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from chalicelib.domain.timer import Wakeup
from chalicelib.service.ports import Meter, Metric

log = logging.getLogger(__name__)

FORMAT = 1
MAX_TENANT_CHARACTERS = 255
NUMBER_LIMIT = 2**63
"""Ids, versions and times are below this. A store would refuse a larger one on every try."""


def encode(wakeup: Wakeup) -> str:
    """Return ``wakeup`` as JSON."""
    fields = [FORMAT, wakeup.tenant, wakeup.id, wakeup.version, wakeup.at]
    return json.dumps({"wakeup": fields}, separators=(",", ":"))


def decode(text: str) -> Wakeup:
    """Return the wake-up in ``text``. Raises ``ValueError`` when it is not one."""
    try:
        return read(json.loads(text))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def decode_all(texts: Iterable[str], meter: Meter) -> list[Wakeup]:
    """Return the wake-ups in ``texts``; any other text is counted and dropped."""
    wakeups = []
    for text in texts:
        try:
            wakeups.append(decode(text))
        except ValueError as error:
            log.error("a message is dropped: %s", error)
            meter(Metric.DROPPED, 1)
    return wakeups


def read(document: Any) -> Wakeup:
    """Return the wake-up in a parsed document. Raises ``ValueError`` when it is not one."""
    fields = document.get("wakeup") if isinstance(document, dict) else None
    kinds = (int, str, int, int, int)
    if not isinstance(fields, list) or tuple(type(field) for field in fields) != kinds:
        raise ValueError("not a wake-up")
    form, tenant, timer_id, version, at = fields
    if form != FORMAT:
        raise ValueError(f"a wake-up of format {form}, which this version does not read")
    if not all(0 <= value < NUMBER_LIMIT for value in (timer_id, version, at)):
        raise ValueError("a wake-up with a number that is out of range")
    if not tenant.isprintable() or not 0 < len(tenant) <= MAX_TENANT_CHARACTERS:
        raise ValueError("a wake-up of a tenant that cannot be")
    return Wakeup(tenant=tenant, id=timer_id, version=version, at=at)
