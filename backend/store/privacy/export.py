"""Read rows for exports, one slice per short read: no snapshot stays open, and memory is bounded.

Rows written after the export began are left out, and so are rows erased meanwhile.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from peewee import Expression, Field, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import Activity, Notification, Session
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.activities import ACTIVITY_SEQS, to_activity
from flashflow.backend.store.activity.models import UserActivity, UserSession
from flashflow.backend.store.activity.session_cache import SessionRow
from flashflow.backend.store.activity.session_table import READ_COLUMNS, SESSION_SEQS, sessions_at, to_session
from flashflow.backend.store.activity.user_index import ACTIVITIES_BY_SEQ, ActivityRow, IndexQuery, Place
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.models import BaseModel
from flashflow.backend.store.engine.sql import Taken, take
from flashflow.backend.store.engine.statement import Statement, TextStatement, any_or_same, by_index, slot, variants
from flashflow.backend.store.notifications import models
from flashflow.backend.store.notifications.notifications import (
    NOTIFICATION_SEQS,
    NOTIFICATIONS_BY_SEQ,
    NotificationRow,
    rows_at,
    to_notification,
)
from flashflow.backend.store.rollups.partitions import ALWAYS, BY_PART, SESSION_PARTITIONS

T = TypeVar("T")
R = TypeVar("R", ActivityRow, SessionRow, NotificationRow)
_Row = TypeVar("_Row", bound=tuple[Any, ...])
_AnyStatement = Statement[_Row] | TextStatement[_Row]
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
    return _by_seq(store, _ACTIVITIES, which, to_activity)


def sessions(store: Store, which: ExportFilter) -> Iterator[Sequence[Session]]:
    """Sessions in the order they were opened."""
    if which.user_id is None:
        return _by_seq(store, _SESSIONS, which, to_session)
    return _at(store, _seqs_of_user(store, _SESSIONS_OF_USER, which), sessions_at, to_session)


def notifications(store: Store, which: ExportFilter) -> Iterator[Sequence[Notification]]:
    """Notifications in the order of creation, without device tokens, which are secrets."""
    if which.user_id is None:
        return _by_seq(store, _NOTIFICATIONS, which, to_notification)
    return _at(store, _seqs_of_user(store, _NOTIFICATIONS_OF_USER, which), rows_at, to_notification)


def _seqs_of_user(store: Store, query: _AnyStatement[tuple[Any, ...]], which: ExportFilter) -> Sequence[int]:
    """Read the seqs of a user's rows, 8 bytes each: no index has them by age."""
    values = _values(which)
    return store.read(lambda conn: array("q", (seq for (seq,) in query.each(conn, **values))))


def _at(
    store: Store,
    seqs: Sequence[int],
    read: Callable[[sqlite3.Connection, Sequence[int]], Iterator[R]],
    record: Callable[[R], T],
) -> Iterator[Sequence[T]]:
    """Slices of the rows at ``seqs``, which ascend. Rows deleted meanwhile are left out."""
    start = 0
    while start < len(seqs):
        wanted: Sequence[int] = seqs[start : start + SLICE]
        found: Taken[R] = store.read(lambda conn, wanted=wanted: _slice(read(conn, wanted)))  # type: ignore[misc]
        start = bisect_right(seqs, found.rows[-1].seq, start) if found.more else start + SLICE
        yield [record(row) for row in found.rows]


def _values(which: ExportFilter) -> dict[str, Any]:
    """Return the values of a query's filters."""
    return {
        "user_id": which.user_id,
        "app": which.app,
        "since": -ALWAYS if which.since is None else which.since,
        "before": ALWAYS if which.until is None else which.until,
    }


class _Source(NamedTuple, Generic[R]):
    """A table whose rows are exported by ``seq``: the highest ``seq``, the last one before the next row, the rows."""

    last: Callable[[sqlite3.Connection], int]
    following: Statement[tuple[Any, ...]]
    rows: _AnyStatement[R]


def _by_seq(store: Store, source: _Source[R], which: ExportFilter, record: Callable[[R], T]) -> Iterator[Sequence[T]]:
    """Slices by ``seq``, up to the last row at the start."""
    seq: int | None = _LOWEST
    values = _values(which)
    top = store.read(source.last)
    # Imported rows have far lower seqs than rows made here: skip the gap instead of scanning it.
    while (seq := store.read(lambda conn, after=seq: source.following.value(conn, after=after))) is not None:  # type: ignore[misc]
        if seq >= top:
            return
        end: int = min(top, seq + SCAN)
        given: dict[str, Any] = values | {"after": seq, "until": end}
        found: Taken[R] = store.read(lambda conn, given=given: _slice(source.rows.each(conn, **given)))  # type: ignore[misc]
        yield [record(row) for row in found.rows]
        seq = found.rows[-1].seq if found.more else end


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
    return _slice(user_index.rows_at(conn, [place.seq for place in places]))


def _slice(rows: Iterable[R]) -> Taken[R]:
    return take(rows, SLICE, SLICE_BYTES)


# --- statements -------------------------------------------------------------------------------------------------------

_A, _S, _N = UserActivity, UserSession, models.Notification


@variants((_A, _S, _N))
def _following(model: type[BaseModel]) -> Statement[tuple[Any, ...]]:
    seq = model._meta.fields["seq"]
    return Statement(model.select(fn.MIN(seq) - 1).where(seq > slot("after")))


def _within(time: Field[int]) -> Expression:
    condition: Expression = any_or_same(time.model.app) & (time >= slot("since")) & (time < slot("before"))
    return condition


_ACTIVITIES = _Source(
    ACTIVITY_SEQS.last, _following(_A), Statement(lambda: ACTIVITIES_BY_SEQ.where(_within(_A.timestamp)), ActivityRow)
)
_OF_SESSIONS = "(:app IS NULL OR app = :app) AND start_time >= :since AND start_time < :before"
_SESSIONS = _Source(
    SESSION_SEQS.last,
    _following(_S),
    TextStatement(
        f"SELECT {READ_COLUMNS} FROM user_sessions NOT INDEXED WHERE seq > :after AND seq <= :until "
        f"AND {_OF_SESSIONS} ORDER BY seq",
        SessionRow,
        reason="a join order",
    ),
)
_SESSIONS_OF_USER = TextStatement(
    f"WITH RECURSIVE {SESSION_PARTITIONS} SELECT seq FROM {BY_PART} WHERE user_id = :user_id AND {_OF_SESSIONS} "
    "ORDER BY seq",
    reason="an index on an expression, by a recursive query",
)
_NOTIFICATIONS = _Source(
    NOTIFICATION_SEQS.last,
    _following(_N),
    Statement(lambda: NOTIFICATIONS_BY_SEQ.where(_within(_N.created_at)), NotificationRow),
)
_NOTIFICATIONS_OF_USER = Statement(
    lambda: (
        _N.select(_N.seq)
        .from_(by_index(_N, "notifications_inbox"))
        .where(_N.user_id == slot("user_id"), _within(_N.created_at))
        .order_by(_N.seq)
    )
)
