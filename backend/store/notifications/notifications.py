"""The ``notifications`` table: insert, find, list newest first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import msgspec
from peewee import JOIN, SQL, Case, ColumnBase, Expression, NodeList, Select, SelectBase, fn

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import (
    decode_cursor,
    decode_id,
    decode_json,
    encode_cursor,
    from_object,
    from_strings,
)
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import (
    Action,
    Inbox,
    Notification,
    NotificationPage,
    NotificationStatus,
    Priority,
)
from flashflow.backend.store.engine.numbers import Numbers, last_revision, last_seq
from flashflow.backend.store.engine.statement import (
    Statement,
    any_or_same,
    by_index,
    columns,
    listed,
    same,
    slot,
    variants,
)
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
NOTIFICATION_SEQS = Numbers(Statement(lambda: last_seq(_N)))
NOTIFICATION_REVISIONS = Numbers(Statement(lambda: last_revision(_N)))
_ROWS = columns(_N, NotificationRow, stored=NotificationRow._fields)
_INSERT = Statement(lambda: _N.insert({getattr(_N, name): slot(name) for name in NewNotification._fields}))
_FIND = Statement(lambda: _N.select(*_ROWS).where(_N.id == slot("id", _N.id)), NotificationRow)


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
        places = {None, "unread", "snoozed", "archived", "all"}
        return self.status in places and self.app is None and self.q is None and not self.has_filters

    @property
    def has_filters(self) -> bool:
        """Whether there is a filter other than user, app, status, time and text."""
        return any(f is not None for f in (self.notification_type, self.channel, self.priority))


def list_notifications(conn: sqlite3.Connection, query: ListFilter) -> NotificationPage:
    """List a user's notifications, newest first by ``listed_at``; without ``status`` the inbox, unread and read."""
    spots, unread, more = list_places(conn, query)
    rows = rows_at(conn, [spot.seq for spot in spots])
    return NotificationPage(
        notifications=tuple(map(to_notification, rows)), unread_count=unread, next_cursor=cursor_after(spots, more=more)
    )


# CROSS JOIN keeps the order of the list without sorting rows, each of which may be as large as a request.
_LISTED = listed("seqs")
_ROWS_AT = Statement(
    lambda: Select([_LISTED], _ROWS).join(_N, JOIN.CROSS, on=_N.seq == _LISTED.c.value), NotificationRow
)


