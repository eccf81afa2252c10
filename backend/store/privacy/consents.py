"""Who may be tracked: each user's own word, beside what the owner set for everybody."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from flashflow.backend.core.encoding import to_json
from flashflow.backend.store.engine.writer import Tx


def consent_of(conn: sqlite3.Connection, user_id: str) -> tuple[bool, int] | None:
    """What the user said and when (milliseconds since 1970)."""
    row = conn.execute("SELECT tracking, updated_at FROM consents WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else (bool(row[0]), row[1])


def save_consent(tx: Tx, user_id: str, tracking: bool) -> None:
    """Keep what the user said, over what they said before."""
    tx.conn.execute(
        "INSERT INTO consents (user_id, tracking, updated_at) VALUES (?, ?, ?) "
        "ON CONFLICT DO UPDATE SET tracking = excluded.tracking, updated_at = excluded.updated_at",
        (user_id, tracking, tx.now_ms),
    )


def any_turned_away(conn: sqlite3.Connection) -> tuple[bool, bool]:
    """Whether anybody was erased, and whether anybody said no: one look for every transaction."""
    erased, refused = conn.execute(_ANY).fetchone()
    return bool(erased), bool(refused)


_ANY = "SELECT EXISTS (SELECT 1 FROM tombstones), EXISTS (SELECT 1 FROM consents WHERE tracking = 0)"


def who_said(conn: sqlite3.Connection, tracking: bool, user_ids: Iterable[str]) -> frozenset[str]:
    """Those of ``user_ids`` who said so."""
    rows = conn.execute(
        "SELECT user_id FROM consents WHERE tracking = ? AND user_id IN (SELECT value FROM json_each(?))",
        (tracking, to_json(sorted(user_ids))),
    )
    return frozenset(user_id for (user_id,) in rows)
