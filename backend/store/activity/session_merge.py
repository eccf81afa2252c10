"""Session merge: sessions connected by late activities become the ones that arrival in order would have made.

A run is the activities of one user in one app without a gap of more than 30 minutes. A session takes the run's first
24 hours, then the next session begins. A late activity may close the gap between two runs or start a run earlier. Only
``implicit`` sessions (opened without a session id) give activities away: clients know the ids of the others.
"""

from __future__ import annotations

from collections.abc import Callable

from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.models import UserSession
from flashflow.backend.store.activity.session_cache import OpenSession, SessionRow
from flashflow.backend.store.activity.session_timeout import IDLE_MS, LONGEST_MS
from flashflow.backend.store.engine.statement import Statement, TextStatement, columns, differs, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.partitions import partition


class SessionMerge:
    """Merge at the end of a transaction, after its activities and sessions are written.

    The caller writes the ``changed`` sessions and recounts their pages and key activities; ``gone`` sessions are
    deleted. ``aggregate_pending`` brings the index by user up to date.
    """

    def __init__(
        self,
        tx: Tx,
        known: Callable[[SessionRow], OpenSession],
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

    def _find(self, query: Statement[SessionRow], session: OpenSession, **times: int) -> OpenSession | None:
        row = query.one(self._tx.conn, user=session.user_id, app=session.app, id=session.id, **times)
        return None if row is None else self._known(row)

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
        _SAVE.run(
            self._tx.conn,
            start_time=session.start_time,
            last_seen=session.last_seen,
            end_time=session.end_time,
            end_reason=session.end_reason,
            seq=session.seq,
        )

    def _drop(self, session: OpenSession) -> None:
        self.changed.pop(session.id, None)
        self.gone.append(session)
        self._gone.add(session.id)
        _DELETE.run(self._tx.conn, seq=session.seq)
        user_index.change_sessions(self._tx, session.user_id, session.seq, by=-1)

    def _give(self, owner: OpenSession, to: OpenSession, low: int, high: int) -> int:
        """Move the activities from ``low`` to ``high`` to another session; return their number."""
        return _GIVE.run(self._tx.conn, user=owner.user_id, id=owner.id, low=low, high=high, to=to.id).rowcount

    def _outermost(self, session: OpenSession, low: int, high: int, *, oldest: bool) -> int | None:
        """Return the time of the session's first or last activity from ``low`` to ``high``."""
        query = user_index.IndexQuery(session.user_id, low, high, session_id=session.id)
        places = user_index.places_of_user(self._tx.conn, query, 1, oldest=oldest)
        return places[0].timestamp if places else None


_S = UserSession
_FIND = _S.select(*columns(_S, SessionRow, stored=SessionRow._fields)).where(
    partition(_S.start_time).in_((partition(slot("low")), partition(slot("high")))),
    _S.user_id == slot("user"),
    _S.app == slot("app"),
    _S.id != slot("id"),
    differs(_S.end_reason, "ended"),
)
_BEFORE = Statement(
    lambda: (
        _FIND.where(
            _S.start_time > slot("low"),
            _S.start_time < slot("high"),
            _S.last_seen >= slot("at") - IDLE_MS,
            _S.implicit | (_S.last_seen <= slot("at")),
        )
        .order_by(_S.start_time.desc())
        .limit(1)
    ),
    SessionRow,
)
_AFTER = Statement(
    lambda: _FIND.where(_S.start_time.between(slot("low"), slot("high")), _S.implicit).order_by(_S.start_time).limit(1),
    SessionRow,
)
_SAVE = Statement(
    lambda: _S.update(slots(_S.start_time, _S.last_seen, _S.end_time, _S.end_reason)).where(_S.seq == slot("seq"))
)
_DELETE = Statement(lambda: _S.delete().where(_S.seq == slot("seq")))
_GIVE = TextStatement(
    f"UPDATE user_activities SET session_id = :to WHERE seq IN ({user_index.rows_of('session_id = :id')})",
    reason="a join order",
)
