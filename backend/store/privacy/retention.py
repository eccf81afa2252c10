"""Delete the oldest rows in short transactions. Counters and rollups keep their values.

``pruned.before`` is the time before which activities may be missing: nothing may be recalculated from them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from peewee import SQL, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.models import ActivityByUser, UserActivity, UserSession
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.engine.statement import Statement, among, columns, differs, slot
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.models import Delivery, Notification
from flashflow.backend.store.privacy import models
from flashflow.backend.store.rollups.models import RollupState, UserKey
from flashflow.backend.store.rollups.partitions import BITS, LONG, drop_empty


class Entry(NamedTuple):
    """An activity in the index by user."""

    seq: int
    user_id: str
    timestamp: int


class Slice(NamedTuple):
    """One transaction's share: at most ``limit`` rows older than ``before`` (milliseconds since 1970)."""

    before: int
    limit: int


class Pruned(NamedTuple):
    """Rows deleted by one slice; ``through`` is the latest timestamp of its activities, 0 without any."""

    activities: int = 0
    sessions: int = 0
    notifications: int = 0
    through: int = 0

    def __bool__(self) -> bool:
        return bool(self.activities or self.sessions or self.notifications)


def prune_activities(tx: Tx, which: Slice, cache: SessionCache) -> Pruned:
    """Delete the oldest activities; once there are none that old, sessions that ended before ``which.before``."""
    user_index.count_tail(tx)  # rows must be in the rollups before they are deleted
    while user_index.catch_up(tx, cache.local):
        pass
    rows = _ACTIVITIES.all(tx.conn, before=which.before, limit=which.limit)
    if rows:
        seqs = [row.seq for row in rows]
        heavy_users.subtract(tx, seqs)
        DELETE_ACTIVITIES.run(tx.conn, seqs=seqs)
        delete_from_user_index(tx.conn, rows)
        through = rows[-1].timestamp
        drop_empty(tx.conn, through)
        # The rollups of these days can no longer be checked against the rows: they are frozen.
        _FREEZE.run(tx.conn, before=cache.local.day(through) + 1)
        _NOTE_PRUNED.run(tx.conn, before=through + 1)
        return Pruned(activities=len(rows), through=through)
    sessions = [seq for (seq,) in _SESSIONS.all(tx.conn, before=which.before, limit=which.limit)]
    if sessions:
        DELETE_SESSIONS.run(tx.conn, seqs=sessions)
        cache.clear()
    return Pruned(sessions=len(sessions))


def delete_from_user_index(conn: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Delete activities from the index by user."""
    for entry in sorted(entries, key=lambda entry: (entry.user_id, entry.timestamp)):
        _DELETE_ENTRY.run(
            conn,
            user=entry.user_id,
            partition=entry.timestamp >> BITS,
            at=entry.timestamp & LONG - 1,
            seq=entry.seq,
        )


def prune_notifications(tx: Tx, which: Slice) -> Pruned:
    """Delete the oldest final notifications with their deliveries and attempts."""
    seqs = [seq for (seq,) in _NOTIFICATIONS.all(tx.conn, before=which.before, limit=which.limit)]
    if seqs:
        DELETE_NOTIFICATIONS.run(tx.conn, seqs=seqs)
    return Pruned(notifications=len(seqs))


def would_prune_activities(conn: sqlite3.Connection, before: int) -> Pruned:
    """Count the rows that ``prune_activities`` would delete."""
    return Pruned(
        activities=_COUNT_ACTIVITIES.value(conn, before=before), sessions=_COUNT_SESSIONS.value(conn, before=before)
    )


def would_prune_notifications(conn: sqlite3.Connection, before: int) -> Pruned:
    """Count the rows that ``prune_notifications`` would delete."""
    return Pruned(notifications=_COUNT_NOTIFICATIONS.value(conn, before=before))


def bytes_in_use(conn: sqlite3.Connection) -> int:
    """Bytes of the file's used pages. SQLite fills free pages again before the file grows."""
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    (free,) = conn.execute("PRAGMA freelist_count").fetchone()
    (size,) = conn.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


DELETE_ACTIVITIES = Statement(lambda: UserActivity.delete().where(among(UserActivity.seq, "seqs")))
DELETE_SESSIONS = Statement(lambda: UserSession.delete().where(among(UserSession.seq, "seqs")))
DELETE_NOTIFICATIONS = Statement(lambda: Notification.delete().where(among(Notification.seq, "seqs")))
_OLD_ACTIVITIES = UserActivity.timestamp < slot("before")
_ACTIVITIES = Statement(
    lambda: (
        UserActivity.select(*columns(UserActivity, Entry))
        .where(_OLD_ACTIVITIES)
        .order_by(UserActivity.timestamp)
        .limit(slot("limit"))
    ),
    Entry,
)
_COUNT_ACTIVITIES = Statement(lambda: UserActivity.select(fn.COUNT(SQL("*"))).where(_OLD_ACTIVITIES))
_OLD_SESSIONS = (UserSession.start_time < slot("before")) & (UserSession.end_time < slot("before"))
_SESSIONS = Statement(
    lambda: (
        UserSession.select(UserSession.seq).where(_OLD_SESSIONS).order_by(UserSession.start_time).limit(slot("limit"))
    )
)
_COUNT_SESSIONS = Statement(lambda: UserSession.select(fn.COUNT(SQL("*"))).where(_OLD_SESSIONS))
# Old enough and final: a notification delivered to the inbox may still have an e-mail held.
_OLD_NOTIFICATIONS = (
    (Notification.listed_at < slot("before"))
    & Notification.status.not_in(("scheduled", "pending"))
    & differs(Notification.inbox, "snoozed")
    & ~fn.EXISTS(
        Delivery.select(Delivery.seq).where(
            Delivery.notification_seq == Notification.seq, Delivery.status.in_(("pending", "sending", "held"))
        )
    )
)
_NOTIFICATIONS = Statement(
    lambda: (
        Notification.select(Notification.seq)
        .where(_OLD_NOTIFICATIONS)
        .order_by(Notification.listed_at, Notification.seq)
        .limit(slot("limit"))
    )
)
_COUNT_NOTIFICATIONS = Statement(lambda: Notification.select(fn.COUNT(SQL("*"))).where(_OLD_NOTIFICATIONS))
_FREEZE = Statement(
    lambda: RollupState.update(frozen_before=fn.MAX(fn.COALESCE(RollupState.frozen_before, 0), slot("before")))
)
_NOTE_PRUNED = Statement(lambda: models.Pruned.update(before=fn.MAX(models.Pruned.before, slot("before"))))
_DELETE_ENTRY = Statement(
    lambda: ActivityByUser.delete().where(
        ActivityByUser.user == UserKey.select(UserKey.key).where(UserKey.user_id == slot("user")),
        ActivityByUser.partition == slot("partition"),
        ActivityByUser.at == slot("at"),
        ActivityByUser.seq == slot("seq"),
    )
)
