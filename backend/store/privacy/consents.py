"""Consent: each user's own choice about tracking."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from flashflow.backend.core.encoding import to_json
from flashflow.backend.store.engine.writer import Tx


def consent_of(conn: sqlite3.Connection, user_id: str) -> tuple[bool, int] | None:
    """Return the user's choice and its time (milliseconds since 1970)."""
    row = conn.execute("SELECT tracking, updated_at FROM consents WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else (bool(row[0]), row[1])


def save_consent(tx: Tx, user_id: str, tracking: bool) -> None:
    """Store the user's choice; it replaces an earlier one."""
    tx.conn.execute(
        "INSERT INTO consents (user_id, tracking, updated_at) VALUES (?, ?, ?) "
        "ON CONFLICT DO UPDATE SET tracking = excluded.tracking, updated_at = excluded.updated_at",
        (user_id, tracking, tx.now_ms),
    )


def any_refusals(conn: sqlite3.Connection) -> tuple[bool, bool]:
    """Return whether any user was erased and whether any user refused tracking. Runs once in every transaction."""
    erased, refused = conn.execute(_ANY).fetchone()
    return bool(erased), bool(refused)


_ANY = "SELECT EXISTS (SELECT 1 FROM tombstones), EXISTS (SELECT 1 FROM consents WHERE tracking = 0)"


def users_who_chose(conn: sqlite3.Connection, tracking: bool, user_ids: Iterable[str]) -> frozenset[str]:
    """Return the members of ``user_ids`` whose own choice is ``tracking``."""
    rows = conn.execute(
        "SELECT user_id FROM consents WHERE tracking = ? AND user_id IN (SELECT value FROM json_each(?))",
        (tracking, to_json(sorted(user_ids))),
    )
    return frozenset(user_id for (user_id,) in rows)
