"""Notifications and their deliveries in ``notifications.db``: stored together, read newest first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import (
    decode_cursor,
    decode_id,
    decode_json,
    encode_cursor,
    encode_id,
    from_object,
    from_strings,
    to_json,
)
from flashflow.backend.schemas.records import Action, Attempt, Delivery, Notification, NotificationPage
from flashflow.backend.store.engine.sql import clause, conditions, execute_rows
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import search

COLUMNS = (
    "seq, id, user_id, app, title, message, notification_type, channels, priority, status, inbox, data, actions, "
    "collapse_key, created_at, scheduled_at, expires_at, sent_at, delivered_at, read_at, archived_at, snoozed_until, "
    "count, listed_at"
)
_decode_actions = msgspec.json.Decoder(tuple[Action, ...]).decode


class NewNotification(NamedTuple):
    """A row on its way in; times in milliseconds since 1970, objects as JSON text."""

    seq: int
    id: bytes | str
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


class NewDelivery(NamedTuple):
    """A delivery on its way in; ``next_attempt_at`` puts it into the outbox."""

    id: bytes | str
    notification_seq: int
    channel: str
    device_seq: int | None
    status: str
    code: str | None
    reason: str | None
    created_at: int
    updated_at: int
    next_attempt_at: int | None
    route: str
    release_at: int | None


_INSERT = f"INSERT INTO notifications ({', '.join(NewNotification._fields)}) VALUES {{rows}}"
_INSERT_DELIVERY = f"INSERT INTO deliveries ({', '.join(NewDelivery._fields)}) VALUES {{rows}}"


def last_places(conn: sqlite3.Connection) -> tuple[int, int]:
    """The highest ``seq`` and the highest ``revision`` ever given."""
    seq = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'notifications'").fetchone()
    return (seq[0] if seq else 0), last_revision(conn)


def last_revision(conn: sqlite3.Connection) -> int:
    """The highest ``revision`` ever given to a notification, be it gone by now."""
    return int(conn.execute(_LAST_REVISION).fetchone()[0])


_LAST_REVISION = (
    "SELECT MAX(COALESCE((SELECT MAX(revision) FROM notifications), 0), (SELECT revision FROM highest_revision))"
)


def insert(tx: Tx, notifications: Sequence[NewNotification], deliveries: Sequence[NewDelivery]) -> None:
    """Store notifications with their deliveries."""
    execute_rows(tx.conn, _INSERT, notifications)
    insert_deliveries(tx, deliveries)


def insert_deliveries(tx: Tx, deliveries: Sequence[NewDelivery]) -> None:
    """Store deliveries of notifications that are there."""
    execute_rows(tx.conn, _INSERT_DELIVERY, deliveries)


def find(conn: sqlite3.Connection, notification_id: str, app: str | None) -> tuple[int, Notification] | None:
    """A notification with its ``seq``; another app's is not found (``app`` None sees all)."""
    row = conn.execute(f"SELECT {COLUMNS} FROM notifications WHERE id = ?", (encode_id(notification_id),)).fetchone()
    if row is None or (app is not None and row[3] != app):
        return None
    return row[0], to_notification(row)


class ListFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The filters of a list, by API.md's names; times in milliseconds since 1970."""

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
        """Whether the index leads straight to the page: rows that are not on it are not read."""
        filters = (self.app, self.notification_type, self.channel, self.priority, self.q)
        return self.status in {None, "unread", "snoozed", "archived", "all"} and not any(f is not None for f in filters)


def list_notifications(conn: sqlite3.Connection, asked: ListFilter) -> NotificationPage:
    """A user's notifications, newest first by ``listed_at``; without ``status`` the inbox as its reader sees it."""
    spots, unread, more = list_places(conn, asked)
    rows = rows_at(conn, [spot.seq for spot in spots])
    return NotificationPage(
        notifications=tuple(map(to_notification, rows)), unread_count=unread, next_cursor=cursor_after(spots, more=more)
    )


