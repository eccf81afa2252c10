"""Session merge: sessions connected by late activities become the ones that arrival in order would have made.

A run is the activities of one user in one app without a gap of more than 30 minutes. A session takes the run's first
24 hours, then the next session begins. A late activity may close the gap between two runs or start a run earlier. Only
``implicit`` sessions (opened without a session id) give activities away: clients know the ids of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.session_cache import IDLE_MS, LONGEST_MS, OpenSession
from flashflow.backend.store.activity.session_table import COLUMNS
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.partitions import BITS, partition_of


class SessionMerge:
    """Merge at the end of a transaction, after its activities and sessions are written.

    The caller writes the ``changed`` sessions and recounts their pages and key activities; ``gone`` sessions are
    deleted. ``aggregate_pending`` brings the index by user up to date.
    """

    def __init__(
        self,
        tx: Tx,
        known: Callable[[tuple[Any, ...]], OpenSession],
        aggregate_pending: Callable[[], None],
    ) -> None:
        self._aggregate_pending = aggregate_pending
        self._tx = tx
        self._known = known
        self.changed: dict[bytes, OpenSession] = {}
        self.gone: list[OpenSession] = []
        self._gone: set[bytes] = set()

    def join_from(self, session: OpenSession) -> None:
        """Merge the following sessions of the run into ``session``, or into the one before if ``session`` continues
        it."""
        if session.id in self._gone:
            return
        at = (self._before(session) if session.implicit else None) or session
        while (following := self._after(at)) is not None:
            limit = at.start_time + LONGEST_MS
            if following.start_time >= limit:
                return
            if not self.changed:
                self._aggregate_pending()  # the statements below find activities by user
            if following.last_seen < limit:
                at = self._merge(at, following)
            elif (rest := self._share(at, following, limit)) is not None:
                at = rest
            else:
                return

    def _before(self, session: OpenSession) -> OpenSession | None:
        return self._find(
            _BEFORE, session, low=session.start_time - LONGEST_MS, high=session.start_time, at=session.start_time
        )

    def _after(self, session: OpenSession) -> OpenSession | None:
        if session.end_reason == "ended":
            return None
        low = session.start_time if session.implicit else session.last_seen
        return self._find(_AFTER, session, low=low, high=session.last_seen + IDLE_MS)

    def _find(self, sql: str, session: OpenSession, **times: int) -> OpenSession | None:
        values = {"user": session.user_id, "app": session.app, "id": session.id, **times}
        for row in self._tx.conn.execute(sql, values):
            return self._known(row)
        return None

    def _merge(self, at: OpenSession, following: OpenSession) -> OpenSession:
        """Merge two sessions into one, under the id of the larger where no client knows either id."""
        swap = at.implicit and following.activities > at.activities
        kept, gone = (following, at) if swap else (at, following)
        self._give(gone, kept, gone.start_time, gone.last_seen)
        goes_on = at.end_time is None or following.end_time is None
        kept.start_time, kept.last_seen = at.start_time, max(at.last_seen, following.last_seen)
        kept.activities += gone.activities
        kept.pages_visited += gone.pages_visited  # an upper bound: they are recounted
        self._change(kept, goes_on=goes_on and not kept.is_stale(self._tx.now_ms))
        self._drop(gone)
        return kept

    def _share(self, at: OpenSession, following: OpenSession, limit: int) -> OpenSession | None:
        """Move the activities of ``following`` before ``limit`` to ``at``; return the session of the rest. They swap
        ids where that moves fewer activities. None where activities were pruned: the split is unknown."""
        head = self._outermost(following, following.start_time, limit - 1, oldest=False)
        tail = self._outermost(following, limit, following.last_seen, oldest=True)
        if head is None or tail is None:  # pruned
            return None
        goes_on = following.end_time is None
        first, last, end = at.start_time, max(at.last_seen, head), following.last_seen
        early, late = at, following
        if at.implicit and at.last_seen - first + end - tail < head - following.start_time:
            early, late = following, at
            early_n = self._give(at, following, first, at.last_seen)
            late_n = self._give(following, at, tail, end)
            early.activities, late.activities = early.activities + early_n - late_n, late_n
        else:
            n = self._give(following, at, following.start_time, head)
            early.activities, late.activities = early.activities + n, late.activities - n
        early.start_time, early.last_seen = first, last
        late.start_time, late.last_seen = tail, end
        self._change(early, goes_on=False)
        self._change(late, goes_on=goes_on)
        return late

    def _change(self, session: OpenSession, *, goes_on: bool) -> None:
        if goes_on:
            session.reopen()
        else:
            session.close(session.last_seen, "timeout")
        session.pages = None
        self.changed[session.id] = session
        # The next search reads the file.
        self._tx.conn.execute(
            "UPDATE user_sessions SET start_time = ?, last_seen = ?, end_time = ?, end_reason = ? WHERE seq = ?",
            (session.start_time, session.last_seen, session.end_time, session.end_reason, session.seq),
        )

    def _drop(self, session: OpenSession) -> None:
        conn = self._tx.conn
        self.changed.pop(session.id, None)
        self.gone.append(session)
        self._gone.add(session.id)
        conn.execute("DELETE FROM user_sessions WHERE seq = ?", (session.seq,))
        conn.execute(_UNCOUNT, (session.user_id, session.seq))

    def _give(self, owner: OpenSession, to: OpenSession, low: int, high: int) -> int:
        """Move the activities from ``low`` to ``high`` to another session; return their number."""
        values = {"user": owner.user_id, "id": owner.id, "low": low, "high": high, "to": to.id}
        return self._tx.conn.execute(_GIVE, values).rowcount

    def _outermost(self, session: OpenSession, low: int, high: int, *, oldest: bool) -> int | None:
        """Return the time of the session's first or last activity from ``low`` to ``high``."""
        query = user_index.IndexQuery(session.user_id, ("session_id = ?",), (session.id,), low, high)
        rows = user_index.newest_of_user(self._tx.conn, query, 1, oldest=oldest)
        return rows[0][6] if rows else None


_FIND = (
    f"SELECT {COLUMNS} FROM user_sessions WHERE {partition_of('start_time')} IN (:low >> {BITS}, :high >> {BITS}) "
    "AND user_id = :user AND app = :app AND id <> :id AND end_reason IS NOT 'ended' AND start_time "
)
_BEFORE = (
    f"{_FIND} > :low AND start_time < :high AND last_seen >= :at - {IDLE_MS} AND (implicit OR last_seen <= :at) "
    "ORDER BY start_time DESC LIMIT 1"
)
_AFTER = f"{_FIND} BETWEEN :low AND :high AND implicit ORDER BY start_time LIMIT 1"

_GIVE = f"UPDATE user_activities SET session_id = :to WHERE seq IN ({user_index.rows_of('session_id = :id')})"
_UNCOUNT = (
    "UPDATE user_analytics SET total_sessions = total_sessions - 1 WHERE user_id = ? "
    "AND ? <= COALESCE((SELECT sessions_counted FROM figures_state), 1 << 62)"
)
