"""Responses stored for Idempotency-Keys: the same table in both databases."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from flashflow.backend.store.engine.write_command import Tx

REMEMBER_MS = 24 * 60 * 60 * 1000
"""How long an Idempotency-Key is honoured."""

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


class StoredResponse(NamedTuple):
    """The response to the first request with an Idempotency-Key; ``fingerprint`` is that request's SHA-256."""

    fingerprint: bytes
    status: int
    body: bytes


def find_response(conn: sqlite3.Connection, app: str, key: str, since_ms: int) -> StoredResponse | None:
    """Return the response stored under the app's ``key`` after ``since_ms``, if any."""
    row = conn.execute(
        "SELECT fingerprint, status, body FROM idempotency_keys WHERE app = ? AND key = ? AND created_at > ?",
        (app, key, since_ms),
    ).fetchone()
    return None if row is None else StoredResponse(bytes(row[0]), row[1], bytes(row[2]))


def store_response(tx: Tx, app: str, key: str, response: StoredResponse) -> None:
    """Store ``response`` under the app's ``key``, in place of an expired one."""
    tx.conn.execute(
        "INSERT OR REPLACE INTO idempotency_keys (app, key, fingerprint, status, body, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (app, key, *response, tx.now_ms),
    )


def delete_expired_responses(tx: Tx) -> None:
    """Delete the responses stored more than REMEMBER_MS ago."""
    tx.conn.execute("DELETE FROM idempotency_keys WHERE created_at < ?", (tx.now_ms - REMEMBER_MS,))
