"""Schema of ``notifications.db`` as migration steps. A shipped step is never edited.

Times are milliseconds since 1970 (UTC). ``revision`` grows with every change of a notification, so that an event stream
can read later changes. Triggers update the unread counts, so that no write path can miss them.
"""

from __future__ import annotations

import sqlite3

from flashflow.backend.store.engine.damaged_text import mark_damaged_rows
from flashflow.backend.store.engine.idempotency import IDEMPOTENCY_DDL
from flashflow.backend.store.migrations.devices import devices_by_identity
from flashflow.backend.store.migrations.lists import add_search_state, number_types_and_keys
from flashflow.backend.store.migrations.privacy_tables import privacy_of_notifications

_TABLES = """
CREATE TABLE notifications (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    user_id TEXT NOT NULL,
    app TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    notification_type TEXT NOT NULL,
    channels TEXT NOT NULL,
    priority TEXT NOT NULL,
    status TEXT NOT NULL,
    inbox TEXT,
    data TEXT,
    actions TEXT,
    device_tokens TEXT,
    collapse_key TEXT,
    created_at INTEGER NOT NULL,
    scheduled_at INTEGER,
    expires_at INTEGER,
    sent_at INTEGER,
    delivered_at INTEGER,
    read_at INTEGER,
    archived_at INTEGER,
    revision INTEGER NOT NULL
);
CREATE UNIQUE INDEX notifications_id ON notifications (id);
CREATE INDEX notifications_user ON notifications (user_id, seq);
CREATE INDEX notifications_inbox ON notifications (user_id, inbox, seq);
CREATE INDEX notifications_created ON notifications (created_at);
CREATE INDEX notifications_scheduled ON notifications (scheduled_at) WHERE status = 'scheduled';
CREATE INDEX notifications_expiring ON notifications (expires_at)
    WHERE expires_at IS NOT NULL AND status IN ('scheduled', 'pending', 'sent', 'delivered');
CREATE UNIQUE INDEX notifications_revision ON notifications (revision);

CREATE TABLE inbox_counts (
    user_id TEXT NOT NULL,
    app TEXT NOT NULL,
    unread INTEGER NOT NULL,
    PRIMARY KEY (user_id, app)
) WITHOUT ROWID;

CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    notification_seq INTEGER NOT NULL REFERENCES notifications (seq) ON DELETE CASCADE,
    channel TEXT NOT NULL,
    device_seq INTEGER,
    status TEXT NOT NULL,
    code TEXT,
    reason TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    next_attempt_at INTEGER,
    lease_until INTEGER,
    tries INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX deliveries_id ON deliveries (id);
CREATE INDEX deliveries_notification ON deliveries (notification_seq);
CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE status = 'pending';
CREATE INDEX deliveries_leased ON deliveries (lease_until) WHERE status = 'sending';

CREATE TABLE delivery_attempts (
    seq INTEGER PRIMARY KEY,
    delivery_seq INTEGER NOT NULL REFERENCES deliveries (seq) ON DELETE CASCADE,
    started_at INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    code TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX delivery_attempts_delivery ON delivery_attempts (delivery_seq);

CREATE TABLE notification_preferences (
    user_id TEXT NOT NULL,
    notification_type TEXT NOT NULL,
    channel TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, notification_type, channel)
) WITHOUT ROWID;

CREATE TABLE notification_types (
    name TEXT PRIMARY KEY,
    label TEXT NOT NULL,
    description TEXT NOT NULL,
    channels TEXT NOT NULL,
    critical INTEGER NOT NULL,
    digest TEXT,
    app TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE notification_templates (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    locale TEXT NOT NULL,
    title_template TEXT NOT NULL,
    message_template TEXT NOT NULL,
    channels TEXT NOT NULL,
    category TEXT,
    data_schema TEXT,
    app TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX notification_templates_name ON notification_templates (name, locale);

CREATE TABLE device_tokens (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    user_id TEXT NOT NULL,
    token TEXT NOT NULL,
    platform TEXT NOT NULL,
    device_info TEXT,
    is_active INTEGER NOT NULL,
    app TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_used_at INTEGER
);
CREATE UNIQUE INDEX device_tokens_token ON device_tokens (token);
CREATE INDEX device_tokens_user ON device_tokens (user_id);

CREATE TABLE api_keys (
    name TEXT PRIMARY KEY,
    hash BLOB NOT NULL,
    scopes TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) WITHOUT ROWID;
"""

_BUMP = (
    "INSERT INTO inbox_counts (user_id, app, unread) VALUES ({row}.user_id, {row}.app, {by}) "
    "ON CONFLICT DO UPDATE SET unread = unread + {by};"
)

