"""Key activities: activity types that make a session engaged and count for adoption.

A change recounts all stored sessions, in short transactions between other writes. Each session is recounted from its
own activities, so concurrent writes do not matter, and the recount continues after a restart.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from flashflow.backend.core.events import Event
from flashflow.backend.schemas.analytics import ActivityType
from flashflow.backend.store.activity import session_rollup, user_index
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.activity.session_rollup import Counted, engaged
from flashflow.backend.store.activity.session_table import KEYS
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.dimensions import app_key, type_key
from flashflow.backend.store.rollups.models import OTHER

AT_ONCE = 1_000
"""Sessions recounted in one transaction: about 20 ms of the writer's time."""
TAIL_TO_COUNT_IN = 256
"""Pending activities that each session's count may scan; with more, they are aggregated first."""


def list_types(conn: sqlite3.Connection) -> tuple[ActivityType, ...]:
    """List the types with counts of their own, by name."""
    rows = conn.execute(
        "SELECT name, marked FROM figure_names WHERE kind = ? AND name <> '' ORDER BY name", (OTHER["type"],)
    )
    return tuple(ActivityType(name=name, key=bool(marked)) for name, marked in rows)


def mark(tx: Tx, name: str, is_key: bool) -> ActivityType | None:
    """Mark ``name`` as a key activity, or no longer, and schedule the recount. None if there is no room for another
    name."""
    before = tx.conn.total_changes
    key = type_key(tx, name)
    if key is None:
        return None
    changed = tx.conn.execute(
        "UPDATE figure_names SET marked = ? WHERE key = ? AND marked <> ?", (is_key, key, is_key)
    ).rowcount
    if changed:
        tx.conn.execute("DELETE FROM key_recount")
        tx.conn.execute("INSERT INTO key_recount SELECT 0, COALESCE(MAX(seq), 0) FROM user_sessions")
    elif tx.conn.total_changes != before:
        tx.events.append(Event("key_activities"))
    return ActivityType(name=name, key=is_key)


def to_recount(conn: sqlite3.Connection) -> bool:
    """Whether sessions are left to recount."""
    return conn.execute("SELECT 1 FROM key_recount").fetchone() is not None


def recount(tx: Tx, cache: SessionCache) -> bool:
    """Recount the key activities of the next AT_ONCE sessions and update ``session_days``; return whether any are left.
    Sessions with pruned activities do not change."""
    place = tx.conn.execute("SELECT after_seq, until_seq FROM key_recount").fetchone()
    if place is None:
        return False
    if user_index.tail_length(tx.conn) > TAIL_TO_COUNT_IN:
        user_index.catch_up(tx, cache.local)
    rows = tx.conn.execute(_SESSIONS, (*place, AT_ONCE)).fetchall()
    changed = [row for row in rows if row[6] != row[7]]
    tx.conn.executemany("UPDATE user_sessions SET key_activities = ? WHERE seq = ?", [(r[7], r[0]) for r in changed])
    session_rollup.change(tx, _changes(tx, cache, changed))
    cache.unsettled.update(row[5] for row in changed)
    cache.invalidate()
    if len(rows) == AT_ONCE:
        tx.conn.execute("UPDATE key_recount SET after_seq = ?", (rows[-1][0],))
        return True
    tx.conn.execute("DELETE FROM key_recount")
    tx.events.append(Event("key_activities"))
    return False


def _changes(
    tx: Tx, cache: SessionCache, rows: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[Counted | None, Counted | None]]:
    """Iterate over each ended session's share of its day before and after; frozen days do not change."""
    (frozen,) = tx.conn.execute("SELECT COALESCE(frozen_before, -1) FROM figures_state").fetchone()
    for _, app, start, end, pages, _, before, now in rows:
        if end is None or (day := cache.local.day(start)) < frozen:
            continue
        was, is_now = (int(engaged(end - start, pages, keys)) for keys in (before, now))
        if was != is_now:
            counted = Counted(day, app_key(tx, app), end - start, pages, was)
            yield counted, counted._replace(engaged=is_now)


_SESSIONS = (
    f"SELECT seq, app, start_time, end_time, pages_visited, user_id, key_activities, {KEYS} FROM user_sessions "
    "NOT INDEXED WHERE seq > ? AND seq <= ? AND start_time >= (SELECT before FROM pruned) ORDER BY seq LIMIT ?"
)
