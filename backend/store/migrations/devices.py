"""Migration steps of ``device_tokens``. A step that shipped is never edited."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from flashflow.backend.core.encoding import from_object, to_json
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.domain.device_address import device_address, identity_of


def devices_by_identity(conn: sqlite3.Connection) -> None:
    """Key devices by what the push provider would reach, and merge those that were several spellings of one.

    The latest registration stays; deliveries to the others go to it, unless the same notification goes there already.
    """
    conn.execute("ALTER TABLE device_tokens ADD COLUMN identity TEXT NOT NULL DEFAULT ''")
    conn.execute("DROP INDEX device_tokens_token")  # several spellings become one token on the way
    rows = conn.execute(
        "SELECT seq, token, platform, device_info FROM device_tokens ORDER BY updated_at DESC, seq DESC"
    ).fetchall()
    kept: dict[str, int] = {}
    merged: dict[int, int] = {}
    for seq, given, platform, text in rows:
        info = from_object(text)
        try:
            identity, token, info = device_address(given, platform, info)
        except ValidationError:  # it cannot be sent to, but a registration with the right keys can replace it
            identity, token = identity_of(given, platform, info), given
        if kept.setdefault(identity, seq) == seq:
            conn.execute(
                "UPDATE device_tokens SET identity = ?, token = ?, device_info = ? WHERE seq = ?",
                (identity, token, to_json(info) if info else None, seq),
            )
        else:
            merged[seq] = kept[identity]
            conn.execute("DELETE FROM device_tokens WHERE seq = ?", (seq,))
    _move_deliveries(conn, merged)
    conn.execute("CREATE UNIQUE INDEX device_tokens_identity ON device_tokens (identity)")


def _move_deliveries(conn: sqlite3.Connection, merged: Mapping[int, int]) -> None:
    """Point deliveries at the device that stays, by one scan: there is no index over devices."""
    moved = conn.execute(
        "SELECT seq, notification_seq, device_seq FROM deliveries WHERE device_seq IN (SELECT value FROM json_each(?))",
        (to_json(list(merged)),),
    ).fetchall()
    for seq, notification_seq, device_seq in moved:
        stays = merged[device_seq]
        conn.execute(
            "UPDATE deliveries SET device_seq = ?1 WHERE seq = ?2 AND NOT EXISTS "
            "(SELECT 1 FROM deliveries WHERE notification_seq = ?3 AND device_seq = ?1)",
            (stays, seq, notification_seq),
        )