_TRIGGERS = (
    "CREATE TRIGGER inbox_counts_insert AFTER INSERT ON notifications WHEN NEW.inbox = 'unread' "
    f"BEGIN {_BUMP.format(row='NEW', by='1')} END",
    "CREATE TRIGGER inbox_counts_delete AFTER DELETE ON notifications WHEN OLD.inbox = 'unread' "
    f"BEGIN {_BUMP.format(row='OLD', by='-1')} END",
    "CREATE TRIGGER inbox_counts_enter AFTER UPDATE OF inbox ON notifications "
    f"WHEN NEW.inbox = 'unread' AND OLD.inbox IS NOT 'unread' BEGIN {_BUMP.format(row='NEW', by='1')} END",
    "CREATE TRIGGER inbox_counts_leave AFTER UPDATE OF inbox ON notifications "
    f"WHEN OLD.inbox = 'unread' AND NEW.inbox IS NOT 'unread' BEGIN {_BUMP.format(row='OLD', by='-1')} END",
)


def _v1(conn: sqlite3.Connection) -> None:
    for statement in (_TABLES + IDEMPOTENCY_DDL).split(";\n"):
        conn.execute(statement)
    for trigger in _TRIGGERS:
        conn.execute(trigger)


_DELIVERY_BY_ROUTE = """
ALTER TABLE notifications ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
ALTER TABLE notifications ADD COLUMN snoozed_until INTEGER;
CREATE INDEX notifications_collapse ON notifications (user_id, app, collapse_key) WHERE collapse_key IS NOT NULL;
CREATE INDEX notifications_snoozed ON notifications (snoozed_until) WHERE snoozed_until IS NOT NULL;

ALTER TABLE deliveries ADD COLUMN route TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN release_at INTEGER;
ALTER TABLE deliveries ADD COLUMN carrier_seq INTEGER;
UPDATE deliveries SET route = CASE channel WHEN 'push' THEN 'desktop' WHEN 'in_app' THEN '' ELSE channel END;
DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (route, next_attempt_at)
    WHERE status = 'pending' AND next_attempt_at IS NOT NULL;
CREATE INDEX deliveries_held ON deliveries (release_at) WHERE status = 'held';
CREATE INDEX deliveries_carried ON deliveries (carrier_seq) WHERE carrier_seq IS NOT NULL;

ALTER TABLE notification_types ADD COLUMN category TEXT;
ALTER TABLE notification_types ADD COLUMN asks_critical INTEGER NOT NULL DEFAULT 0;
ALTER TABLE notification_types ADD COLUMN digest_at TEXT;
ALTER TABLE notification_types ADD COLUMN throttle TEXT;
ALTER TABLE notification_types ADD COLUMN failover TEXT;

CREATE TABLE contacts (
    user_id TEXT PRIMARY KEY,
    email TEXT,
    phone TEXT,
    locale TEXT,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE quiet_hours (
    user_id TEXT PRIMARY KEY,
    enabled INTEGER NOT NULL DEFAULT 0,
    start_time TEXT NOT NULL DEFAULT '22:00',
    end_time TEXT NOT NULL DEFAULT '07:00',
    timezone TEXT,
    days TEXT,
    dnd_until INTEGER,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE digests (
    user_id TEXT NOT NULL,
    notification_type TEXT NOT NULL,
    frequency TEXT NOT NULL,
    at TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, notification_type)
) WITHOUT ROWID;

CREATE TABLE throttles (
    user_id TEXT NOT NULL,
    notification_type TEXT NOT NULL,
    channel TEXT NOT NULL,
    times TEXT NOT NULL,
    PRIMARY KEY (user_id, notification_type, channel)
) WITHOUT ROWID;

CREATE TABLE schedules (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    app TEXT NOT NULL,
    request TEXT NOT NULL,
    rule TEXT NOT NULL,
    next_at INTEGER,
    last_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX schedules_id ON schedules (id);
CREATE UNIQUE INDEX schedules_name ON schedules (app, name);
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL;
"""


def _v2(conn: sqlite3.Connection) -> None:
    """Give deliveries a route with its own queue; let them be held and bundled in a digest."""
    for statement in _DELIVERY_BY_ROUTE.split(";\n"):
        conn.execute(statement)


_DECIDED_AGAIN = """
ALTER TABLE notifications ADD COLUMN category TEXT;
ALTER TABLE deliveries ADD COLUMN in_turn INTEGER NOT NULL DEFAULT 0;
DROP INDEX notifications_expiring;
CREATE INDEX notifications_expiring ON notifications (expires_at)
    WHERE expires_at IS NOT NULL AND status IN ('scheduled', 'pending', 'sent', 'delivered')
    AND inbox IS NOT 'archived';
"""


def _v3(conn: sqlite3.Connection) -> None:
    """Store the inputs of a later re-evaluation: the template's category and the fail-over state of a delivery. Leave
    archived notifications, which never expire, out of the index by expiry."""
    for statement in _DECIDED_AGAIN.split(";\n"):
        conn.execute(statement)


