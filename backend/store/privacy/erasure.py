"""Erase one user's rows from both files in short transactions.

Requires the user's tombstone: it refuses new rows between the steps. Writers have ``secure_delete`` on, so SQLite
overwrites deleted rows with zeros.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

import msgspec
from peewee import SQL, Select, fn

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.events import Event
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.device_address import identities
from flashflow.backend.store.activity.models import UserAnalytics
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.activity.shared_sessions import Gone, reassign, without
from flashflow.backend.store.activity.user_index import TIMELINE
from flashflow.backend.store.engine.models import BaseModel, IdempotencyKey
from flashflow.backend.store.engine.statement import Statement, TextStatement, among, columns, slot, slots, variants
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.flow.models import FlowJob, FlowRow
from flashflow.backend.store.notifications import models, rules, schedules
from flashflow.backend.store.notifications.rules import Body
from flashflow.backend.store.notifications.schedules import Request
from flashflow.backend.store.privacy.models import Consent
from flashflow.backend.store.privacy.retention import (
    DELETE_ACTIVITIES,
    DELETE_NOTIFICATIONS,
    DELETE_SESSIONS,
    Entry,
    delete_from_user_index,
)
from flashflow.backend.store.privacy.rollup_erasure import subtract_key, subtract_sessions
from flashflow.backend.store.rollups.models import UserKey
from flashflow.backend.store.rollups.partitions import BY_PART, SESSION_PARTITIONS

SLICE = 200
"""Rows of the large tables deleted in one transaction: about 10 ms of the writer's time."""

Removed = dict[str, int]
"""Number of deleted rows by kind."""


class _Activity(NamedTuple):
    """An activity to delete; ``session_id`` as it is stored."""

    seq: int
    user_id: str
    timestamp: int
    session_id: bytes
    activity_type: str


class _Session(NamedTuple):
    """A session to delete; ``id`` as it is stored."""

    seq: int
    id: bytes
    shared: bool


class _Notification(NamedTuple):
    seq: int
    id: str
    app: str


class _Counts(NamedTuple):
    deliveries: int
    attempts: int


class _Tokens(NamedTuple):
    seq: int
    device_tokens: tuple[str, ...]


class _Schedule(NamedTuple):
    seq: int
    name: str
    request: str


class _Rule(NamedTuple):
    seq: int
    name: str
    app: str
    rule: str
    last_error: str | None


class _Content(NamedTuple):
    title: str
    message: str
    data: dict[str, Any]


class _ModelRow(NamedTuple):
    model: str
    body: dict[str, Any]


class _Texts(NamedTuple):
    """Two texts of a template or type."""

    name: str
    first: str
    second: str


def knows_activities(conn: sqlite3.Connection, user_id: str) -> bool:
    """Whether ``user_activities.db`` has rows of the user."""
    return bool(_KNOWS_ACTIVITIES.value(conn, user=user_id)) or bool(_SESSIONS.all(conn, user=user_id, limit=1))


def knows_notifications(conn: sqlite3.Connection, user_id: str) -> bool:
    """Whether ``notifications.db`` has rows of the user, or a schedule or rule that names them."""
    if _KNOWS_NOTIFICATIONS.value(conn, user=user_id) or _CREATED_BY_USER.value(conn, user=user_id):
        return True
    requests = [schedules.decode_request(row.request) for row in _SCHEDULES.each(conn)]
    bodies = [rules.decode_body(row.rule) for row in _RULES.each(conn)]
    return any(user_id in schedules.users_of(request.notification) for request in requests) or any(
        _rule_without(body, user_id) != body for body in bodies
    )


