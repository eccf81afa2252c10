"""Migration steps of ``notifications.db`` for lists. A shipped step is never edited."""

from __future__ import annotations

import sqlite3


def number_types_and_keys(conn: sqlite3.Connection) -> None:
    """Number types and keys by age: the time alone gives no order within a millisecond."""
    for table in ("notification_types", "api_keys"):
        conn.execute(f"ALTER TABLE {table} ADD COLUMN seq INTEGER NOT NULL DEFAULT 0")
        conn.execute(
            f"UPDATE {table} SET seq = n.seq FROM "
            f"(SELECT name, row_number() OVER (ORDER BY created_at, name) AS seq FROM {table}) n "
            f"WHERE {table}.name = n.name"
        )
        conn.execute(f"CREATE UNIQUE INDEX {table}_seq ON {table} (seq)")


def add_search_state(conn: sqlite3.Connection) -> None:
    """Store up to which row the search index goes. Opening the file creates the index if SQLite supports it."""
    conn.execute("CREATE TABLE search_state (indexed_to INTEGER)")
    conn.execute("INSERT INTO search_state VALUES (NULL)")
