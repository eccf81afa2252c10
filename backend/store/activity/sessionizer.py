"""Sessionizer: assigns activities to sessions and ends sessions (30 minutes without activity, or 24 hours)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peewee import fn

from flashflow.backend.core.encoding import decode_id, encode_address, encode_id, to_json
from flashflow.backend.core.errors import Conflict
from flashflow.backend.core.events import Event
from flashflow.backend.store.activity import session_rollup, session_table, user_index
from flashflow.backend.store.activity.models import UserSession
from flashflow.backend.store.activity.session_cache import OpenSession, SessionCache, SessionRow
from flashflow.backend.store.activity.session_merge import SessionMerge
from flashflow.backend.store.activity.session_rollup import Counted
from flashflow.backend.store.activity.session_timeout import IDLE_MS, LONGEST_MS
from flashflow.backend.store.engine.statement import Statement, columns, differs, slot
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.dimensions import app_key
from flashflow.backend.store.rollups.partitions import partition

TAIL_TO_COUNT_IN = 256
"""Pending activities that a query of one session's activities may scan; with more, they are aggregated first."""
MOST_NEAR = 16
"""Sessions read around a timestamp, nearest start first: no user has more at once in one app."""
_STRETCH = LONGEST_MS + 2 * IDLE_MS
"""Sessions near a timestamp began within this time of it."""