def rows_at(conn: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Rows of COLUMNS in the order of ``seqs``, read one by one."""
    # CROSS JOIN keeps the order of the list, and no row has to be sorted: a row may be as large as a request.
    return conn.execute(
        f"SELECT {COLUMNS} FROM (SELECT value AS wanted FROM json_each(?)) CROSS JOIN notifications ON seq = wanted",
        (to_json(list(seqs)),),
    )


def revisions_at(conn: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[int]:
    """The revisions of the notifications at ``seqs``, in their order, read one by one: a revision stands behind the
    data in its row, so that reading it takes as long as reading those."""
    rows = conn.execute(
        "SELECT revision FROM (SELECT value AS wanted FROM json_each(?)) CROSS JOIN notifications ON seq = wanted",
        (to_json(list(seqs)),),
    )
    return (revision for (revision,) in rows)


class Spot(NamedTuple):
    """Where a notification stands in a list."""

    listed_at: int
    seq: int


def cursor_after(spots: Sequence[Spot], *, more: bool) -> str | None:
    """The cursor of a page that shows ``spots``; None where there is no more."""
    return encode_cursor("notifications", *spots[-1]) if more else None


IN_INBOX: tuple[str | None, ...] = ("unread", "read", "snoozed", "archived")
"""Places in the inbox. A row without one (NULL) is scheduled, suppressed, cancelled or expired, or has other channels
only."""


def _sources(status: str | None) -> list[tuple[str | None, str | None]]:
    """The (place, notification status) pairs that the filter ``status`` covers; a None status means any."""
    match status:
        case None:
            return [("unread", None), ("read", None)]
        case "read":
            return [("read", None), (None, "read")]  # a notification of other channels only has a status, but no place
        case "unread" | "snoozed" | "archived":
            return [(status, None)]
        case "all":
            return [(place, None) for place in (None, *IN_INBOX)]
        case _:
            return [(place, status) for place in (None, *IN_INBOX)]


def list_places(conn: sqlite3.Connection, asked: ListFilter) -> tuple[list[Spot], int, bool]:
    """The page behind list_notifications, the unread count, and whether there is more."""
    where, values = conditions(
        [
            ("app = ?", asked.app),
            ("notification_type = ?", asked.notification_type),
            ("priority = ?", asked.priority),
        ]
    )
    if asked.channel is not None:
        where.append(
            "CASE WHEN json_valid(channels) THEN EXISTS (SELECT 1 FROM json_each(channels) WHERE value = ?) END"
        )
        values.append(asked.channel)
    index = "INDEXED BY notifications_inbox"
    if asked.q:
        found = search.conditions_of(conn, asked.q)
        where += found.where
        values += found.values
        index = "NOT INDEXED" if found.narrow else index
    # The index goes by place, then by time: each place's newest are found by it, and the newest of those are the page.
    searches, given = [], []
    for place, status in _sources(asked.status):
        mine, wanted = conditions([("status = ?", status)])
        for bounds, ends in _spans(asked):
            searches.append(
                f"SELECT * FROM (SELECT listed_at, seq FROM notifications {index}"
                f"{clause(['user_id = ?', 'inbox IS ?', *bounds, *mine, *where])} "
                "ORDER BY listed_at DESC, seq DESC LIMIT ?)"
            )
            given += [asked.user_id, place, *ends, *wanted, *values, asked.limit + 1]
    rows = conn.execute(" UNION ALL ".join(searches), given).fetchall()
    rows.sort(reverse=True)
    spots = [Spot(*row) for row in rows[: asked.limit]]
    return spots, unread_count(conn, asked.user_id, asked.app), len(rows) > asked.limit


def _spans(asked: ListFilter) -> list[tuple[list[str], list[Any]]]:
    """The stretches of an index over (…, listed_at, seq) that a page can be in, as conditions with their values."""
    if asked.cursor is None:
        return [conditions([("listed_at >= ?", asked.since), ("listed_at < ?", asked.until)])]
    at, seq = decode_cursor(asked.cursor, "notifications", 2)
    until = at if asked.until is None else min(at, asked.until)
    spans = [conditions([("listed_at >= ?", asked.since), ("listed_at < ?", until)])]
    if (asked.since is None or asked.since <= at) and (asked.until is None or asked.until > at):
        # By itself: SQLite searches by the first half of (listed_at, seq) < (?, ?) only and would read every tie.
        spans.append((["listed_at = ?", "seq < ?"], [at, seq]))
    return spans


def unread_count(conn: sqlite3.Connection, user_id: str, app: str | None) -> int:
    """Unread notices in the user's inbox (of one app)."""
    where, values = conditions([("user_id = ?", user_id), ("app = ?", app)])
    row = conn.execute(f"SELECT COALESCE(SUM(unread), 0) FROM inbox_counts{clause(where)}", values).fetchone()
    return int(row[0])


def notifications_after(
    conn: sqlite3.Connection, revision: int, until: int, user_id: str | None, app: str | None
) -> Iterator[tuple[Any, ...]]:
    """Notifications that changed after ``revision`` and up to ``until``, oldest change first: rows of COLUMNS and the
    revision; read one by one."""
    where, values = conditions(
        [("revision > ?", revision), ("revision <= ?", until), ("user_id = ?", user_id), ("app = ?", app)]
    )
    return conn.execute(
        f"SELECT {COLUMNS}, revision FROM notifications INDEXED BY notifications_revision{clause(where)} "
        "ORDER BY revision",
        values,
    )


def deliveries_of(conn: sqlite3.Connection, notification_seq: int) -> tuple[Delivery, ...]:
    """Every delivery of a notification, each with its attempts, oldest first."""
    attempts: dict[int, list[Attempt]] = {}
    for seq, started, duration, outcome, code, text, following in conn.execute(
        "SELECT a.delivery_seq, a.started_at, a.duration_ms, a.outcome, a.code, a.text, a.next_try_at "
        "FROM delivery_attempts a JOIN deliveries d ON d.seq = a.delivery_seq "
        "WHERE d.notification_seq = ? ORDER BY a.seq",
        (notification_seq,),
    ):
        attempts.setdefault(seq, []).append(
            Attempt(
                started_at=to_datetime(started),
                duration_ms=duration,
                outcome=outcome,
                code=code,
                text=text,
                next_try_at=_moment(following),
            )
        )
    rows = conn.execute(
        "SELECT d.seq, d.id, d.channel, t.platform, d.status, d.code, d.reason, d.created_at, d.updated_at, "
        "d.next_attempt_at, d.release_at, d.tries, d.retry_until "
        "FROM deliveries d LEFT JOIN device_tokens t ON t.seq = d.device_seq "
        "WHERE d.notification_seq = ? ORDER BY d.seq",
        (notification_seq,),
    )
    return tuple(
        Delivery(
            id=decode_id(id_),
            channel=channel,
            target=platform,
            status=status,
            code=code,
            reason=reason,
            created_at=to_datetime(created),
            updated_at=to_datetime(updated),
            next_attempt_at=_moment(following),
            attempts=tuple(attempts.get(seq, ())),
            release_at=_moment(release) if status == "held" else None,
            tries=tries,
            retry_until=_moment(until) if status in {"pending", "sending"} else None,
        )
        for (
            seq, id_, channel, platform, status, code, reason, created, updated, following, release, tries, until,
        ) in rows
    )  # fmt: skip


def deliveries_by_notification(
    conn: sqlite3.Connection, notification_ids: Sequence[str]
) -> dict[str, tuple[Delivery, ...]]:
    """``deliveries_of`` for each of them that is still there."""
    found = {}
    for id_ in notification_ids:
        row = conn.execute("SELECT seq FROM notifications WHERE id = ?", (encode_id(id_),)).fetchone()
        if row is not None:
            found[id_] = deliveries_of(conn, row[0])
    return found


def to_notification(row: tuple[Any, ...]) -> Notification:
    """A row of COLUMNS as the record."""
    (
        _, id_, user_id, app, title, message, kind, channels, priority, status, inbox, data, actions, collapse,
        created, scheduled, expires, sent, delivered, read, archived, snoozed, count, listed,
    ) = row  # fmt: skip
    return Notification(
        id=decode_id(id_),
        user_id=user_id,
        app=app,
        title=title,
        message=message,
        notification_type=kind,
        channels=from_strings(channels),
        priority=priority,
        status=status,
        inbox=inbox,
        data=from_object(data),
        actions=decode_json(_decode_actions, actions, ()),
        collapse_key=collapse,
        created_at=to_datetime(created),
        scheduled_at=_moment(scheduled),
        expires_at=_moment(expires),
        sent_at=_moment(sent),
        delivered_at=_moment(delivered),
        read_at=_moment(read),
        archived_at=_moment(archived),
        snoozed_until=_moment(snoozed),
        count=count,
        listed_at=to_datetime(listed),
    )


def _moment(ms: int | None) -> Any:
    return None if ms is None else to_datetime(ms)
