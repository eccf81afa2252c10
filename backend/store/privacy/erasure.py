"""Erase one user's rows from both files in short transactions.

Requires the user's tombstone: it refuses new rows between the steps. Writers have ``secure_delete`` on, so SQLite
overwrites deleted rows with zeros.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from flashflow.backend.core.encoding import decode_id, from_object, from_strings, to_json
from flashflow.backend.core.events import Event
from flashflow.backend.domain.device_address import identities
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.activity.shared_sessions import Gone, reassign, without
from flashflow.backend.store.engine.sql import delete_rows
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import rules, schedules
from flashflow.backend.store.notifications.rules import Body
from flashflow.backend.store.notifications.schedules import Request
from flashflow.backend.store.privacy.retention import delete_from_user_index
from flashflow.backend.store.privacy.rollup_erasure import subtract_key, subtract_sessions
from flashflow.backend.store.rollups.partitions import BY_PART, SESSION_PARTS

SLICE = 200
"""Rows of the large tables deleted in one transaction: about 10 ms of the writer's time."""

Removed = dict[str, int]
"""Number of deleted rows by kind."""


def knows_activities(conn: sqlite3.Connection, user_id: str) -> bool:
    """Whether ``user_activities.db`` has rows of the user."""
    return _any(
        conn,
        user_id,
        "SELECT 1 FROM user_timeline WHERE user_id = ?",
        f"WITH RECURSIVE {SESSION_PARTS} SELECT 1 FROM {BY_PART} WHERE user_id = ?",
        *map(_OF_TABLE.format, ("figure_users", "user_analytics", "consents")),
    )


def knows_notifications(conn: sqlite3.Connection, user_id: str) -> bool:
    """Whether ``notifications.db`` has rows of the user, or a schedule or rule that names them."""
    if _any(conn, user_id, *map(_OF_TABLE.format, ("notifications", *_OF_USER.values()))):
        return True
    requests = [schedules.decode_request(text) for (text,) in conn.execute("SELECT request FROM schedules")]
    bodies = [rules.decode_body(text) for (text,) in conn.execute("SELECT rule FROM rules")]
    return any(user_id in schedules.users_of(request.notification) for request in requests) or any(
        _rule_without(body, user_id) != body for body in bodies
    )


_OF_TABLE = "SELECT 1 FROM {} WHERE user_id = ?"


def _any(conn: sqlite3.Connection, user_id: str, *queries: str) -> bool:
    return any(conn.execute(f"{query} LIMIT 1", (user_id,)).fetchone() for query in queries)


def erase_activities(tx: Tx, user_id: str, cache: SessionCache) -> Removed:
    """Delete up to SLICE of the user's activities, then sessions, then the rest; return {} when nothing is left."""
    rows = tx.conn.execute(
        "SELECT seq, timestamp, session_id, activity_type FROM user_timeline WHERE user_id = ? LIMIT ?",
        (user_id, SLICE),
    ).fetchall()
    if rows:
        delete_rows(tx.conn, "user_activities", [seq for seq, *_ in rows])
        delete_from_user_index(tx.conn, [(seq, user_id, timestamp) for seq, timestamp, *_ in rows])
        cache.clear()
        without(tx, user_id, [Gone(session, kind, at) for _, at, session, kind in rows], cache)
        return {"activities": len(rows)}
    sessions = tx.conn.execute(
        f"WITH RECURSIVE {SESSION_PARTS} SELECT seq, id, shared FROM {BY_PART} WHERE user_id = ? LIMIT ?",
        (user_id, SLICE),
    ).fetchall()
    if sessions:
        left = reassign(tx, user_id, [id_ for _, id_, shared in sessions if shared], cache)
        seqs = [seq for seq, id_, _ in sessions if id_ not in left]
        subtract_sessions(tx, cache.local, seqs)
        delete_rows(tx.conn, "user_sessions", seqs)
        cache.clear()
        return {"sessions": len(seqs)}
    tx.conn.execute("DELETE FROM user_analytics WHERE user_id = ?", (user_id,))
    subtract_key(tx, user_id)
    return _counted({"consents": tx.conn.execute("DELETE FROM consents WHERE user_id = ?", (user_id,))})