class SessionBook:
    """The sessions of one transaction: read once, changed in memory, written once by ``save``."""

    def __init__(self, tx: Tx, new_id: Callable[[], str], cache: SessionCache) -> None:
        self._tx = tx
        self._new_id = new_id
        self._cache = cache
        cache.enter(tx)
        self._by_id = cache.by_id
        self._current = cache.current
        self._touched: dict[bytes, OpenSession] = {}
        self._touched_at: dict[tuple[str, str, int], dict[bytes, OpenSession]] = {}
        self._reopened: dict[bytes, OpenSession] = {}
        self._to_merge: dict[bytes, OpenSession] = {}
        self._seen: dict[bytes, OpenSession | None] = {}
        self.opened: dict[str, int] = {}
        self.merged = False
        """Whether ``save`` moved activities to other sessions than ``place`` returned."""

    def find(self, session_id: str) -> OpenSession | None:
        """Return the session with this id, of any user. It is not implicit from now on: the client relies on its id."""
        key = encode_id(session_id)
        session = self._by_id.get(key)
        if session is None:
            session = self._known(_BY_ID.one(self._tx.conn, id=key))
        if session is not None and session.implicit:
            session.implicit, session.moved = False, True
            self.mark(session)
        return session

    def shared(self, session_id: bytes) -> OpenSession | None:
        """Return the session with this encoded id if it has activities of several users."""
        if session_id not in self._seen:
            row = _BY_ID.one(self._tx.conn, id=session_id)
            self._seen[session_id] = self._known(row if row is not None and row.shared else None)
        return self._seen[session_id]

    def place(
        self,
        user_id: str,
        app: str,
        session_id: str | None,
        timestamp: int,
        page: str | None = None,
        *,
        is_key: bool = False,
    ) -> OpenSession:
        """Return the session of an activity at ``timestamp`` on ``page``, opened if there is none; ``is_key``: it is a
        key activity. If it connects two sessions, ``save`` merges them.

        Raises Conflict when ``session_id`` belongs to another app.
        """
        if session_id is not None:
            session = self.find(session_id)
            if session is None:
                session = self.open(user_id, app, session_id, timestamp)
            elif session.app != app:
                raise Conflict(f"session_id: {session_id!r} belongs to another app.")
            if session.user_id != user_id and not session.shared:
                session.shared = session.moved = True
            if timestamp < self._tx.now_ms - IDLE_MS:
                if session.last_seen < timestamp:
                    self._to_merge[session.id] = session  # later sessions may continue it
            elif (
                session.end_reason == "timeout" and timestamp - session.start_time < LONGEST_MS
            ):  # the client continues it: it has timed out only because ``close_stale`` ran first
                self._reopen(session)
        else:
            session = self._join(user_id, app, timestamp)
        session.touch(timestamp)
        session.activities += 1
        session.key_activities += is_key
        session.note_page(page)
        self.mark(session)
        return session

    def open(
        self,
        user_id: str,
        app: str,
        session_id: str | None,
        timestamp: int,
        device_info: dict[str, Any] | None = None,
        ip_address: str | None = None,
        user_agent: str | None = None,
        *,
        joins: bool = True,
        implicit: bool = False,
    ) -> OpenSession:
        """Open a session at ``timestamp``. ``joins``: activities without a session id may join it; ``implicit``: no
        client knows its id, so it may be merged into another."""
        key = encode_id(session_id or self._new_id())
        info = to_json(device_info) if device_info else None
        row = SessionRow(
            0, key, user_id, app, timestamp, timestamp, None, None, 0, 0, info, encode_address(ip_address), user_agent,
            False, 0, 0, implicit,
        )  # fmt: skip
        session = OpenSession(row, is_new=True)
        self._by_id[key] = session
        self.opened[user_id] = self.opened.get(user_id, 0) + 1
        if joins:
            current = self._current_of(user_id, app)
            if current is None or current.last_seen <= timestamp:
                self._current[user_id, app] = session
        self.mark(session)
        return session

    def mark(self, session: OpenSession) -> None:
        """Mark ``session`` to be written by ``save``."""
        if session.id not in self._touched or session.moved:
            self._touched[session.id] = session
            stretch = (session.user_id, session.app, session.start_time // _STRETCH)
            self._touched_at.setdefault(stretch, {})[session.id] = session

    def save(self) -> None:
        """Write the changed sessions and add an event for each that opened, ended or was merged."""
        if not self._touched:
            return
        conn = self._tx.conn
        published = session_table.write(conn, self._touched.values())
        gone: list[OpenSession] = []
        if self._to_merge:
            merge = self._merge()
            published += session_table.write(conn, merge.changed.values())
            self._touched |= merge.changed
            self._reopened |= {s.id: s for s in merge.changed.values() if s.end_time is None}
            gone = merge.gone
            for session in merge.changed.values() if self._cache.key_types else ():
                session_table.count_keys(conn, session)
            for session in gone:
                for kept in (self._touched, self._by_id, self._reopened):
                    kept.pop(session.id, None)
        for session in self._reopened.values():
            if session.end_time is None:
                session_table.recall_pages(conn, session)
                session_table.save_pages(conn, session)
        for session in {s.id: s for s in published}.values():
            if session.id in self._touched:
                self._tx.events.append(Event("session", decode_id(session.id), session.user_id, session.app))
        self._settle([s for s in self._touched.values() if s.end_time is not None or s.counted is not None], gone)

    def _merge(self) -> SessionMerge:
        merge = SessionMerge(self._tx, self.known, self._aggregate_pending)
        for session in sorted(self._to_merge.values(), key=lambda session: session.start_time):
            merge.join_from(session)
        for session in (*merge.changed.values(), *merge.gone):
            self._current.pop((session.user_id, session.app), None)
            self.merged = True
        return merge

    def _aggregate_pending(self) -> None:
        """Aggregate pending activities, which a search by user would scan."""
        if user_index.tail_length(self._tx.conn) > TAIL_TO_COUNT_IN:
            user_index.catch_up(self._tx, self._cache.local)

    def _settle(self, sessions: list[OpenSession], gone: list[OpenSession]) -> None:
        """Count the pages of ended sessions and update ``session_days``; ``gone`` sessions were merged into others."""
        unknown = [s for s in sessions if s.end_time is not None and s.pages is None]
        if unknown:
            self._aggregate_pending()
        for session in unknown:
            session_table.count_pages(self._tx.conn, session)
        changes: list[tuple[Counted | None, Counted | None]] = [(session.counted, None) for session in gone]
        for session in sessions:
            before = session.counted
            session.counted = self._counted(session)
            changes.append((before, session.counted))
            if before != session.counted:
                self._cache.unsettled.add(session.user_id)
        session_rollup.change(self._tx, changes)

    def _counted(self, session: OpenSession) -> Counted | None:
        if session.end_time is None:
            return None
        apps, app = self._cache.apps, session.app
        if app not in apps:
            apps[app] = app_key(self._tx, app)
        duration, pages = session.end_time - session.start_time, session.pages_visited
        is_engaged = session_rollup.engaged(duration, pages, session.key_activities)
        return Counted(self._cache.local.day(session.start_time), apps[app], duration, pages, int(is_engaged))

    def _join(self, user_id: str, app: str, timestamp: int) -> OpenSession:
        place, old = (user_id, app), timestamp < self._tx.now_ms - IDLE_MS
        current, goes_on = self._current_of(user_id, app), False
        if current is not None:
            if current.start_time <= timestamp and _reaches(current, timestamp):
                return current
            if timestamp > current.last_seen:
                current.close(current.last_seen, "timeout")
                self.mark(current)
                if not old:
                    return self.open(user_id, app, None, timestamp, implicit=True)
                current, goes_on = None, True
        near = self._near(user_id, app, timestamp)
        reached = [session for session in near if _reaches(session, timestamp)]
        if reached:
            # Prefer a session that began before the activity.
            session = min(
                reached,
                key=lambda s: (s.start_time > timestamp, abs(s.start_time - timestamp), not s.implicit, repr(s.id)),
            )
            if session.end_reason == "timeout" and current is None and not old:
                self._reopen(session)
        else:
            session = self.open(user_id, app, None, timestamp, implicit=True)
            if current is not None or (old and not goes_on):
                session.close(timestamp, "timeout")
                self._current[place] = current
        if len(near) > bool(reached):
            self._to_merge[session.id] = session
        return session

    def _reopen(self, session: OpenSession) -> None:
        current = self._current_of(session.user_id, session.app)
        if current is None or current.last_seen <= session.last_seen:
            self._current[session.user_id, session.app] = session
        session.reopen()
        self._reopened[session.id] = session

    def _near(self, user_id: str, app: str, timestamp: int) -> list[OpenSession]:
        """Return the sessions within 30 minutes of ``timestamp``, of this transaction and of the file, except sessions
        that a client ended before it."""
        rows = _NEAR.all(self._tx.conn, user=user_id, app=app, at=timestamp)
        near = {session.id: session for session in map(self.known, rows)}
        for stretch in {(timestamp - LONGEST_MS - IDLE_MS) // _STRETCH, (timestamp + IDLE_MS) // _STRETCH}:
            near |= self._touched_at.get((user_id, app, stretch), {})
        return [
            session
            for session in near.values()
            if session.start_time - IDLE_MS <= timestamp <= session.last_seen + IDLE_MS
            and timestamp - session.start_time <= LONGEST_MS + IDLE_MS
            and (session.end_reason != "ended" or (session.end_time or 0) >= timestamp)
        ]

    def _current_of(self, user_id: str, app: str) -> OpenSession | None:
        place = (user_id, app)
        if place not in self._current:
            self._current[place] = self._known(_CURRENT.one(self._tx.conn, user=user_id, app=app))
        current = self._current[place]
        return current if current is not None and current.end_time is None else None

    def _known(self, row: SessionRow | None) -> OpenSession | None:
        return None if row is None else self.known(row)

    def known(self, row: SessionRow) -> OpenSession:
        """Return the working copy of a row's session, with this transaction's changes."""
        session = self._by_id.get(row.id)
        if session is None:
            session = self._by_id[row.id] = OpenSession(row)
            session.counted = self._counted(session)
            if session.end_time is None:
                # Each open session scans what is pending: after the cache was lost, a thousand sessions do.
                self._aggregate_pending()
                session_table.recall_pages(self._tx.conn, session)
        return session


def _reaches(session: OpenSession, timestamp: int) -> bool:
    """Whether an activity at ``timestamp`` belongs to ``session`` by the 30-minute and the 24-hour rule."""
    return (
        session.start_time - IDLE_MS <= timestamp <= session.last_seen + IDLE_MS
        and max(session.last_seen, timestamp) - min(session.start_time, timestamp) < LONGEST_MS
    )


def close_stale(tx: Tx, cache: SessionCache) -> list[str]:
    """End up to 1,000 open sessions by the 30-minute or the 24-hour rule; return their users."""
    book = SessionBook(tx, lambda: "", cache)
    rows = _STALE.all(tx.conn, idle=tx.now_ms - IDLE_MS, longest=tx.now_ms - LONGEST_MS)
    for row in rows:
        session = book.known(row)
        session.close(session.last_seen, "timeout")
        book.mark(session)
    book.save()
    return [row.user_id for row in rows]


_S = UserSession
_SESSIONS = _S.select(*columns(_S, SessionRow, stored=SessionRow._fields))
_BY_ID = Statement(lambda: _SESSIONS.where(_S.id == slot("id")), SessionRow)
_CURRENT = Statement(
    lambda: (
        _SESSIONS.where(_S.user_id == slot("user"), _S.app == slot("app"), _S.end_time.is_null())
        .order_by(_S.last_seen.desc())
        .limit(1)
    ),
    SessionRow,
)
_STALE = Statement(
    lambda: _SESSIONS.where(
        _S.end_time.is_null(), (_S.last_seen < slot("idle")) | (_S.start_time <= slot("longest"))
    ).limit(1000),
    SessionRow,
)
_EARLIEST, _LATEST = slot("at") - (LONGEST_MS + IDLE_MS), slot("at") + IDLE_MS
_NEAR = Statement(
    lambda: (
        _SESSIONS.where(
            partition(_S.start_time).in_((partition(_EARLIEST), partition(_LATEST))),
            _S.user_id == slot("user"),
            _S.start_time.between(_EARLIEST, _LATEST),
            _S.app == slot("app"),
            _S.last_seen >= slot("at") - IDLE_MS,
            differs(_S.end_reason, "ended") | (_S.end_time >= slot("at")),
        )
        .order_by(fn.ABS(_S.start_time - slot("at")), _S.seq)
        .limit(MOST_NEAR)
    ),
    SessionRow,
)