def erase_activities(tx: Tx, user_id: str, cache: SessionCache) -> Removed:
    """Delete up to SLICE of the user's activities, then sessions, then the rest; return {} when nothing is left."""
    rows = _ACTIVITIES.all(tx.conn, user=user_id, limit=SLICE)
    if rows:
        DELETE_ACTIVITIES.run(tx.conn, seqs=[row.seq for row in rows])
        delete_from_user_index(tx.conn, [Entry(row.seq, row.user_id, row.timestamp) for row in rows])
        cache.clear()
        without(tx, user_id, [Gone(row.session_id, row.activity_type, row.timestamp) for row in rows], cache)
        return {"activities": len(rows)}
    sessions = _SESSIONS.all(tx.conn, user=user_id, limit=SLICE)
    if sessions:
        left = reassign(tx, user_id, [session.id for session in sessions if session.shared], cache)
        seqs = [session.seq for session in sessions if session.id not in left]
        subtract_sessions(tx, cache.local, seqs)
        DELETE_SESSIONS.run(tx.conn, seqs=seqs)
        cache.clear()
        return {"sessions": len(seqs)}
    _delete_of(UserAnalytics).run(tx.conn, user=user_id)
    subtract_key(tx, user_id)
    return _nonzero(consents=_delete_of(Consent).run(tx.conn, user=user_id).rowcount)


def erase_notifications(tx: Tx, user_id: str) -> Removed:
    """Delete up to SLICE of the user's notifications with deliveries and attempts, then the rest; return {} when
    nothing is left. Publishes events that dismiss their toasts."""
    rows = _NOTIFICATIONS.all(tx.conn, user=user_id, limit=SLICE)
    if not rows:
        return _erase_settings(tx, user_id)
    seqs = [row.seq for row in rows]
    counts = _DELIVERIES.one(tx.conn, seqs=seqs)
    assert counts is not None
    DELETE_NOTIFICATIONS.run(tx.conn, seqs=seqs)  # foreign keys cascade to deliveries, attempts
    for row in rows:
        tx.events.append(Event("toast.dismissed", row.id, user_id, row.app))
    return {"notifications": len(rows), **counts._asdict()}


def devices_of(conn: sqlite3.Connection, user_id: str) -> frozenset[str]:
    """Return the identities of the user's devices."""
    return frozenset(identity for (identity,) in _DEVICES.each(conn, user=user_id))


def sent_to_devices(conn: sqlite3.Connection, devices: frozenset[str]) -> list[int]:
    """Return the ``seq`` of notifications, of any user, sent to these devices by token. Scans the table: call it from a
    reader."""
    return [row.seq for row in _SENT_BY_TOKEN.each(conn) if any(_is_of(devices, token) for token in row.device_tokens)]


def _is_of(devices: frozenset[str], token: str) -> bool:
    """Whether ``token`` is a spelling of one of these devices."""
    return not devices.isdisjoint(identities(token))


def erase_tokens(tx: Tx, seqs: Sequence[int], devices: frozenset[str]) -> None:
    """Remove these devices' tokens from these notifications and from all schedules."""
    # Call it before the devices are deleted: after a kill the next start finds the tokens through them.
    for seq in seqs:
        tokens = _TOKENS.value(tx.conn, seq=seq)
        if tokens is not None:
            left = [token for token in tokens if not _is_of(devices, token)]
            _SAVE_TOKENS.run(tx.conn, seq=seq, device_tokens=left)
    for row in _SCHEDULES.all(tx.conn):
        request = schedules.decode_request(row.request)
        given = request.notification.get("device_tokens") or []
        left = [token for token in given if not _is_of(devices, token)]
        if left != given:
            _change_request(tx, row.seq, request, request.notification | {"device_tokens": left})


_OF_USER: Mapping[str, type[BaseModel]] = {
    "preferences": models.NotificationPreference,
    "contacts": models.Contact,
    "quiet_hours": models.QuietHours,
    "digests": models.Digest,
    "throttles": models.ThrottleUse,
    "devices": models.DeviceToken,
    "inbox_counts": models.InboxCount,
    "rule_uses": models.RuleUse,
}


def _erase_settings(tx: Tx, user_id: str) -> Removed:
    gone = {name: _delete_of(model).run(tx.conn, user=user_id).rowcount for name, model in _OF_USER.items()}
    flow = _nonzero(
        authored_rows=_CLEAR_AUTHOR.run(tx.conn, user=user_id).rowcount,
        job_errors=_CLEAR_JOB_ERROR.run(tx.conn, user=user_id).rowcount,
    )
    removed = _nonzero(**gone) | flow | _erase_from_schedules(tx, user_id) | _erase_from_rules(tx, user_id)
    for name in ("inbox_counts", "rule_uses"):
        removed.pop(name, None)
    return removed


