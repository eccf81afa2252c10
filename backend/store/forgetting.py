"""Taking one person's rows out of both files, in steps short enough that nobody waits for them.

Only under the person's tombstone: nothing new can be stored of them then, so the steps may come one after another.
Writers have ``secure_delete`` on, so what goes is overwritten with zeros.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backend.delivery.device_address import identities
from backend.events import Event
from backend.store import schedules
from backend.store.codec import decode_id, from_strings, to_json
from backend.store.figures_forgetting import forget_key, forget_sessions
from backend.store.parts import BITS, BY_PART, LONG, SESSION_PARTS
from backend.store.schedules import Request
from backend.store.session_cache import SessionCache
from backend.store.shared_sessions import Gone, bequeath, without
from backend.store.writer import Tx

SLICE = 200
"""Rows of the large tables taken in one transaction: some 10 ms of the writer's time."""

Removed = dict[str, int]
"""How many rows went, by what they were."""

_decode_request = msgspec.json.Decoder(Request).decode


def forget_activities(tx: Tx, user_id: str, cache: SessionCache) -> Removed:
    """Up to SLICE of the user's activities, or once there are none their sessions and the rest; {} when all is gone."""
    rows = tx.conn.execute(
        "SELECT seq, timestamp, session_id, activity_type FROM user_timeline WHERE user_id = ? LIMIT ?",
        (user_id, SLICE),
    ).fetchall()
    if rows:
        _delete(tx.conn, "user_activities", [seq for seq, *_ in rows])
        tx.conn.executemany(
            "DELETE FROM activities_by_user WHERE user = (SELECT key FROM figure_users WHERE user_id = ?) "
            "AND part = ? AND at = ? AND seq = ?",
            [(user_id, timestamp >> BITS, timestamp & LONG - 1, seq) for seq, timestamp, *_ in rows],
        )
        cache.clear()
        without(tx, user_id, [Gone(session, kind, at) for _, at, session, kind in rows], cache)
        return {"activities": len(rows)}
    sessions = tx.conn.execute(
        f"WITH RECURSIVE {SESSION_PARTS} SELECT seq, id, shared FROM {BY_PART} WHERE user_id = ? LIMIT ?",  # noqa: S608
        (user_id, SLICE),
    ).fetchall()
    if sessions:
        left = bequeath(tx, user_id, [id_ for _, id_, shared in sessions if shared], cache)
        seqs = [seq for seq, id_, _ in sessions if id_ not in left]
        forget_sessions(tx, cache.local, seqs)
        _delete(tx.conn, "user_sessions", seqs)
        cache.clear()
        return {"sessions": len(seqs)}
    tx.conn.execute("DELETE FROM user_analytics WHERE user_id = ?", (user_id,))
    forget_key(tx, user_id)
    return _counted({"consents": tx.conn.execute("DELETE FROM consents WHERE user_id = ?", (user_id,))})


def forget_notifications(tx: Tx, user_id: str) -> Removed:
    """Up to SLICE of the user's notifications with their deliveries and attempts, or once there are none the rest; {}
    when all is gone. Their toasts are taken back."""
    rows = tx.conn.execute(
        "SELECT seq, id, app FROM notifications WHERE user_id = ? LIMIT ?", (user_id, SLICE)
    ).fetchall()
    if not rows:
        return _forget_circumstances(tx, user_id)
    seqs = to_json([seq for seq, _, _ in rows])
    deliveries, attempts = tx.conn.execute(
        "SELECT COUNT(*), COALESCE(SUM((SELECT COUNT(*) FROM delivery_attempts a WHERE a.delivery_seq = d.seq)), 0) "
        "FROM deliveries d WHERE d.notification_seq IN (SELECT value FROM json_each(?))",
        (seqs,),
    ).fetchone()
    _delete(tx.conn, "notifications", [seq for seq, _, _ in rows])  # and by their foreign keys what hangs on them
    for _, id_, app in rows:
        tx.events.append(Event("withdraw", decode_id(id_), user_id, app))
    return {"notifications": len(rows), "deliveries": deliveries, "attempts": attempts}


