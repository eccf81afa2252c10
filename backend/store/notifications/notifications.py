"""The ``notifications`` table: insert, find, list newest first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from peewee import JOIN, Select, fn

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import (
    decode_cursor,
    decode_id,
    decode_json,
    encode_cursor,
    from_object,
    from_strings,
)
from flashflow.backend.schemas.records import (
    Action,
    Inbox,
    Notification,
    NotificationPage,
    NotificationStatus,
    Priority,
)
from flashflow.backend.store.engine.numbers import Numbers, last_revision, last_seq
from flashflow.backend.store.engine.sql import clause, conditions
from flashflow.backend.store.engine.statement import Statement, TextStatement, columns, listed, slot
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import models, search

_decode_actions = msgspec.json.Decoder(tuple[Action, ...]).decode


class NotificationRow(NamedTuple):
    """A stored notification; the id and JSON as they are stored, times in milliseconds since 1970."""

    seq: int
    id: Any
    user_id: str
    app: str
    title: str
    message: str
    notification_type: str
    channels: str
    priority: Priority
    status: NotificationStatus
    inbox: Inbox | None
    data: str | None
    actions: str | None
    collapse_key: str | None
    created_at: int
    scheduled_at: int | None
    expires_at: int | None
    sent_at: int | None
    delivered_at: int | None
    read_at: int | None
    archived_at: int | None
    snoozed_until: int | None
    count: int  # type: ignore[assignment]  # as its column; hides the method of tuples
    listed_at: int
    revision: int


COLUMNS = ", ".join(NotificationRow._fields)


class NewNotification(NamedTuple):
    """A row to insert; times in milliseconds since 1970, objects as JSON text."""

    seq: int
    id: bytes
    user_id: str
    app: str
    title: str
    message: str
    notification_type: str
    channels: str
    priority: str
    status: str
    inbox: str | None
    data: str | None
    actions: str | None
    device_tokens: str | None
    collapse_key: str | None
    created_at: int
    scheduled_at: int | None
    expires_at: int | None
    sent_at: int | None
    delivered_at: int | None
    revision: int
    category: str | None
    listed_at: int


_N, _I = models.Notification, models.InboxCount
NOTIFICATION_SEQS = Numbers(Statement(last_seq(_N)))
NOTIFICATION_REVISIONS = Numbers(Statement(last_revision(_N)))
_ROWS = columns(_N, NotificationRow, stored=NotificationRow._fields)
_INSERT = Statement(_N.insert({getattr(_N, name): slot(name) for name in NewNotification._fields}))
_FIND = Statement(_N.select(*_ROWS).where(_N.id == slot("id", _N.id)), NotificationRow)


def insert(tx: Tx, notifications: Sequence[NewNotification]) -> None:
    """Store notifications; ``delivery_state.insert_deliveries`` stores their deliveries."""
    _INSERT.many(tx.conn, notifications)


def find(conn: sqlite3.Connection, notification_id: str, app: str | None) -> tuple[int, Notification] | None:
    """Find a notification and its ``seq``; ``app`` limits the search to one app's (None: any)."""
    row = _FIND.one(conn, id=notification_id)
    if row is None or (app is not None and row.app != app):
        return None
    return row.seq, to_notification(row)


class ListFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The filters of a list, named as in the HTTP API; times in milliseconds since 1970."""

    user_id: str
    app: str | None = None
    status: str | None = None
    notification_type: str | None = None
    channel: str | None = None
    priority: str | None = None
    q: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int = 50
    cursor: str | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether the index alone finds the page, without reading rows outside it."""
        filters = (self.app, self.notification_type, self.channel, self.priority, self.q)
        return self.status in {None, "unread", "snoozed", "archived", "all"} and not any(f is not None for f in filters)


def list_notifications(conn: sqlite3.Connection, query: ListFilter) -> NotificationPage:
    """List a user's notifications, newest first by ``listed_at``; without ``status`` the inbox, unread and read."""
    spots, unread, more = list_places(conn, query)
    rows = rows_at(conn, [seq for _, seq, _ in spots])
    return NotificationPage(
        notifications=tuple(map(to_notification, rows)), unread_count=unread, next_cursor=cursor_after(spots, more=more)
    )


# CROSS JOIN keeps the order of the list without sorting rows, each of which may be as large as a request.
_LISTED = listed("seqs")
_ROWS_AT = Statement(Select([_LISTED], _ROWS).join(_N, JOIN.CROSS, on=_N.seq == _LISTED.c.value), NotificationRow)