def _erase_from_schedules(tx: Tx, user_id: str) -> Removed:
    """Remove the user from every schedule; delete schedules that have no other recipient."""
    removed = changed = 0
    for row in _SCHEDULES.all(tx.conn):
        request = schedules.decode_request(row.request)
        users = schedules.users_of(request.notification)
        if request.last_error is not None and user_id in request.last_error:
            request = msgspec.structs.replace(request, last_error=None)
            _change_request(tx, row.seq, request, request.notification)
        if user_id not in users:
            continue
        left = [user for user in users if user != user_id]
        if left:
            _change_request(tx, row.seq, request, request.notification | {"user_ids": left})
            changed += 1
        else:
            schedules.delete(tx, row.seq)
            removed += 1
    return _nonzero(schedules=removed, changed_schedules=changed)


def _erase_from_rules(tx: Tx, user_id: str) -> Removed:
    """Remove the user from the recipients and conditions of every rule; delete rules for or about this user only."""
    removed = changed = 0
    for row in _RULES.all(tx.conn):
        body = rules.decode_body(row.rule)
        unreadable = body is rules.UNREADABLE and user_id in row.rule
        left = None if unreadable else _rule_without(body, user_id)
        named_in_error = user_id in (row.last_error or "")
        if left is None:
            rules.delete(tx, row.seq)
            removed += 1
        elif left != body:
            _SAVE_RULE.run(tx.conn, seq=row.seq, rule=to_json(left))
            changed += 1
        elif not named_in_error:
            continue
        if left is not None and named_in_error:
            rules.dismiss_error(tx, row.seq)
        tx.events.append(Event("rule", row.name, "", row.app))
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
    models_naming = Counter(
        row.model
        for row in _ROWS_MENTIONING.each(conn, json=to_json(user_id).strip('"'))
        if any(map(word.search, _strings(row.body)))
    )
    found += [f"{count:,} {'row' if count == 1 else 'rows'} of {name}" for name, count in sorted(models_naming.items())]
    rows = _MENTIONING.each(conn, user=user_id, json=to_json(user_id).strip('"'))
    count = sum(any(map(word.search, _strings(list(row)))) for row in rows)
    if count:
        found.append(f"{count:,} {'notification' if count == 1 else 'notifications'} of other users")
    return tuple(dict.fromkeys(found))


_TEXT_FIELDS = ("title", "message", "data", "actions", "collapse_key")


def _app_texts(conn: sqlite3.Connection) -> Iterator[tuple[str, str, Any]]:
    """Texts that apps wrote: (kind, name, texts)."""
    for rule in _RULES.each(conn):
        body = rules.decode_body(rule.rule)
        values = [condition.value for condition in body.on.where] if body.on is not None else []
        values.append(rule.rule if body is rules.UNREADABLE else None)
        yield "rule", rule.name, [values, *(msgspec.to_builtins(getattr(body.send, field)) for field in _TEXT_FIELDS)]
    for schedule in _SCHEDULES.each(conn):
        notification = schedules.decode_request(schedule.request).notification
        yield "schedule", schedule.name, [notification.get(field) for field in _TEXT_FIELDS]
    for kind, statement in (("template", _TEMPLATES), ("notification type", _TYPES)):
        for row in statement.each(conn):
            yield kind, row.name, [row.first, row.second]


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
    _SAVE_REQUEST.run(tx.conn, seq=seq, request=to_json(request))


def erase_idempotency_answers(tx: Tx) -> None:
    """Delete every answer stored for an Idempotency-Key: their bodies cannot be searched for a user."""
    _DELETE_ANSWERS.run(tx.conn)


@variants((UserAnalytics, Consent, *_OF_USER.values()))
def _delete_of(model: type[BaseModel]) -> Statement[tuple[Any, ...]]:
    """Build the statement that deletes a user's rows of ``model``."""
    return Statement(model.delete().where(model._meta.fields["user_id"] == slot("user")))


def _has_rows(*of: type[BaseModel]) -> Select:
    """Build the query whether any table has a row of the user."""
    found = (fn.EXISTS(model.select(SQL("1")).where(model._meta.fields["user_id"] == slot("user"))) for model in of)
    return Select(columns=[reduce(or_, found)])