def erase_notifications(tx: Tx, user_id: str) -> Removed:
    """Delete up to SLICE of the user's notifications with deliveries and attempts, then the rest; return {} when
    nothing is left. Publishes events that dismiss their toasts."""
    rows = tx.conn.execute(
        "SELECT seq, id, app FROM notifications WHERE user_id = ? LIMIT ?", (user_id, SLICE)
    ).fetchall()
    if not rows:
        return _erase_settings(tx, user_id)
    seqs = to_json([seq for seq, _, _ in rows])
    deliveries, attempts = tx.conn.execute(
        "SELECT COUNT(*), COALESCE(SUM((SELECT COUNT(*) FROM delivery_attempts a WHERE a.delivery_seq = d.seq)), 0) "
        "FROM deliveries d WHERE d.notification_seq IN (SELECT value FROM json_each(?))",
        (seqs,),
    ).fetchone()
    delete_rows(tx.conn, "notifications", [seq for seq, _, _ in rows])  # foreign keys cascade to deliveries, attempts
    for _, id_, app in rows:
        tx.events.append(Event("toast.dismissed", decode_id(id_), user_id, app))
    return {"notifications": len(rows), "deliveries": deliveries, "attempts": attempts}


def devices_of(conn: sqlite3.Connection, user_id: str) -> frozenset[str]:
    """Return the identities of the user's devices."""
    rows = conn.execute("SELECT identity FROM device_tokens WHERE user_id = ?", (user_id,))
    return frozenset(identity for (identity,) in rows)


def sent_to_devices(conn: sqlite3.Connection, devices: frozenset[str]) -> list[int]:
    """Return the ``seq`` of notifications, of any user, sent to these devices by token. Scans the table: call it from a
    reader."""
    rows = conn.execute("SELECT seq, device_tokens FROM notifications WHERE device_tokens IS NOT NULL")
    return [seq for seq, text in rows if any(_is_of(devices, token) for token in from_strings(text))]


def _is_of(devices: frozenset[str], token: str) -> bool:
    """Whether ``token`` is a spelling of one of these devices."""
    return not devices.isdisjoint(identities(token))


def erase_tokens(tx: Tx, seqs: Sequence[int], devices: frozenset[str]) -> None:
    """Remove these devices' tokens from these notifications and from all schedules."""
    # Call it before the devices are deleted: after a kill the next start finds the tokens through them.
    for seq in seqs:
        row = tx.conn.execute("SELECT device_tokens FROM notifications WHERE seq = ?", (seq,)).fetchone()
        if row is not None and row[0] is not None:
            left = [token for token in from_strings(row[0]) if not _is_of(devices, token)]
            tx.conn.execute("UPDATE notifications SET device_tokens = ? WHERE seq = ?", (to_json(left), seq))
    for seq, text in tx.conn.execute("SELECT seq, request FROM schedules").fetchall():
        request = schedules.decode_request(text)
        given = request.notification.get("device_tokens") or []
        left = [token for token in given if not _is_of(devices, token)]
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


def _erase_settings(tx: Tx, user_id: str) -> Removed:
    gone = {
        name: tx.conn.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,)) for name, table in _OF_USER.items()
    }
    removed = _counted(gone) | _erase_from_schedules(tx, user_id) | _erase_from_rules(tx, user_id)
    for name in ("inbox_counts", "rule_uses"):
        removed.pop(name, None)
    return removed


def _erase_from_schedules(tx: Tx, user_id: str) -> Removed:
    """Remove the user from every schedule; delete schedules that have no other recipient."""
    removed = changed = 0
    for seq, text in tx.conn.execute("SELECT seq, request FROM schedules").fetchall():
        request = schedules.decode_request(text)
        users = schedules.users_of(request.notification)
        if request.last_error is not None and user_id in request.last_error:
            request = msgspec.structs.replace(request, last_error=None)
            _change_request(tx, seq, request, request.notification)
        if user_id not in users:
            continue
        left = [user for user in users if user != user_id]
        if left:
            _change_request(tx, seq, request, request.notification | {"user_ids": left})
            changed += 1
        else:
            schedules.delete(tx, seq)
            removed += 1
    return _nonzero(schedules=removed, changed_schedules=changed)


def _erase_from_rules(tx: Tx, user_id: str) -> Removed:
    """Remove the user from the recipients and conditions of every rule; delete rules for or about this user only."""
    removed = changed = 0
    for seq, name, app, text, error in tx.conn.execute("SELECT seq, name, app, rule, last_error FROM rules").fetchall():
        body = rules.decode_body(text)
        unreadable = body is rules.UNREADABLE and user_id in text
        left = None if unreadable else _rule_without(body, user_id)
        if left is None:
            rules.delete(tx, seq)
            removed += 1
        elif left != body:
            tx.conn.execute("UPDATE rules SET rule = ? WHERE seq = ?", (to_json(left), seq))
            changed += 1
        elif error is None or user_id not in error:
            continue
        if left is not None and error is not None and user_id in error:
            rules.dismiss_error(tx, seq)
        tx.events.append(Event("rule", name, "", app))
    return _nonzero(rules=removed, changed_rules=changed)


