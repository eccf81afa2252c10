"""What both files have in common."""

from __future__ import annotations

import sqlite3

IDEMPOTENCY_DDL = """
CREATE TABLE idempotency_keys (
    app TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (app, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
"""

DAMAGED_ROWS_DDL = """
CREATE TABLE damaged_rows (
    table_name TEXT NOT NULL,
    row INTEGER NOT NULL,
    column_name TEXT NOT NULL,
    found_at INTEGER NOT NULL,
    PRIMARY KEY (table_name, row, column_name)
) WITHOUT ROWID
"""
"""Rows whose text was not UTF-8; ``row`` is the rowid, 0 in a table without: a key may be a person's id."""


def mark_damaged_rows(conn: sqlite3.Connection) -> None:
    """Rows whose text had to be replaced are marked, so that the owner can be told."""
    conn.execute(DAMAGED_ROWS_DDL)