_RULES = """
CREATE TABLE rules (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    app TEXT NOT NULL,
    owner TEXT,
    enabled INTEGER NOT NULL,
    rule TEXT NOT NULL,
    after_seq INTEGER NOT NULL,
    checked_at INTEGER NOT NULL,
    fired INTEGER NOT NULL DEFAULT 0,
    last_fired_at INTEGER,
    last_error TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX rules_id ON rules (id);
CREATE UNIQUE INDEX rules_name ON rules (name, app);
CREATE INDEX rules_app ON rules (app);

CREATE TABLE rule_uses (
    rule_seq INTEGER NOT NULL REFERENCES rules (seq) ON DELETE CASCADE,
    user_id TEXT NOT NULL,
    times TEXT NOT NULL,
    fired_at INTEGER,
    useful_until INTEGER NOT NULL,
    PRIMARY KEY (rule_seq, user_id)
) WITHOUT ROWID;
CREATE INDEX rule_uses_over ON rule_uses (useful_until);
CREATE INDEX rule_uses_user ON rule_uses (user_id);

CREATE TABLE rule_mark (judged INTEGER NOT NULL, revision INTEGER NOT NULL);
INSERT INTO rule_mark VALUES (0, 0);
"""

_RULES_CHANGED = (
    "CREATE TRIGGER rules_{word} AFTER {event} ON rules BEGIN UPDATE rule_mark SET revision = revision + 1; END"
)


def _v4(conn: sqlite3.Connection) -> None:
    """Create rules, their state by user, their position in the activities, and a revision that triggers increment."""
    for statement in _RULES.split(";\n"):
        conn.execute(statement)
    for word, event in (
        ("insert", "INSERT"),
        ("delete", "DELETE"),
        ("update", "UPDATE OF name, app, owner, enabled, rule, after_seq"),
    ):
        conn.execute(_RULES_CHANGED.format(word=word, event=event))


def _v6(conn: sqlite3.Connection) -> None:
    """Drop the index by user: ``notifications_inbox`` serves the same queries, and every insert paid for both."""
    conn.execute("DROP INDEX notifications_user")


def _v7(conn: sqlite3.Connection) -> None:
    """Add the time of the next try to attempts."""
    conn.execute("ALTER TABLE delivery_attempts ADD COLUMN next_try_at INTEGER")


_LISTED_AT = """
ALTER TABLE notifications ADD COLUMN listed_at INTEGER NOT NULL DEFAULT 0;
UPDATE notifications SET listed_at = CASE WHEN status IN ('scheduled', 'cancelled') THEN created_at
    ELSE MAX(created_at, COALESCE(scheduled_at, 0)) END;
DROP INDEX notifications_inbox;
CREATE INDEX notifications_inbox ON notifications (user_id, inbox, listed_at);
DROP INDEX notifications_created;
CREATE INDEX notifications_listed ON notifications (listed_at);
"""


def _add_listed_at(conn: sqlite3.Connection) -> None:
    """Add ``listed_at``, the time by which lists and retention go: the last arrival in the inbox, or before
    that the time of storing. Every index ends with ``seq``, so (listed_at, seq) is a total order."""
    for statement in _LISTED_AT.split(";\n"):
        conn.execute(statement)


def _add_retry_age(conn: sqlite3.Connection) -> None:
    """Limit retries by age: add the time of the first try and the time until which retries continue."""
    conn.execute("ALTER TABLE deliveries ADD COLUMN tried_since INTEGER")
    conn.execute("ALTER TABLE deliveries ADD COLUMN retry_until INTEGER")


def _index_open_collapse_keys(conn: sqlite3.Connection) -> None:
    """Limit ``notifications_collapse`` to notifications that a collapse can update: a key may have 100,000
    read ones."""
    conn.execute("DROP INDEX notifications_collapse")
    conn.execute(
        "CREATE INDEX notifications_collapse ON notifications (user_id, app, collapse_key) WHERE collapse_key IS NOT "
        "NULL AND (read_at IS NULL OR inbox = 'snoozed') AND inbox IS NOT 'archived'"
    )


def _add_time_of_rule_errors(conn: sqlite3.Connection) -> None:
    """Add the time of a rule's last error, which stays until it is dismissed."""
    conn.execute("ALTER TABLE rules ADD COLUMN last_error_at INTEGER")
    conn.execute("UPDATE rules SET last_error_at = updated_at WHERE last_error IS NOT NULL")


NOTIFICATION_MIGRATIONS = (
    _v1, _v2, _v3, _v4, privacy_of_notifications, _v6, _v7, devices_by_identity, _add_listed_at,
    _add_retry_age, number_types_and_keys, _index_open_collapse_keys, _add_time_of_rule_errors, mark_damaged_rows,
    add_search_state,
)  # fmt: skip