def _nonzero(**counts: int) -> Removed:
    # Changed rows count as well: the file must be swept of their old content.
    return {name: count for name, count in counts.items() if count}


def _rule_without(body: Body, user_id: str) -> Body | None:
    """Return the rule without the user; None if no recipient or no matching user would be left."""
    if isinstance(body.to, list) and user_id in body.to:
        body = msgspec.structs.replace(body, to=[user for user in body.to if user != user_id])
    if body.to == []:
        return None
    if body.on is None:
        return body
    where = []
    for condition in body.on.where:
        if condition.field != "user_id":
            where.append(condition)
        elif condition.op == "in" and isinstance(condition.value, list):
            values = [value for value in condition.value if value != user_id]
            if not values:
                return None
            where.append(msgspec.structs.replace(condition, value=values))
        elif condition.value != user_id:
            where.append(condition)
        elif condition.op == "eq":
            return None
        elif condition.op != "ne":  # all other users meet it
            where.append(condition)
    return msgspec.structs.replace(body, on=msgspec.structs.replace(body.on, where=where))


def mentions(conn: sqlite3.Connection, user_id: str) -> tuple[str, ...]:
    """List texts of apps and other users that name the erased user; erasure leaves them. Scans all notifications: call
    it from a reader."""
    word = re.compile(rf"(?<!\w){re.escape(user_id)}(?!\w)")
    found = []
    for kind, name, texts in _app_texts(conn):
        if any(map(word.search, (name, *_strings(texts)))):
            found.append(f"the {kind} “{name}”")
    rows = conn.execute(_MENTIONING, {"user": user_id, "json": to_json(user_id).strip('"')})
    count = sum(any(map(word.search, _strings([title, message, from_object(data)]))) for title, message, data in rows)
    if count:
        found.append(f"{count:,} {'notification' if count == 1 else 'notifications'} of other users")
    return tuple(dict.fromkeys(found))


_MENTIONING = (
    "SELECT title, message, data FROM notifications "
    "WHERE instr(title, :user) OR instr(message, :user) OR instr(data, :json)"
)
_TEXT_FIELDS = ("title", "message", "data", "actions", "collapse_key")


def _app_texts(conn: sqlite3.Connection) -> Iterator[tuple[str, str, Any]]:
    """Texts that apps wrote: (kind, name, texts)."""
    for name, text in conn.execute("SELECT name, rule FROM rules ORDER BY name"):
        body = rules.decode_body(text)
        values = [condition.value for condition in body.on.where] if body.on is not None else []
        values.append(text if body is rules.UNREADABLE else None)
        yield "rule", name, [values, *(msgspec.to_builtins(getattr(body.send, field)) for field in _TEXT_FIELDS)]
    for name, text in conn.execute("SELECT name, request FROM schedules ORDER BY name"):
        yield "schedule", name, [schedules.decode_request(text).notification.get(field) for field in _TEXT_FIELDS]
    for name, *texts in conn.execute("SELECT name, title_template, message_template FROM notification_templates"):
        yield "template", name, texts
    for name, *texts in conn.execute("SELECT name, label, description FROM notification_types"):
        yield "notification type", name, texts


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, including object keys."""
    level = [value]
    while level:
        one = level.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            level += [*one, *one.values()]
        elif isinstance(one, list):
            level += one


def _change_request(tx: Tx, seq: int, request: Request, notification: dict[str, Any]) -> None:
    request = msgspec.structs.replace(request, notification=notification)
    tx.conn.execute("UPDATE schedules SET request = ? WHERE seq = ?", (to_json(request), seq))


def erase_idempotency_answers(tx: Tx) -> None:
    """Delete every answer stored for an Idempotency-Key: their bodies cannot be searched for a user."""
    tx.conn.execute("DELETE FROM idempotency_keys")


def _counted(gone: Mapping[str, sqlite3.Cursor]) -> Removed:
    return {name: cursor.rowcount for name, cursor in gone.items() if cursor.rowcount}
