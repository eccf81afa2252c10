"""The table ``api_keys`` in ``notifications.db``: hashed keys with their scopes."""

from __future__ import annotations

import sqlite3
from typing import Any

Row = tuple[str, str, int, int | None]
"""Name, scopes as JSON, created and revoked in milliseconds since 1970."""

_PUBLIC = "name, scopes, created_at, revoked_at"


def list_keys(conn: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Return every key by name: its sequence number, then a Row."""
    return conn.execute(f"SELECT seq, {_PUBLIC} FROM api_keys ORDER BY name").fetchall()


def active_keys(conn: sqlite3.Connection) -> list[tuple[bytes, str, str]]:
    """Return hash, name and scopes (JSON) of the keys in use."""
    return conn.execute("SELECT hash, name, scopes FROM api_keys WHERE revoked_at IS NULL").fetchall()


def insert_key(conn: sqlite3.Connection, name: str, digest: bytes, scopes: str, now_ms: int) -> Row | None:
    """Insert a key, or replace a revoked one of that name; return None where the name is in use."""
    row: Row | None = conn.execute(
        "INSERT INTO api_keys (name, hash, scopes, created_at, seq) "
        "VALUES (?, ?, ?, ?, (SELECT COALESCE(MAX(seq), 0) + 1 FROM api_keys)) "
        "ON CONFLICT DO UPDATE SET hash = excluded.hash, scopes = excluded.scopes, "
        "created_at = excluded.created_at, seq = excluded.seq, revoked_at = NULL WHERE revoked_at IS NOT NULL "
        f"RETURNING {_PUBLIC}",
        (name, digest, scopes, now_ms),
    ).fetchone()
    return row


def revoke_key(conn: sqlite3.Connection, name: str, now_ms: int) -> Row | None:
    """Revoke the key in use of that name; return None where there is none."""
    row: Row | None = conn.execute(
        f"UPDATE api_keys SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL RETURNING {_PUBLIC}",
        (now_ms, name),
    ).fetchone()
    return row