def rows_at(conn: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[NotificationRow]:
    """Iterate over the notifications at ``seqs``, in their order."""
    return _ROWS_AT.each(conn, seqs=list(seqs))


_ALWAYS = 1 << 62
"""A time later than any, in milliseconds since 1970."""


class Spot(NamedTuple):
    """The sort key of a notification in lists, and its revision."""

    listed_at: int
    seq: int
    revision: int


_decode_spots = msgspec.json.Decoder(list[Spot]).decode


def cursor_after(spots: Sequence[Spot], *, more: bool) -> str | None:
    """The cursor after a page of ``spots``; None on the last page."""
    return encode_cursor("notifications", spots[-1].listed_at, spots[-1].seq) if more else None


IN_INBOX: tuple[str | None, ...] = ("unread", "read", "snoozed", "archived")
"""Values of ``inbox``. NULL: scheduled, suppressed, cancelled, expired, or without the in-app channel."""


_EVERY = [same(_N.inbox, place) for place in (None, *IN_INBOX)]
_SOURCES: Mapping[str, Sequence[Expression]] = {
    "inbox": [same(_N.inbox, "unread"), same(_N.inbox, "read")],
    "place": [same(_N.inbox, slot("status"))],
    # Without the in-app channel a notification has a status but no inbox place.
    "read": [same(_N.inbox, "read"), same(_N.inbox, None) & (_N.status == "read")],
    "all": _EVERY,
    "status": [place & (_N.status == slot("status")) for place in _EVERY],
}
"""The conditions on ``inbox`` and ``status`` whose rows a list merges, by the kind of its filter ``status``."""


def _kind(status: str | None) -> str:
    match status:
        case None:
            return "inbox"
        case "unread" | "snoozed" | "archived":
            return "place"
        case "read" | "all":
            return status
        case _:
            return "status"


_ANY = (
    any_or_same(_N.app),
    any_or_same(_N.notification_type),
    any_or_same(_N.priority),
    slot("channel").is_null()
    | Case(
        None,
        [
            (
                fn.json_valid(_N.channels),
                fn.EXISTS(
                    Select([NodeList((SQL("json_each("), _N.channels, SQL(")")))], [SQL("1")]).where(
                        SQL("value") == slot("channel")
                    )
                ),
            )
        ],
    ),
)


# The filters of most lists: none, or an app's key. The query with all of them tests each at every row.
_FILTERS: Mapping[str, Sequence[ColumnBase]] = {"none": (), "app": (_N.app == slot("app"),), "all": _ANY}


_SPAN = (_N.listed_at >= slot("since")) & (_N.listed_at < slot("until"))
# A range of its own: for (listed_at, seq) < (?, ?) SQLite uses only listed_at and would read every tie.
_TIES = (_N.listed_at == slot("at")) & (_N.seq < slot("before"))
_SPANS: Mapping[str, Sequence[Sequence[Expression]]] = {"all": [()], "between": [[_SPAN]], "after": [[_SPAN], [_TIES]]}
"""The ranges of (listed_at, seq) that contain a page."""


@variants(_SOURCES, _SPANS, _FILTERS, search.FORMS)
def _find_spots(kind: str, range_: str, filters: str, form: search.Form) -> Statement[tuple[str]]:
    """Build the query for the spots of a page as one JSON list."""
    # The index is ordered by place, then time: take the newest of each place, then the newest of those.
    where = (*_FILTERS[filters], *search.conditions(form))
    index = None if form.narrow else "notifications_inbox"
    newest = [
        _N.select(_N.listed_at, _N.seq, _N.revision)
        .from_(by_index(_N, index))
        .where(_N.user_id == slot("user_id"), source, *span, *where)
        .order_by(_N.listed_at.desc(), _N.seq.desc())
        .limit(slot("limit"))
        for source in _SOURCES[kind]
        for span in _SPANS[range_]
    ]
    each: list[SelectBase] = [Select([query], [SQL("*")]) for query in newest]
    found = reduce(SelectBase.union_all, each)
    # One row, since each row of a result costs a release of the interpreter lock (``execute_rows``).
    return Statement(Select([found], [fn.json_group_array(fn.json_array(*map(SQL, Spot._fields)))]))


def list_places(conn: sqlite3.Connection, query: ListFilter) -> tuple[list[Spot], int, bool]:
    """The spots of a page of ``list_notifications``, the unread count, and whether more follow."""
    form, values = search.search(conn, query.q) if query.q else search.EVERY
    range_, since, until, at, before = _range(query)
    filters = "all" if query.has_filters else "none" if query.app is None else "app"
    found = _find_spots(_kind(query.status), range_, filters, form).value(
        conn,
        user_id=query.user_id,
        status=query.status,
        app=query.app,
        notification_type=query.notification_type,
        priority=query.priority,
        channel=query.channel,
        since=since,
        until=until,
        at=at,
        before=before,
        limit=query.limit + 1,
        **values,
    )
    spots = _decode_spots(found)
    spots.sort(reverse=True)
    return spots[: query.limit], unread_count(conn, query.user_id, query.app), len(spots) > query.limit


class _Range(NamedTuple):
    """The kind of the ranges (_SPANS) that contain a page, and their bounds; ``at`` None: no row is a tie."""

    kind: str
    since: int = -_ALWAYS
    until: int = _ALWAYS
    at: int | None = None
    before: int | None = None


def _range(query: ListFilter) -> _Range:
    if query.cursor is None and query.since is None and query.until is None:
        return _EVERYTHING
    since = -_ALWAYS if query.since is None else query.since
    until = _ALWAYS if query.until is None else query.until
    if query.cursor is None:
        return _Range("between", since, until)
    at, before = decode_cursor(query.cursor, "notifications", 2)
    return _Range("after", since, min(at, until), at if since <= at < until else None, before)


_EVERYTHING = _Range("all")
_UNREAD = _I.select(fn.COALESCE(fn.SUM(_I.unread), 0)).where(_I.user_id == slot("user_id"))
_UNREAD_OF_ALL = Statement(_UNREAD)
_UNREAD_OF_APP = Statement(lambda: _UNREAD.where(_I.app == slot("app")))


def unread_count(conn: sqlite3.Connection, user_id: str, app: str | None) -> int:
    """Count the unread notifications of the user's inbox, of one app or all."""
    return int((_UNREAD_OF_ALL if app is None else _UNREAD_OF_APP).value(conn, user_id=user_id, app=app))


_AFTER = Statement(
    lambda: (
        _N.select(*_ROWS)
        .from_(by_index(_N, "notifications_revision"))
        .where(_N.revision > slot("after"), _N.revision <= slot("until"), any_or_same(_N.user_id), any_or_same(_N.app))
        .order_by(_N.revision)
    ),
    NotificationRow,
)
NOTIFICATIONS_BY_SEQ = (
    _N.select(*_ROWS).from_(by_index(_N, None)).where(_N.seq > slot("after"), _N.seq <= slot("until")).order_by(_N.seq)
)
"""The query for the notifications after a ``seq`` up to another one."""


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
