"""Steps of the schema of ``notifications.db`` for its lists. A step that shipped is never edited."""

from __future__ import annotations

import sqlite3


def number_types_and_keys(conn: sqlite3.Connection) -> None:
    """Number types and keys by their age: two of one millisecond have no order by time."""
    for table in ("notification_types", "api_keys"):
        conn.execute(f"ALTER TABLE {table} ADD COLUMN seq INTEGER NOT NULL DEFAULT 0")
        conn.execute(
            f"UPDATE {table} SET seq = n.seq FROM "
            f"(SELECT name, row_number() OVER (ORDER BY created_at, name) AS seq FROM {table}) n "
            f"WHERE {table}.name = n.name"
        )
        conn.execute(f"CREATE UNIQUE INDEX {table}_seq ON {table} (seq)")


def add_search_state(conn: sqlite3.Connection) -> None:
    """Up to which row the search index goes; it is made at the opening, where SQLite can make one."""
    conn.execute("CREATE TABLE search_state (indexed_to INTEGER)")
    conn.execute("INSERT INTO search_state VALUES (NULL)")
