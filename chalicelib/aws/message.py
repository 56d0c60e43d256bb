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
"""The format that this version writes and reads. Messages of two versions meet at a deployment."""

MAX_TENANT_CHARACTERS = 255
NUMBER_LIMIT = 2**63
"""Ids, versions and times are below this. A store would refuse a larger one at every try."""


def encode(wakeup: Wakeup) -> str:
    """Return ``wakeup`` as JSON."""
    fields = [FORMAT, wakeup.tenant, wakeup.id, wakeup.version, wakeup.at]
    if wakeup.put_backs:
        # Beside the fields, whose number never changes: earlier versions read the message too.
        return json.dumps({"wakeup": fields, "put_backs": wakeup.put_backs}, separators=(",", ":"))
    return json.dumps({"wakeup": fields}, separators=(",", ":"))


def decode(text: str) -> Wakeup:
    """Return the wake-up in ``text``. Raises ``ValueError`` if it is not one."""
    try:
        return read(json.loads(text))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def decode_all(texts: Iterable[str], meter: Meter) -> list[Wakeup]:
    """Return the wake-ups in ``texts``. Any other text is logged, counted and dropped."""
    wakeups = []
    for text in texts:
        try:
            wakeups.append(decode(text))
        except ValueError as error:
            # Raised, it would fail the batch, and with it the valid wake-ups, on every try.
            log.error("a message is dropped: %s", error)
            meter(Metric.DROPPED, 1)
    return wakeups


def read(document: Any) -> Wakeup:
    """Return the wake-up in a parsed document. Raises ``ValueError`` if it is not one."""
    fields = document.get("wakeup") if isinstance(document, dict) else None
    types = (int, str, int, int, int)
    # ``type`` rather than ``isinstance``: JSON's true is an int too.
    if not isinstance(fields, list) or tuple(type(field) for field in fields) != types:
        raise ValueError("not a wake-up")
    format_, tenant, timer_id, version, at = fields
    if format_ != FORMAT:
        raise ValueError(f"a wake-up of format {format_}, which this version does not read")
    if not all(0 <= value < NUMBER_LIMIT for value in (timer_id, version, at)):
        raise ValueError("a wake-up with a number that is out of range")
    if not tenant.isprintable() or not 0 < len(tenant) <= MAX_TENANT_CHARACTERS:
        raise ValueError("a wake-up with an invalid name of a tenant")
    put_backs = document.get("put_backs", 0)
    if type(put_backs) is not int or not 0 <= put_backs < NUMBER_LIMIT:
        raise ValueError("a wake-up with a number that is out of range")
    return Wakeup(tenant=tenant, id=timer_id, version=version, at=at, put_backs=put_backs)