def rows_at(conn: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[NotificationRow]:
    """Iterate over the notifications at ``seqs``, in their order."""
    return _ROWS_AT.each(conn, seqs=list(seqs))


Spot = tuple[int, int, int]
"""``listed_at`` and ``seq`` of a notification, the sort key of lists, and its ``revision``."""
_decode_spots = msgspec.json.Decoder(list[Spot]).decode


def cursor_after(spots: Sequence[Spot], *, more: bool) -> str | None:
    """The cursor after a page of ``spots``; None on the last page."""
    return encode_cursor("notifications", *spots[-1][:2]) if more else None


IN_INBOX: tuple[str | None, ...] = ("unread", "read", "snoozed", "archived")
"""Values of ``inbox``. NULL: scheduled, suppressed, cancelled, expired, or without the in-app channel."""


def _sources(status: str | None) -> list[tuple[str | None, str | None]]:
    """The (place, notification status) pairs that the filter ``status`` covers; a None status means any."""
    match status:
        case None:
            return [("unread", None), ("read", None)]
        case "read":
            return [("read", None), (None, "read")]  # without the in-app channel it has a status but no inbox place
        case "unread" | "snoozed" | "archived":
            return [(status, None)]
        case "all":
            return [(place, None) for place in (None, *IN_INBOX)]
        case _:
            return [(place, status) for place in (None, *IN_INBOX)]


def list_places(conn: sqlite3.Connection, query: ListFilter) -> tuple[list[Spot], int, bool]:
    """The spots of a page of ``list_notifications``, the unread count, and whether more follow."""
    where, values = conditions(
        [
            ("app = ?", query.app),
            ("notification_type = ?", query.notification_type),
            ("priority = ?", query.priority),
        ]
    )
    if query.channel is not None:
        where.append(
            "CASE WHEN json_valid(channels) THEN EXISTS (SELECT 1 FROM json_each(channels) WHERE value = ?) END"
        )
        values.append(query.channel)
    index = "INDEXED BY notifications_inbox"
    if query.q:
        matches = search.conditions_of(conn, query.q)
        where += matches.where
        values += matches.values
        index = "NOT INDEXED" if matches.narrow else index
    # The index is ordered by place, then time: take the newest of each place, then the newest of those.
    searches, given = [], []
    for place, status in _sources(query.status):
        by_status, status_values = conditions([("status = ?", status)])
        for bounds, ends in _spans(query):
            searches.append(
                f"SELECT * FROM (SELECT listed_at, seq, revision FROM notifications {index}"
                f"{clause(['user_id = ?', 'inbox IS ?', *bounds, *by_status, *where])} "
                "ORDER BY listed_at DESC, seq DESC LIMIT ?)"
            )
            given += [query.user_id, place, *ends, *status_values, *values, query.limit + 1]
    # One row, since each row of a result costs a release of the interpreter lock (``execute_rows``).
    found = f"SELECT json_group_array(json_array(listed_at, seq, revision)) FROM ({' UNION ALL '.join(searches)})"
    spots = _decode_spots(conn.execute(found, given).fetchone()[0])
    spots.sort(reverse=True)
    return spots[: query.limit], unread_count(conn, query.user_id, query.app), len(spots) > query.limit


def _spans(query: ListFilter) -> list[tuple[list[str], list[Any]]]:
    """The ranges of an index over (…, listed_at, seq) that contain the page, as conditions with their values."""
    if query.cursor is None:
        return [conditions([("listed_at >= ?", query.since), ("listed_at < ?", query.until)])]
    at, seq = decode_cursor(query.cursor, "notifications", 2)
    until = at if query.until is None else min(at, query.until)
    spans = [conditions([("listed_at >= ?", query.since), ("listed_at < ?", until)])]
    if (query.since is None or query.since <= at) and (query.until is None or query.until > at):
        # A range of its own: for (listed_at, seq) < (?, ?) SQLite uses only listed_at and would read every tie.
        spans.append((["listed_at = ?", "seq < ?"], [at, seq]))
    return spans


_UNREAD = _I.select(fn.COALESCE(fn.SUM(_I.unread), 0)).where(_I.user_id == slot("user_id"))
_UNREAD_OF_ALL = Statement(_UNREAD)
_UNREAD_OF_APP = Statement(_UNREAD.where(_I.app == slot("app")))


def unread_count(conn: sqlite3.Connection, user_id: str, app: str | None) -> int:
    """Count the unread notifications of the user's inbox, of one app or all."""
    return int((_UNREAD_OF_ALL if app is None else _UNREAD_OF_APP).value(conn, user_id=user_id, app=app))


_AFTER = TextStatement(
    f"SELECT {COLUMNS} FROM notifications INDEXED BY notifications_revision "
    "WHERE revision > :after AND revision <= :until AND (:user_id IS NULL OR user_id = :user_id) "
    "AND (:app IS NULL OR app = :app) ORDER BY revision",
    NotificationRow,
    reason="an index hint",
)


def notifications_after(
    conn: sqlite3.Connection, revision: int, until: int, user_id: str | None, app: str | None
) -> Iterator[NotificationRow]:
    """Iterate over notifications changed after ``revision`` and up to ``until``, oldest change first."""
    return _AFTER.each(conn, after=revision, until=until, user_id=user_id, app=app)


def to_notification(row: NotificationRow) -> Notification:
    """Convert a row."""
    return Notification(
        id=decode_id(row.id),
        user_id=row.user_id,
        app=row.app,
        title=row.title,
        message=row.message,
        notification_type=row.notification_type,
        channels=from_strings(row.channels),
        priority=row.priority,
        status=row.status,
        inbox=row.inbox,
        data=from_object(row.data),
        actions=decode_json(_decode_actions, row.actions, ()),
        collapse_key=row.collapse_key,
        created_at=to_datetime(row.created_at),
        scheduled_at=_datetime(row.scheduled_at),
        expires_at=_datetime(row.expires_at),
        sent_at=_datetime(row.sent_at),
        delivered_at=_datetime(row.delivered_at),
        read_at=_datetime(row.read_at),
        archived_at=_datetime(row.archived_at),
        snoozed_until=_datetime(row.snoozed_until),
        count=row.count,
        listed_at=to_datetime(row.listed_at),
    )


def _datetime(ms: int | None) -> Any:
    return None if ms is None else to_datetime(ms)
