"""Sessions that late activities brought together, made into what they would be had all come in order.

The activities of one user in one app that no 30 minutes part are a run; from its first activity on a session takes all
of it that lies within 24 hours, then the next one begins. A late activity may close the gap between two runs, or put
another activity first. Only sessions that were opened for want of an id (``implicit``) give their activities away: the
ids of the others are known outside.
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
    """Works on the rows of a transaction's end: activities and sessions are in the file, ``changed`` waits to be
    written and to have its pages and key activities counted, what is ``gone`` is no longer there."""

    def __init__(
        self,
        tx: Tx,
        known: Callable[[tuple[Any, ...]], OpenSession],
        feed: Callable[[], None],
    ) -> None:
        self._feed = feed
        self._tx = tx
        self._known = known
        self.changed: dict[bytes | str, OpenSession] = {}
        self.gone: list[OpenSession] = []
        self._gone: set[bytes | str] = set()

    def join_from(self, session: OpenSession) -> None:
        """Have ``session``, or the one before where it goes on from that, take what follows of its run."""
        if session.id in self._gone:
            return
        at = (self._before(session) if session.implicit else None) or session
        while (following := self._after(at)) is not None:
            limit = at.start_time + LONGEST_MS
            if following.start_time >= limit:
                return
            if not self.changed:
                self._feed()  # activities are about to be looked for by their user
            if following.last_seen < limit:
                at = self._unite(at, following)
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

    def _find(self, sql: str, session: OpenSession, **moments: int) -> OpenSession | None:
        values = {"user": session.user_id, "app": session.app, "id": session.id, **moments}
        for row in self._tx.conn.execute(sql, values):
            return self._known(row)
        return None

    def _unite(self, at: OpenSession, following: OpenSession) -> OpenSession:
        """Make one session of both, under the id of the larger where neither is known outside."""
        swap = at.implicit and following.activities > at.activities
        kept, gone = (following, at) if swap else (at, following)
        self._give(gone, kept, gone.start_time, gone.last_seen)
        goes_on = at.end_time is None or following.end_time is None
        kept.start_time, kept.last_seen = at.start_time, max(at.last_seen, following.last_seen)
        kept.activities += gone.activities
        kept.pages_visited += gone.pages_visited  # at most: they are counted anew
        self._change(kept, goes_on=goes_on and not kept.is_stale(self._tx.now_ms))
        self._drop(gone)
        return kept

    def _share(self, at: OpenSession, following: OpenSession, limit: int) -> OpenSession | None:
        """Have ``at`` take what ``following`` has before ``limit``; returns the session of the rest. They change ids
        where fewer activities move then. None: nothing can be told apart any more."""
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
        # The next search looks at the file.
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
        """Give activities from ``low`` to ``high`` to another session; how many they are."""
        values = {"user": owner.user_id, "id": owner.id, "low": low, "high": high, "to": to.id}
        return self._tx.conn.execute(_GIVE, values).rowcount

    def _outermost(self, session: OpenSession, low: int, high: int, *, oldest: bool) -> int | None:
        """When the session's first or last activity from ``low`` to ``high`` was."""
        asked = user_index.IndexQuery(session.user_id, ("session_id = ?",), (session.id,), low, high)
        rows = user_index.newest_of_user(self._tx.conn, asked, 1, oldest=oldest)
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
