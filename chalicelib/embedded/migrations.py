"""The schema of the SQLite file, as the migrations that lead to it.

A migration that has been released never changes. A new one is appended.
"""

from __future__ import annotations

# The columns whose bytes count towards a quota, as in ``optional_fields.SIZED``. They are written
# out: a migration never changes.
_SIZED = (
    "url",
    "on_failure_url",
    "headers",
    "body",
    "content_type",
    "labels",
    "key",
    "idempotency_key",
)


def _bytes_of(row: str) -> str:
    return " + ".join(f"ifnull(length(CAST({row}.{column} AS BLOB)), 0)" for column in _SIZED)


MIGRATIONS = (
    # 1: timers. The due index has a claimed timer at the end of its lease, so the timer becomes
    # due again if its sender dies. An id is never used again because `tenants` outlives every
    # timer.
    """
    CREATE TABLE store (identity TEXT NOT NULL);
    CREATE TABLE tenants (tenant TEXT PRIMARY KEY, last_id INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE timers (
        tenant TEXT NOT NULL,
        id INTEGER NOT NULL,
        url TEXT NOT NULL,
        status TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        due_at INTEGER NOT NULL,
        version INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        next_attempt_at INTEGER,
        lease_until INTEGER,
        token TEXT,
        settled_at INTEGER,
        PRIMARY KEY (tenant, id)
    ) WITHOUT ROWID;
    CREATE INDEX due ON timers (coalesce(lease_until, next_attempt_at))
        WHERE next_attempt_at IS NOT NULL;
    CREATE INDEX leased ON timers (lease_until) WHERE lease_until IS NOT NULL;
    CREATE INDEX settled ON timers (settled_at) WHERE settled_at IS NOT NULL;
    CREATE INDEX failed ON timers (tenant, id) WHERE status = 'failed';
    """,
    # 2: a timer's own retry policy, the URL of its failure notice, and its attempt log.
    """
    ALTER TABLE timers ADD COLUMN max_attempts INTEGER;
    ALTER TABLE timers ADD COLUMN timeout_s INTEGER;
    ALTER TABLE timers ADD COLUMN on_failure_url TEXT;
    ALTER TABLE timers ADD COLUMN log TEXT;
    """,
    # 3: the due index by tenant, because tenants take turns. A timer whose receiver has no room is
    # held: it leaves that index for a queue of its receiver, so that it is not in the way.
    """
    ALTER TABLE timers ADD COLUMN held_for TEXT;
    DROP INDEX due;
    CREATE INDEX due ON timers (tenant, coalesce(lease_until, next_attempt_at))
        WHERE next_attempt_at IS NOT NULL AND held_for IS NULL;
    CREATE INDEX held ON timers (tenant, held_for, next_attempt_at) WHERE held_for IS NOT NULL;
    """,
    # 4: what each tenant has stored, for its quota. Triggers count every way in and out.
    """
    ALTER TABLE tenants ADD COLUMN timers INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tenants ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    INSERT INTO tenants (tenant, last_id, timers, bytes)
        SELECT tenant, max(id), count(*), sum(
            length(CAST(url AS BLOB)) + length(CAST(coalesce(on_failure_url, '') AS BLOB)))
        FROM timers WHERE true GROUP BY tenant
        ON CONFLICT (tenant) DO UPDATE SET timers = excluded.timers, bytes = excluded.bytes;
    CREATE TRIGGER stored AFTER INSERT ON timers BEGIN
        INSERT INTO tenants (tenant, last_id, timers, bytes)
            VALUES (new.tenant, 0, 1, length(CAST(new.url AS BLOB))
                + length(CAST(coalesce(new.on_failure_url, '') AS BLOB)))
            ON CONFLICT (tenant) DO UPDATE
            SET timers = timers + 1, bytes = bytes + excluded.bytes;
    END;
    CREATE TRIGGER removed AFTER DELETE ON timers BEGIN
        UPDATE tenants SET timers = timers - 1, bytes = bytes - length(CAST(old.url AS BLOB))
            - length(CAST(coalesce(old.on_failure_url, '') AS BLOB))
            WHERE tenant = old.tenant;
    END;
    """,
    # 5: the optional fields of a timer (``domain/optional_fields.py``), its labels, and the bytes
    # of both in the quota. At most one outstanding timer has a key. JSON texts have the labels.
    f"""
    ALTER TABLE timers ADD COLUMN retry_delays_ms TEXT;
    ALTER TABLE timers ADD COLUMN max_lateness_ms INTEGER;
    ALTER TABLE timers ADD COLUMN repeatable INTEGER;
    ALTER TABLE timers ADD COLUMN method TEXT;
    ALTER TABLE timers ADD COLUMN headers TEXT;
    ALTER TABLE timers ADD COLUMN body BLOB;
    ALTER TABLE timers ADD COLUMN content_type TEXT;
    ALTER TABLE timers ADD COLUMN append_id INTEGER;
    ALTER TABLE timers ADD COLUMN labels TEXT;
    ALTER TABLE timers ADD COLUMN key TEXT;
    ALTER TABLE timers ADD COLUMN no_later_than INTEGER;
    ALTER TABLE timers ADD COLUMN idempotency_key TEXT;
    ALTER TABLE timers ADD COLUMN request_digest BLOB;
    ALTER TABLE timers ADD COLUMN repeats INTEGER NOT NULL DEFAULT 0;
    CREATE UNIQUE INDEX keyed ON timers (tenant, key)
        WHERE key IS NOT NULL AND next_attempt_at IS NOT NULL;
    CREATE UNIQUE INDEX idempotent ON timers (tenant, idempotency_key)
        WHERE idempotency_key IS NOT NULL;
    CREATE TABLE labels (tenant TEXT NOT NULL, label TEXT NOT NULL, id INTEGER NOT NULL,
        PRIMARY KEY (tenant, label, id)) WITHOUT ROWID;
    DROP TRIGGER stored;
    CREATE TRIGGER stored AFTER INSERT ON timers BEGIN
        INSERT INTO tenants (tenant, last_id, timers, bytes)
            VALUES (new.tenant, 0, 1, {_bytes_of("new")})
            ON CONFLICT (tenant) DO UPDATE
            SET timers = timers + 1, bytes = bytes + excluded.bytes;
    END;
    DROP TRIGGER removed;
    CREATE TRIGGER removed AFTER DELETE ON timers BEGIN
        UPDATE tenants SET timers = timers - 1, bytes = bytes - ({_bytes_of("old")})
            WHERE tenant = old.tenant;
    END;
    CREATE TRIGGER changed AFTER UPDATE OF {", ".join(_SIZED)} ON timers BEGIN
        UPDATE tenants SET bytes = bytes - ({_bytes_of("old")}) + {_bytes_of("new")}
            WHERE tenant = new.tenant;
    END;
    CREATE TRIGGER labelled AFTER INSERT ON timers WHEN new.labels IS NOT NULL BEGIN
        INSERT INTO labels SELECT new.tenant, value, new.id FROM json_each(new.labels);
    END;
    CREATE TRIGGER unlabelled AFTER DELETE ON timers WHEN old.labels IS NOT NULL BEGIN
        DELETE FROM labels WHERE tenant = old.tenant AND id = old.id
            AND label IN (SELECT value FROM json_each(old.labels));
    END;
    CREATE TRIGGER relabelled AFTER UPDATE OF labels ON timers
            WHEN new.labels IS NOT old.labels BEGIN
        DELETE FROM labels WHERE tenant = old.tenant AND id = old.id
            AND label IN (SELECT value FROM json_each(old.labels));
        INSERT INTO labels SELECT new.tenant, value, new.id FROM json_each(new.labels);
    END;
    CREATE INDEX expired ON timers (tenant, id) WHERE status = 'expired';
    """,
    # 6: the test clock (``embedded/clock.py``). There is no row until the clock is moved.
    """
    CREATE TABLE clock (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        ahead_ms REAL NOT NULL,
        stopped_at REAL
    );
    """,
    # 6: the latest timer of a key, be it outstanding or settled.
    """
    CREATE INDEX latest_keyed ON timers (tenant, key, id) WHERE key IS NOT NULL;
    """,
)
