"""All due timers of a SQLite store, whichever tenant owns them."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.timer import Wakeup
from chalicelib.embedded.store import SQLiteTimerStore


def all_due(store: SQLiteTimerStore, now: int, limit: int) -> Sequence[Wakeup]:
    """Return at most ``limit`` wake-ups of due timers that can be claimed, earliest first."""
    found = [
        timer.wakeup
        for tenant, _ in store.next_due_by_tenant()
        for timer in store.due(tenant, now, limit)
    ]
    leases = {
        each: timer.lease.until if (timer := store.get(each.tenant, each.id)).lease else each.at
        for each in found
    }
    return sorted(found, key=leases.__getitem__)[:limit]
