"""Steps of ``notifications.db``. A landed step is never edited."""

from __future__ import annotations

import sqlite3

from flashflow.backend.store.migrations.devices import devices_by_identity
from flashflow.backend.store.migrations.stored_bytes import Report, as_bytes, is_text

_FROM_7 = """
ALTER TABLE notifications ADD COLUMN listed_at INTEGER NOT NULL DEFAULT 0;
UPDATE notifications SET listed_at = CASE WHEN status IN ('scheduled', 'cancelled') THEN created_at
    ELSE MAX(created_at, COALESCE(scheduled_at, 0)) END;
DROP INDEX notifications_inbox;
CREATE INDEX notifications_inbox ON notifications (user_id, inbox, listed_at);
DROP INDEX notifications_created;
CREATE INDEX notifications_listed ON notifications (listed_at);
DROP INDEX notifications_collapse;
CREATE INDEX notifications_collapse ON notifications (user_id, app, collapse_key) WHERE collapse_key IS NOT NULL
    AND (read_at IS NULL OR inbox = 'snoozed') AND inbox IS NOT 'archived';
ALTER TABLE deliveries ADD COLUMN tried_since INTEGER;
ALTER TABLE deliveries ADD COLUMN retry_until INTEGER;
ALTER TABLE notification_types ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
UPDATE notification_types SET seq = n.seq FROM
    (SELECT name, row_number() OVER (ORDER BY created_at, name) AS seq FROM notification_types) n
    WHERE notification_types.name = n.name;
CREATE UNIQUE INDEX notification_types_seq ON notification_types (seq);
ALTER TABLE api_keys ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
UPDATE api_keys SET seq = n.seq FROM
    (SELECT name, row_number() OVER (ORDER BY created_at, name) AS seq FROM api_keys) n
    WHERE api_keys.name = n.name;
CREATE UNIQUE INDEX api_keys_seq ON api_keys (seq);
ALTER TABLE rules ADD COLUMN last_error_at INTEGER;
UPDATE rules SET last_error_at = updated_at WHERE last_error IS NOT NULL;
CREATE TABLE damaged_rows (
    table_name TEXT NOT NULL,
    row INTEGER NOT NULL,
    column_name TEXT NOT NULL,
    found_at INTEGER NOT NULL,
    PRIMARY KEY (table_name, row, column_name)
) WITHOUT ROWID;
CREATE TABLE search_state (indexed_to INTEGER);
INSERT INTO search_state VALUES (NULL)
"""


def from_7(conn: sqlite3.Connection, report: Report) -> None:
    """Add the time by which lists go, limits of retries by age, numbers of types and keys by age, the time of a rule's
    error, marks of damaged rows and the state of the search index; identify devices by their provider address."""
    report("the time by which notifications are listed")
    for statement in _FROM_7.split(";\n"):
        conn.execute(statement)
    report("the identity of devices")
    devices_by_identity(conn)


_COUNT = (
    "CREATE TRIGGER inbox_counts_{name} AFTER {when} BEGIN INSERT INTO inbox_counts (user_id, app, unread) "
    "VALUES ({row}.user_id, {row}.app, {by}) ON CONFLICT (user_id, app) DO UPDATE SET unread = unread + {by}; END"
)
_COUNTS = (
    ("insert", "INSERT ON notifications WHEN NEW.inbox = 'unread'", "NEW", 1),
    ("delete", "DELETE ON notifications WHEN OLD.inbox = 'unread'", "OLD", -1),
    ("enter", "UPDATE OF inbox ON notifications WHEN NEW.inbox = 'unread' AND OLD.inbox IS NOT 'unread'", "NEW", 1),
    ("leave", "UPDATE OF inbox ON notifications WHEN OLD.inbox = 'unread' AND NEW.inbox IS NOT 'unread'", "OLD", -1),
)


def from_15(conn: sqlite3.Connection, report: Report) -> None:
    """Store every id as bytes; name the conflict that triggers resolve."""
    for table in ("notifications", "deliveries", "notification_templates", "device_tokens", "schedules", "rules"):
        report(f"ids of {table}")
        conn.execute(f"UPDATE {table} SET id = {as_bytes('id')} WHERE {is_text('id')}")
    for name, when, row, by in _COUNTS:
        conn.execute(f"DROP TRIGGER IF EXISTS inbox_counts_{name}")
        conn.execute(_COUNT.format(name=name, when=when, row=row, by=by))


def from_100(conn: sqlite3.Connection, report: Report) -> None:
    """Index the revisions of inboxes, so that a list reads no rows."""
    report("the index of inboxes")
    conn.execute("DROP INDEX IF EXISTS notifications_inbox")
    conn.execute("CREATE INDEX notifications_inbox ON notifications (user_id, inbox, listed_at, seq, revision)")


def from_101(conn: sqlite3.Connection, report: Report) -> None:
    """Add the tables of ``.flow`` projects."""
    report("the tables of .flow projects")
    for statement in _FLOW:
        conn.execute(statement)


_FLOW = (
    "CREATE TABLE flow_rows (seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, key TEXT NOT NULL, "
    "body TEXT, created_by TEXT, created_at INTEGER NOT NULL)",
    "CREATE UNIQUE INDEX flow_rows_key ON flow_rows (model, key)",
    "CREATE INDEX flow_rows_model ON flow_rows (model)",
    "CREATE INDEX flow_rows_created_by ON flow_rows (created_by) WHERE created_by IS NOT NULL",
    "CREATE TABLE flow_unique_values (model TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL, "
    "row_seq INTEGER NOT NULL, PRIMARY KEY (model, field, value), "
    "FOREIGN KEY (row_seq) REFERENCES flow_rows (seq) ON DELETE CASCADE) WITHOUT ROWID",
    "CREATE INDEX flow_unique_values_row ON flow_unique_values (row_seq)",
    "CREATE TABLE flow_jobs (name TEXT NOT NULL PRIMARY KEY, schedule TEXT NOT NULL, since INTEGER NOT NULL, "
    "last_at INTEGER, last_error TEXT) WITHOUT ROWID",
    "CREATE TABLE flow_declarations (kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID",
)


_RENAMES = """
ALTER TABLE deliveries RENAME COLUMN carrier_seq TO digest_seq;
ALTER TABLE deliveries RENAME COLUMN in_turn TO failed_over;
ALTER TABLE rule_mark RENAME COLUMN judged TO evaluated_to;
DROP INDEX IF EXISTS deliveries_carried;
CREATE INDEX deliveries_digest ON deliveries (digest_seq) WHERE digest_seq IS NOT NULL
"""
_SEARCH_TRIGGERS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'search!_%' ESCAPE '!'"


def from_102(conn: sqlite3.Connection, report: Report) -> None:
    """Name columns by the terms of the documentation."""
    report("names of columns")
    # ALTER TABLE reads every trigger and fails on those of an index that this SQLite does not support.
    triggers = conn.execute(_SEARCH_TRIGGERS).fetchall()
    for name, _ in triggers:
        conn.execute(f"DROP TRIGGER {name}")
    for statement in _RENAMES.split(";\n"):
        conn.execute(statement)
    for _, sql in triggers:
        conn.execute(sql)
