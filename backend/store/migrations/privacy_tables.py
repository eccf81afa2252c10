"""Migration steps for erasure and pruning in both files: tombstones, consent, highest revisions.

A shipped step is never edited.
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
"""``left_to_do`` and ``user_id`` are set only during an erasure, so that the next start can finish it."""

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
"""``pruned.before``: activities before this time (milliseconds since 1970; 0: nothing was pruned) may be missing, so
nothing may be recalculated from them."""


def _keep_revision(conn: sqlite3.Connection, table: str) -> None:
    """Store the highest revision when its row is deleted: stream positions are revisions and must never be reused."""
    conn.execute(
        f"CREATE TRIGGER {table}_revision_kept AFTER DELETE ON {table} "
        f"WHEN OLD.revision > COALESCE((SELECT MAX(revision) FROM {table}), 0) "
        "BEGIN UPDATE highest_revision SET revision = MAX(revision, OLD.revision); END"
    )


def privacy_of_activities(conn: sqlite3.Connection) -> None:
    """Add tombstones, consent and pruning to ``user_activities.db``."""
    for statement in (_TOMBSTONES + ";\n" + _CONSENTS).split(";\n"):
        conn.execute(statement)
    _keep_revision(conn, "user_sessions")


def privacy_of_notifications(conn: sqlite3.Connection) -> None:
    """Add tombstones to ``notifications.db``."""
    for statement in _TOMBSTONES.split(";\n"):
        conn.execute(statement)
    _keep_revision(conn, "notifications")
