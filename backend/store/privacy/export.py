"""Read rows for exports, one slice per short read: no snapshot stays open, and memory is bounded.

Rows written after the export began are left out, and so are rows erased meanwhile.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from flashflow.backend.schemas.records import Activity, Notification, Session
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.activities import ACTIVITY_SEQS, to_activity
from flashflow.backend.store.activity.session_cache import SessionRow
from flashflow.backend.store.activity.session_table import READ_COLUMNS, SESSION_SEQS, sessions_at, to_session
from flashflow.backend.store.activity.user_index import COLUMNS, ActivityRow, IndexQuery, Place
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.sql import Taken, clause, conditions, take
from flashflow.backend.store.notifications.notifications import COLUMNS as NOTIFICATION_COLUMNS
from flashflow.backend.store.notifications.notifications import (
    NOTIFICATION_SEQS,
    NotificationRow,
    rows_at,
    to_notification,
)
from flashflow.backend.store.rollups.partitions import ALWAYS, BY_PART, SESSION_PARTITIONS

T = TypeVar("T")
SLICE = 500
"""Rows in one slice of an export."""
SLICE_BYTES = 256 * 1024
"""A slice ends once its rows have this many bytes; a single row may be larger."""
_LOWEST = -(1 << 62)
SCAN = 20_000
"""Rows that one slice may scan for matches."""


class ExportFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filter of an export: times in milliseconds since 1970, ``since`` inclusive, ``until`` exclusive, compared with an
    activity's timestamp, a session's start, a notification's creation."""

    user_id: str | None = None
    app: str | None = None
    since: int | None = None
    until: int | None = None


def activities(store: Store, which: ExportFilter) -> Iterator[Sequence[Activity]]:
    """Activities in the order of arrival; of one user by timestamp."""
    if which.user_id is not None:
        return _of_user(store, which)
    where, values = _filters(which, "timestamp")
    columns = ", ".join(COLUMNS.values())
    query = f"SELECT {columns} FROM user_activities NOT INDEXED{clause(['seq > ?', 'seq <= ?', *where])} "
    return _by_seq(
        store, "user_activities", ACTIVITY_SEQS.last, query, values, lambda row: to_activity(ActivityRow._make(row))
    )


def sessions(store: Store, which: ExportFilter) -> Iterator[Sequence[Session]]:
    """Sessions in the order they were opened."""
    where, values = _filters(which, "start_time")
    if which.user_id is None:
        bounded = clause(["seq > ?", "seq <= ?", *where])
        query = f"SELECT {READ_COLUMNS} FROM user_sessions NOT INDEXED{bounded} "
        return _by_seq(
            store, "user_sessions", SESSION_SEQS.last, query, values, lambda row: to_session(SessionRow._make(row))
        )
    query = f"WITH RECURSIVE {SESSION_PARTITIONS} SELECT seq FROM {BY_PART}{clause(where)} ORDER BY seq"
    seqs = store.read(lambda conn: array("q", (seq for (seq,) in conn.execute(query, values))))
    return _at(store, seqs, sessions_at, to_session)


def notifications(store: Store, which: ExportFilter) -> Iterator[Sequence[Notification]]:
    """Notifications in the order of creation, without device tokens, which are secrets."""
    where, values = _filters(which, "created_at")
    if which.user_id is not None:
        return _notifications_of(store, clause(where), values)
    query = f"SELECT {NOTIFICATION_COLUMNS} FROM notifications NOT INDEXED{clause(['seq > ?', 'seq <= ?', *where])} "
    return _by_seq(store, "notifications", NOTIFICATION_SEQS.last, query, values, _to_notification)


def _notifications_of(store: Store, where: str, values: Sequence[Any]) -> Iterator[Sequence[Notification]]:
    # No index has a user's notifications by age, so their seqs (8 bytes each) are sorted first.
    query = f"SELECT seq FROM notifications INDEXED BY notifications_inbox{where} ORDER BY seq"
    seqs = store.read(lambda conn: array("q", (seq for (seq,) in conn.execute(query, values))))
    return _at(store, seqs, rows_at, to_notification)


def _to_notification(row: tuple[Any, ...]) -> Notification:
    return to_notification(NotificationRow._make(row))


def _at(
    store: Store,
    seqs: Sequence[int],
    read: Callable[[sqlite3.Connection, Sequence[int]], Iterator[tuple[Any, ...]]],
    record: Callable[[Any], T],
) -> Iterator[Sequence[T]]:
    """Slices of the rows at ``seqs``, which ascend. Rows deleted meanwhile are left out."""
    start = 0
    while start < len(seqs):
        rows, more = store.read(
            lambda conn, given=seqs[start : start + SLICE]: take(read(conn, given), SLICE, SLICE_BYTES)  # type: ignore[misc]
        )
        start = bisect_right(seqs, rows[-1][0], start) if more else start + SLICE
        yield [record(row) for row in rows]


def _filters(which: ExportFilter, time_column: str) -> tuple[list[str], list[Any]]:
    return conditions(
        [
            ("user_id = ?", which.user_id),
            ("app = ?", which.app),
            (f"{time_column} >= ?", which.since),
            (f"{time_column} < ?", which.until),
        ]
    )


def _by_seq(
    store: Store,
    table: str,
    last: Callable[[sqlite3.Connection], int],
    query: str,
    values: Sequence[Any],
    record: Callable[[tuple[Any, ...]], T],
) -> Iterator[Sequence[T]]:
    """Slices by ``seq``, up to the last row at the start."""
    following = f"SELECT MIN(seq) - 1 FROM {table} WHERE seq > ?"
    seq: int | None = _LOWEST
    top = store.read(last)
    # Imported rows have far lower seqs than rows made here: skip the gap instead of scanning it.
    while (seq := store.read(lambda conn, after=seq: conn.execute(following, (after,)).fetchone()[0])) is not None:  # type: ignore[misc]
        if seq >= top:
            return
        end = min(top, seq + SCAN)
        bounds = (seq, end, *values)
        rows, more = store.read(
            lambda conn, given=bounds: take(conn.execute(f"{query}ORDER BY seq", given), SLICE, SLICE_BYTES)  # type: ignore[misc]
        )
        yield [record(row) for row in rows]
        seq = rows[-1][0] if more else end


def _of_user(store: Store, which: ExportFilter) -> Iterator[Sequence[Activity]]:
    query = IndexQuery(
        str(which.user_id),
        -ALWAYS if which.since is None else which.since,
        ALWAYS if which.until is None else which.until - 1,
        app=which.app,
        last=store.read(ACTIVITY_SEQS.last),
    )
    while True:
        rows, more = store.read(lambda conn, query=query: _oldest(conn, query))  # type: ignore[misc]
        yield [to_activity(row) for row in rows]
        if not more:
            return
        place = Place(rows[-1].timestamp, rows[-1].seq)
        query = query._replace(low=place.timestamp, after=place)


def _oldest(conn: sqlite3.Connection, query: IndexQuery) -> Taken[ActivityRow]:
    places = user_index.places_of_user(conn, query, SLICE + 1, oldest=True)
    return take(user_index.rows_at(conn, [place.seq for place in places]), SLICE, SLICE_BYTES)
