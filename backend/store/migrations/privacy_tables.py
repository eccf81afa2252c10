"""What both files keep so that their rows can go: tombstones, consent, and counters that outlive the rows they count.

Each function here is one step of its file's migrations. A step that shipped is never edited.
"""

from __future__ import annotations

import sqlite3

_TOMBSTONES = """
CREATE TABLE tombstones (
    user_hash BLOB PRIMARY KEY,
    erased_at INTEGER NOT NULL,
    left_to_do TEXT,
    user_id TEXT
) WITHOUT ROWID;
CREATE TABLE tombstone_salt (salt BLOB NOT NULL);
INSERT INTO tombstone_salt VALUES (randomblob(32));
CREATE TABLE highest_revision (revision INTEGER NOT NULL);
INSERT INTO highest_revision VALUES (0)
"""
"""``left_to_do`` and ``user_id`` stand only while an erasure is under way: what a killed process has to finish."""

_CONSENTS = """
CREATE TABLE consents (
    user_id TEXT PRIMARY KEY,
    tracking INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX consents_refused ON consents (user_id) WHERE tracking = 0;
CREATE TABLE pruned (before INTEGER NOT NULL);
INSERT INTO pruned VALUES (0)
"""
"""``pruned.before``: activities older than this time are no longer all there, so nothing may be counted from them
again (milliseconds since 1970; 0: nothing was pruned)."""


def _keep_revision(conn: sqlite3.Connection, table: str) -> None:
    """An event stream's place is a revision: one that was given must never be given again, though its row goes."""
    conn.execute(
        f"CREATE TRIGGER {table}_revision_kept AFTER DELETE ON {table} "
        f"WHEN OLD.revision > COALESCE((SELECT MAX(revision) FROM {table}), 0) "
        "BEGIN UPDATE highest_revision SET revision = MAX(revision, OLD.revision); END"
    )


def privacy_of_activities(conn: sqlite3.Connection) -> None:
    """``user_activities.db``: rows can be erased and pruned, and consent is kept."""
    for statement in (_TOMBSTONES + ";\n" + _CONSENTS).split(";\n"):
        conn.execute(statement)
    _keep_revision(conn, "user_sessions")


def privacy_of_notifications(conn: sqlite3.Connection) -> None:
    """``notifications.db``: rows can be erased and pruned."""
    for statement in _TOMBSTONES.split(";\n"):
        conn.execute(statement)
    _keep_revision(conn, "notifications")
