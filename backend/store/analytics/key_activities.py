"""Key activities: activity types that make a session engaged and count for adoption.

A change recounts all stored sessions, in short transactions between other writes. Each session is recounted from its
own activities, so concurrent writes do not matter, and the recount continues after a restart.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from peewee import Value, fn

from flashflow.backend.core.events import Event
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.analytics import ActivityType
from flashflow.backend.store.activity import session_rollup, user_index
from flashflow.backend.store.activity.models import KeyRecount, UserSession
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.activity.session_rollup import Counted, engaged
from flashflow.backend.store.activity.session_table import KEYS
from flashflow.backend.store.engine.statement import Statement, TextStatement, columns, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.dimensions import app_key, type_key
from flashflow.backend.store.rollups.models import OTHER, Dimension

AT_ONCE = 1_000
"""Sessions recounted in one transaction: about 20 ms of the writer's time."""
TAIL_TO_COUNT_IN = 256
"""Pending activities that each session's count may scan; with more, they are aggregated first."""


class _Type(NamedTuple):
    name: str
    marked: bool


class _Place(NamedTuple):
    """The last session recounted, and the last to recount."""

    after_seq: int
    until_seq: int


class _Session(NamedTuple):
    """A session with its stored and its recounted key activities."""

    seq: int
    app: str
    start_time: int
    end_time: int | None
    pages_visited: int
    user_id: str
    key_activities: int
    recounted: int


def list_types(conn: sqlite3.Connection) -> tuple[ActivityType, ...]:
    """List the types with counts of their own, by name."""
    return tuple(ActivityType(name=row.name, key=row.marked) for row in _TYPES.each(conn))


def mark(tx: Tx, name: str, is_key: bool) -> ActivityType | None:
    """Mark ``name`` as a key activity, or no longer, and schedule the recount. None if there is no room for another
    name."""
    before = tx.conn.total_changes
    key = type_key(tx, name)
    if key is None:
        return None
    if _MARK.run(tx.conn, key=key, marked=is_key).rowcount:
        _END.run(tx.conn)
        _BEGIN.run(tx.conn)
    elif tx.conn.total_changes != before:
        tx.events.append(Event("key_activities"))
    return ActivityType(name=name, key=is_key)


def to_recount(conn: sqlite3.Connection) -> bool:
    """Whether sessions are left to recount."""
    return _PLACE.one(conn) is not None


def recount(tx: Tx, cache: SessionCache) -> bool:
    """Recount the key activities of the next AT_ONCE sessions and update ``session_days``; return whether any are left.
    Sessions with pruned activities do not change."""
    place = _PLACE.one(tx.conn)
    if place is None:
        return False
    if user_index.tail_length(tx.conn) > TAIL_TO_COUNT_IN:
        user_index.catch_up(tx, cache.local)
    rows = _SESSIONS.all(tx.conn, after=place.after_seq, until=place.until_seq, limit=AT_ONCE)
    changed = [row for row in rows if row.key_activities != row.recounted]
    for row in changed:
        _SAVE_KEYS.run(tx.conn, seq=row.seq, key_activities=row.recounted)
    session_rollup.change(tx, _changes(tx, cache, changed))
    cache.unsettled.update(row.user_id for row in changed)
    cache.invalidate()
    if len(rows) == AT_ONCE:
        _ADVANCE.run(tx.conn, after_seq=rows[-1].seq)
        return True
    _END.run(tx.conn)
    tx.events.append(Event("key_activities"))
    return False


def _changes(tx: Tx, cache: SessionCache, rows: Sequence[_Session]) -> Iterator[tuple[Counted | None, Counted | None]]:
    """Iterate over each ended session's share of its day before and after; frozen days do not change."""
    live = session_rollup.first_live_day(tx)
    for row in rows:
        if row.end_time is None or (day := cache.local.day(row.start_time)) < live:
            continue
        duration, pages = row.end_time - row.start_time, row.pages_visited
        was, is_now = (int(engaged(duration, pages, keys)) for keys in (row.key_activities, row.recounted))
        if was != is_now:
            counted = Counted(day, app_key(tx, row.app), duration, pages, was)
            yield counted, counted._replace(engaged=is_now)


_N = Dimension
_TYPES = Statement(
    lambda: _N.select(*columns(_N, _Type)).where(_N.kind == OTHER["type"], _N.name != "").order_by(_N.name), _Type
)
_MARK = Statement(
    lambda: _N.update(slots(_N.marked)).where(_N.key == slot("key"), _N.marked != slot("marked", _N.marked))
)
_PLACE = Statement(lambda: KeyRecount.select(*columns(KeyRecount, _Place)), _Place)
_BEGIN = Statement(
    lambda: KeyRecount.insert_from(
        UserSession.select(Value(0), fn.COALESCE(fn.MAX(UserSession.seq), 0)),
        [KeyRecount.after_seq, KeyRecount.until_seq],
    )
)
_ADVANCE = Statement(lambda: KeyRecount.update(slots(KeyRecount.after_seq)))
_END = Statement(KeyRecount.delete)
_SESSIONS = TextStatement(
    "SELECT seq, app, start_time, end_time, pages_visited, user_id, key_activities, "
    f"{KEYS} AS recounted FROM user_sessions NOT INDEXED WHERE seq > :after AND seq <= :until "
    "AND start_time >= (SELECT before FROM pruned) ORDER BY seq LIMIT :limit",
    _Session,
    reason="an index hint",
)
_SAVE_KEYS = Statement(
    lambda: UserSession.update(slots(UserSession.key_activities)).where(UserSession.seq == slot("seq"))
)