def devices_of(conn: sqlite3.Connection, user_id: str) -> frozenset[str]:
    """Return the identities of the user's devices."""
    rows = conn.execute("SELECT identity FROM device_tokens WHERE user_id = ?", (user_id,))
    return frozenset(identity for (identity,) in rows)


def naming_devices(conn: sqlite3.Connection, devices: frozenset[str]) -> list[int]:
    """Find the notifications, of any user, that were sent to these devices by their tokens. Reads all of them: for a
    reader."""
    rows = conn.execute("SELECT seq, device_tokens FROM notifications WHERE device_tokens IS NOT NULL")
    return [seq for seq, text in rows if any(_names(devices, token) for token in from_strings(text))]


def _names(devices: frozenset[str], token: str) -> bool:
    """Whether ``token`` is a spelling of one of these devices."""
    return not devices.isdisjoint(identities(token))


def forget_tokens(tx: Tx, seqs: Sequence[int], devices: frozenset[str]) -> None:
    """Take these devices' tokens out of these notifications, and out of schedules. Before the devices themselves go: a
    killed process has to find them again."""
    for seq in seqs:
        row = tx.conn.execute("SELECT device_tokens FROM notifications WHERE seq = ?", (seq,)).fetchone()
        if row is not None and row[0] is not None:
            left = [token for token in from_strings(row[0]) if not _names(devices, token)]
            tx.conn.execute("UPDATE notifications SET device_tokens = ? WHERE seq = ?", (to_json(left), seq))
    for seq, text in tx.conn.execute("SELECT seq, request FROM schedules").fetchall():
        request = _decode_request(text)
        given = request.notification.get("device_tokens") or []
        left = [token for token in given if not _names(devices, token)]
        if left != given:
            _change_request(tx, seq, request, request.notification | {"device_tokens": left})


_OF_USER: Mapping[str, str] = {
    "preferences": "notification_preferences",
    "contacts": "contacts",
    "quiet_hours": "quiet_hours",
    "digests": "digests",
    "throttles": "throttles",
    "devices": "device_tokens",
    "inbox_counts": "inbox_counts",
    "rule_uses": "rule_uses",
}


def _forget_circumstances(tx: Tx, user_id: str) -> Removed:
    gone = {
        name: tx.conn.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,))  # noqa: S608
        for name, table in _OF_USER.items()
    }
    removed = _counted(gone) | _forget_schedules(tx, user_id)
    for name in ("inbox_counts", "rule_uses"):
        removed.pop(name, None)
    return removed


def _forget_schedules(tx: Tx, user_id: str) -> Removed:
    """What recurs for this user alone ends; what recurs for others too goes on without them."""
    removed = 0
    for seq, text in tx.conn.execute("SELECT seq, request FROM schedules").fetchall():
        request = _decode_request(text)
        users = schedules.users_of(request.notification)
        if user_id not in users:
            continue
        left = [user for user in users if user != user_id]
        if left:
            _change_request(tx, seq, request, request.notification | {"user_ids": left})
        else:
            schedules.delete(tx, seq)
            removed += 1
    return {"schedules": removed} if removed else {}


def _change_request(tx: Tx, seq: int, request: Request, notification: dict[str, Any]) -> None:
    request = msgspec.structs.replace(request, notification=notification)
    tx.conn.execute("UPDATE schedules SET request = ? WHERE seq = ?", (to_json(request), seq))


def forget_answers(tx: Tx) -> None:
    """Drop every answer kept under an Idempotency-Key: which of them tell of a person cannot be seen from outside."""
    tx.conn.execute("DELETE FROM idempotency_keys")


def _delete(conn: sqlite3.Connection, table: str, seqs: Sequence[int]) -> None:
    conn.execute(f"DELETE FROM {table} WHERE seq IN (SELECT value FROM json_each(?))", (to_json(seqs),))  # noqa: S608


def _counted(gone: Mapping[str, sqlite3.Cursor]) -> Removed:
    return {name: cursor.rowcount for name, cursor in gone.items() if cursor.rowcount}