_A, _N, _D, _V = models.DeliveryAttempt, models.Notification, models.Delivery, models.DeviceToken
_S, _R, _T, _K = models.Schedule, models.Rule, models.NotificationTemplate, models.NotificationType
_KNOWS_ACTIVITIES = Statement(lambda: _has_rows(UserKey, UserAnalytics, Consent))
_KNOWS_NOTIFICATIONS = Statement(lambda: _has_rows(_N, *_OF_USER.values()))
_CREATED_BY_USER = Statement(lambda: FlowRow.select(FlowRow.seq).where(FlowRow.created_by == slot("user")).limit(1))
_CLEAR_AUTHOR = Statement(lambda: FlowRow.update(created_by=None).where(FlowRow.created_by == slot("user")))
_CLEAR_JOB_ERROR = Statement(lambda: FlowJob.update(last_error=None).where(fn.INSTR(FlowJob.last_error, slot("user"))))
_ROWS_MENTIONING = Statement(
    lambda: FlowRow.select(FlowRow.model, FlowRow.body).where(fn.INSTR(FlowRow.body, slot("json"))), _ModelRow
)
_ACTIVITIES = Statement(
    lambda: (
        TIMELINE.select(*(getattr(TIMELINE.c, name) for name in _Activity._fields))
        .where(TIMELINE.c.user_id == slot("user"))
        .limit(slot("limit"))
    ),
    _Activity,
)
_SESSIONS = TextStatement(
    f"WITH RECURSIVE {SESSION_PARTITIONS} SELECT seq, id, shared FROM {BY_PART} WHERE user_id = :user LIMIT :limit",
    _Session,
    reason="an index hint",
)
_NOTIFICATIONS = Statement(
    lambda: _N.select(*columns(_N, _Notification)).where(_N.user_id == slot("user")).limit(slot("limit")), _Notification
)
_ATTEMPTS = _A.select(fn.COUNT(_A.seq)).where(_A.delivery_seq == _D.seq)
_DELIVERIES = Statement(
    lambda: _D.select(fn.COUNT(_D.seq).alias("deliveries"), fn.COALESCE(fn.SUM(_ATTEMPTS), 0).alias("attempts")).where(
        among(_D.notification_seq, "seqs")
    ),
    _Counts,
)
_DEVICES = Statement(
    lambda: models.DeviceToken.select(models.DeviceToken.identity).where(models.DeviceToken.user_id == slot("user"))
)
_SENT_BY_TOKEN = Statement(lambda: _N.select(*columns(_N, _Tokens)).where(_N.device_tokens.is_null(False)), _Tokens)
_TOKENS = Statement(lambda: _N.select(_N.device_tokens).where(_N.seq == slot("seq"), _N.device_tokens.is_null(False)))
_SAVE_TOKENS = Statement(lambda: _N.update(slots(_N.device_tokens)).where(_N.seq == slot("seq")))
_SCHEDULES = Statement(lambda: _S.select(*columns(_S, _Schedule)).order_by(_S.name), _Schedule)
_SAVE_REQUEST = Statement(lambda: _S.update(slots(_S.request)).where(_S.seq == slot("seq")))
_RULES = Statement(lambda: _R.select(*columns(_R, _Rule)).order_by(_R.name), _Rule)
_SAVE_RULE = Statement(lambda: _R.update(slots(_R.rule)).where(_R.seq == slot("seq")))
_MENTIONING = Statement(
    lambda: _N.select(*columns(_N, _Content)).where(
        fn.INSTR(_N.title, slot("user")) | fn.INSTR(_N.message, slot("user")) | fn.INSTR(_N.data, slot("json"))
    ),
    _Content,
)
_TEMPLATES = Statement(
    lambda: _T.select(_T.name, _T.title_template.alias("first"), _T.message_template.alias("second")), _Texts
)
_TYPES = Statement(lambda: _K.select(_K.name, _K.label.alias("first"), _K.description.alias("second")), _Texts)
_DELETE_ANSWERS = Statement(IdempotencyKey.delete)
