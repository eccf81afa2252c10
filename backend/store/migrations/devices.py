"""Migration steps of ``device_tokens``. A shipped step is never edited."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from flashflow.backend.core.encoding import from_object, to_json
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.domain.device_address import device_address, identity_of


def devices_by_identity(conn: sqlite3.Connection) -> None:
    """Identify devices by their provider address and merge registrations that are spellings of one device.

    The latest registration stays and takes over the deliveries of the others, unless it has one of the same
    notification.
    """
    conn.execute("ALTER TABLE device_tokens ADD COLUMN identity TEXT NOT NULL DEFAULT ''")
    conn.execute("DROP INDEX device_tokens_token")  # the updates below may produce equal tokens for a while
    rows = conn.execute(
        "SELECT seq, token, platform, device_info FROM device_tokens ORDER BY updated_at DESC, seq DESC"
    ).fetchall()
    kept: dict[str, int] = {}
    merged: dict[int, int] = {}
    for seq, given, platform, text in rows:
        info = from_object(text)
        try:
            identity, token, info = device_address(given, platform, info)
        except ValidationError:  # not deliverable, but a registration with correct keys can replace it
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
    """Point deliveries at the device that stays, with one scan: there is no index by device."""
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
