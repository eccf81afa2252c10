"""Taking one person's rows out of both files, in steps short enough that nobody waits for them.

Only under the person's tombstone: nothing new can be stored of them then, so the steps may come one after another.
Writers have ``secure_delete`` on, so what goes is overwritten with zeros.
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
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import rules, schedules
from flashflow.backend.store.notifications.rules import Body
from flashflow.backend.store.notifications.schedules import Request
from flashflow.backend.store.privacy.rollup_erasure import subtract_key, subtract_sessions
from flashflow.backend.store.rollups.partitions import BITS, BY_PART, LONG, SESSION_PARTS

SLICE = 200
"""Rows of the large tables taken in one transaction: some 10 ms of the writer's time."""

Removed = dict[str, int]
"""How many rows went, by what they were."""


def knows_activities(conn: sqlite3.Connection, user_id: str) -> bool:
    """Whether anything in the activities' file is about the user."""
    return _any(
        conn,
        user_id,
        "SELECT 1 FROM user_timeline WHERE user_id = ?",
        f"WITH RECURSIVE {SESSION_PARTS} SELECT 1 FROM {BY_PART} WHERE user_id = ?",
        *map(_OF_TABLE.format, ("figure_users", "user_analytics", "consents")),
    )


def knows_notifications(conn: sqlite3.Connection, user_id: str) -> bool:
    """Whether anything in the notifications' file is about the user, or a schedule or a rule is for or about them."""
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
        f"WITH RECURSIVE {SESSION_PARTS} SELECT seq, id, shared FROM {BY_PART} WHERE user_id = ? LIMIT ?",
        (user_id, SLICE),
    ).fetchall()
    if sessions:
        left = reassign(tx, user_id, [id_ for _, id_, shared in sessions if shared], cache)
        seqs = [seq for seq, id_, _ in sessions if id_ not in left]
        subtract_sessions(tx, cache.local, seqs)
        _delete(tx.conn, "user_sessions", seqs)
        cache.clear()
        return {"sessions": len(seqs)}
    tx.conn.execute("DELETE FROM user_analytics WHERE user_id = ?", (user_id,))
    subtract_key(tx, user_id)
    return _counted({"consents": tx.conn.execute("DELETE FROM consents WHERE user_id = ?", (user_id,))})


def erase_notifications(tx: Tx, user_id: str) -> Removed:
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
        tx.events.append(Event("toast.dismissed", decode_id(id_), user_id, app))
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


def erase_tokens(tx: Tx, seqs: Sequence[int], devices: frozenset[str]) -> None:
    """Take these devices' tokens out of these notifications, and out of schedules. Before the devices themselves go: a
    killed process has to find them again."""
    for seq in seqs:
        row = tx.conn.execute("SELECT device_tokens FROM notifications WHERE seq = ?", (seq,)).fetchone()
        if row is not None and row[0] is not None:
            left = [token for token in from_strings(row[0]) if not _names(devices, token)]
            tx.conn.execute("UPDATE notifications SET device_tokens = ? WHERE seq = ?", (to_json(left), seq))
    for seq, text in tx.conn.execute("SELECT seq, request FROM schedules").fetchall():
        request = schedules.decode_request(text)
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
        name: tx.conn.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,)) for name, table in _OF_USER.items()
    }
    removed = _counted(gone) | _forget_schedules(tx, user_id) | _forget_in_rules(tx, user_id)
    for name in ("inbox_counts", "rule_uses"):
        removed.pop(name, None)
    return removed


def _forget_schedules(tx: Tx, user_id: str) -> Removed:
    """What recurs for this user alone ends; what recurs for others too goes on without them."""
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


def _forget_in_rules(tx: Tx, user_id: str) -> Removed:
    """Take the user out of every rule: as a recipient and as the value of a condition. A rule that was for this user
    alone, or about them alone, ends."""
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
    """What was changed and not removed counts as well: the file has to be swept of it."""
    return {name: count for name, count in counts.items() if count}


def _rule_without(body: Body, user_id: str) -> Body | None:
    """The rule for and about everyone else; None where that is no one."""
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
        elif condition.op != "ne":  # which everyone else meets anyhow
            where.append(condition)
    return msgspec.structs.replace(body, on=msgspec.structs.replace(body.on, where=where))


def mentions(conn: sqlite3.Connection, user_id: str) -> tuple[str, ...]:
    """What still names an erased user and is not theirs to take away: texts that apps and other users keep. Reads all
    notifications: for a reader."""
    word = re.compile(rf"(?<!\w){re.escape(user_id)}(?!\w)")
    found = []
    for kind, name, texts in _kept_texts(conn):
        if any(map(word.search, (name, *_strings(texts)))):
            found.append(f"the {kind} “{name}”")
    rows = conn.execute(_OTHERS_TOLD, {"user": user_id, "json": to_json(user_id).strip('"')})
    count = sum(any(map(word.search, _strings([title, message, from_object(data)]))) for title, message, data in rows)
    if count:
        found.append(f"{count:,} {'notification' if count == 1 else 'notifications'} of other users")
    return tuple(dict.fromkeys(found))


_OTHERS_TOLD = (
    "SELECT title, message, data FROM notifications "
    "WHERE instr(title, :user) OR instr(message, :user) OR instr(data, :json)"
)
_TOLD = ("title", "message", "data", "actions", "collapse_key")


def _kept_texts(conn: sqlite3.Connection) -> Iterator[tuple[str, str, Any]]:
    """What apps have written of their own accord: its kind, its name, its texts."""
    for name, text in conn.execute("SELECT name, rule FROM rules ORDER BY name"):
        body = rules.decode_body(text)
        values = [condition.value for condition in body.on.where] if body.on is not None else []
        values.append(text if body is rules.UNREADABLE else None)
        yield "rule", name, [values, *(msgspec.to_builtins(getattr(body.send, field)) for field in _TOLD)]
    for name, text in conn.execute("SELECT name, request FROM schedules ORDER BY name"):
        yield "schedule", name, [schedules.decode_request(text).notification.get(field) for field in _TOLD]
    for name, *texts in conn.execute("SELECT name, title_template, message_template FROM notification_templates"):
        yield "template", name, texts
    for name, *texts in conn.execute("SELECT name, label, description FROM notification_types"):
        yield "notification type", name, texts


def _strings(value: Any) -> Iterator[str]:
    """Every string in a value of JSON, the keys of its objects too."""
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
    """Drop every answer kept under an Idempotency-Key: which of them tell of a person cannot be seen from outside."""
    tx.conn.execute("DELETE FROM idempotency_keys")


def _delete(conn: sqlite3.Connection, table: str, seqs: Sequence[int]) -> None:
    conn.execute(f"DELETE FROM {table} WHERE seq IN (SELECT value FROM json_each(?))", (to_json(seqs),))


def _counted(gone: Mapping[str, sqlite3.Cursor]) -> Removed:
    return {name: cursor.rowcount for name, cursor in gone.items() if cursor.rowcount}
