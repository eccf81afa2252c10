"""Sessions in ``user_activities.db``: which one an activity belongs to, and when one is over (DEFINITIONS.md)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

from backend.clock import to_datetime
from backend.errors import Conflict
from backend.events import Event
from backend.records import Session
from backend.store import session_figures, timeline
from backend.store.codec import decode_id, encode_id, from_list, from_object, to_json
from backend.store.names import app_key
from backend.store.parts import BITS, part_of
from backend.store.rows import execute_rows
from backend.store.session_cache import IDLE_MS, LONGEST_MS, MOST_PAGES_KEPT, OpenSession, SessionCache
from backend.store.session_figures import Counted
from backend.store.writer import Tx

TAIL_TO_COUNT_IN = 256
"""Activities outside the index that counting an ended session's pages may look through."""

COLUMNS = (
    "seq, id, user_id, app, start_time, last_seen, end_time, end_reason, pages_visited, activities, "
    "device_info, ip_address, user_agent, shared, key_activities"
)
_SHARED_ROWS = (
    "SELECT page_url FROM user_activities a WHERE "
    "a.timestamp BETWEEN user_sessions.start_time AND user_sessions.last_seen AND a.session_id = user_sessions.id"
)


def _of_pages(what: str) -> str:
    """SQL for something of the pages of the enclosing query's ``user_sessions``, by the bare rows."""
    shared, own = (f"(SELECT {what} FROM ({rows}))" for rows in (_SHARED_ROWS, timeline.PAGE_ROWS))  # noqa: S608
    return f"CASE WHEN shared THEN {shared} ELSE {own} END"


PAGES = _of_pages("COUNT(DISTINCT page_url)")
LIVE_PAGES = f"CASE WHEN end_time IS NULL AND pages_visited > {MOST_PAGES_KEPT} THEN {PAGES} ELSE pages_visited END"
READ_COLUMNS = COLUMNS.replace("pages_visited", f"{LIVE_PAGES} AS pages_visited")


class SessionBook:
    """The sessions one transaction touches: read once, changed in memory, written once by ``save``."""

    def __init__(self, tx: Tx, new_id: Callable[[], str], cache: SessionCache) -> None:
        self._tx = tx
        self._new_id = new_id
        self._cache = cache
        cache.enter(tx)
        self._by_id = cache.by_id
        self._current = cache.current
        self._touched: dict[bytes | str, OpenSession] = {}
        self._touched_of: dict[tuple[str, str], list[OpenSession]] = {}
        self.opened: dict[str, int] = {}

    def find(self, session_id: str) -> OpenSession | None:
        """The session of that id, whoever's it is."""
        key = encode_id(session_id)
        session = self._by_id.get(key)
        if session is None:
            session = self._load("id = ?", (key,))
        return session

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
        """The session an activity of ``timestamp`` on ``page`` counts in, opened where there is none; ``is_key``: a key
        activity.

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
    ) -> OpenSession:
        """A new session from ``timestamp`` on; ``joins``: what comes without a session id may fall into it."""
        key = encode_id(session_id or self._new_id())
        info = to_json(device_info) if device_info else None
        session = OpenSession(
            (None, key, user_id, app, timestamp, timestamp, None, None, 0, 0, info, ip_address, user_agent, False, 0),
            is_new=True,
        )
        self._by_id[key] = session
        self.opened[user_id] = self.opened.get(user_id, 0) + 1
        if joins:
            current = self._current_of(user_id, app)
            if current is None or current.last_seen <= timestamp:
                self._current[user_id, app] = session
        self.mark(session)
        return session

    def mark(self, session: OpenSession) -> None:
        """Have ``save`` write ``session``."""
        if session.id not in self._touched:
            self._touched[session.id] = session
            self._touched_of.setdefault((session.user_id, session.app), []).append(session)

    def save(self) -> None:
        """Write what changed; leave an event for every session that opened or ended."""
        if not self._touched:
            return
        conn = self._tx.conn
        revision, seq = _last_places(conn) if any(s.tell for s in self._touched.values()) else (0, 0)
        inserts, updates, moves, endings = [], [], [], []
        for s in self._touched.values():
            if s.tell:
                revision += 1
                self._tx.events.append(Event("session", decode_id(s.id), s.user_id, s.app))
            if s.is_new:
                s.seq = seq = seq + 1
                inserts.append(
                    (s.seq, s.id, s.user_id, s.app, s.start_time, s.last_seen, s.end_time, s.end_reason,
                     s.pages_visited, s.activities, s.device_info, s.ip_address, s.user_agent, s.shared,
                     s.key_activities, revision)
                )  # fmt: skip
            elif s.tell:
                endings.append(
                    (s.start_time, s.last_seen, s.end_time, s.end_reason, s.activities, s.shared, s.key_activities,
                     s.pages_visited, revision, s.seq)
                )  # fmt: skip
            else:
                updates.append((s.last_seen, s.activities, s.key_activities, s.pages_visited, s.seq))
                if s.moved:
                    moves.append((s.start_time, s.shared, s.seq))
            s.saved()
        if inserts:
            execute_rows(conn, _INSERT, inserts)
        if updates:
            execute_rows(conn, _UPDATE, updates)
        if moves:
            conn.executemany(_MOVE, moves)
        if endings:
            conn.executemany(_UPDATE_AND_TELL, endings)
        self._settle([s for s in self._touched.values() if s.end_time is not None or s.counted is not None])

    def _settle(self, sessions: list[OpenSession]) -> None:
        """Count the pages of those that are over, and what they are to their day."""
        if not sessions:
            return
        unknown = [s for s in sessions if s.end_time is not None and s.pages is None]
        if unknown and timeline.tail_length(self._tx.conn) > TAIL_TO_COUNT_IN:
            timeline.catch_up(self._tx, self._cache.local)
        for session in unknown:
            (session.pages_visited,) = self._tx.conn.execute(_COUNT_PAGES, (session.id,)).fetchone()
        changes = []
        for session in sessions:
            before = session.counted
            session.counted = self._counted(session)
            changes.append((before, session.counted))
        session_figures.change(self._tx, changes)

    def _counted(self, session: OpenSession) -> Counted | None:
        if session.end_time is None:
            return None
        apps, app = self._cache.apps, session.app
        if app not in apps:
            apps[app] = app_key(self._tx, app)
        duration, pages = session.end_time - session.start_time, session.pages_visited
        is_engaged = session_figures.engaged(duration, pages, session.key_activities)
        return Counted(self._cache.local.day(session.start_time), apps[app], duration, pages, int(is_engaged))

    def _join(self, user_id: str, app: str, timestamp: int) -> OpenSession:
        current = self._current_of(user_id, app)
        if current is not None:
            if _reaches(current, timestamp):
                return current
            if timestamp > current.last_seen:
                current.close(current.last_seen, "timeout")
                self.mark(current)
                return self.open(user_id, app, None, timestamp)
        late = current is not None or timestamp < self._tx.now_ms - IDLE_MS
        past = self._past(user_id, app, timestamp)
        if past is not None:
            if past.end_reason == "timeout" and not late:
                past.reopen()
                self._recall_pages(past)
                self._current[user_id, app] = past
            return past
        session = self.open(user_id, app, None, timestamp)
        if late:
            session.close(timestamp, "timeout")
            self._current[user_id, app] = current
        return session

    def _past(self, user_id: str, app: str, timestamp: int) -> OpenSession | None:
        """The latest session that an activity of ``timestamp`` reaches, of this transaction's or of the file's."""
        touched = [
            session
            for session in self._touched_of.get((user_id, app), ())
            if _reaches(session, timestamp) and (session.end_reason != "ended" or (session.end_time or 0) >= timestamp)
        ]
        if touched:
            return max(touched, key=lambda session: session.start_time)
        past = self._load(
            f"{part_of('start_time')} IN (?, ?) AND user_id = ? AND start_time BETWEEN ? AND ? AND app = ? "
            "AND last_seen >= ? AND (end_reason IS NOT 'ended' OR end_time >= ?) ORDER BY start_time DESC LIMIT 1",
            (
                timestamp - LONGEST_MS >> BITS,
                timestamp + IDLE_MS >> BITS,
                user_id,
                timestamp - LONGEST_MS,
                timestamp + IDLE_MS,
                app,
                timestamp - IDLE_MS,
                timestamp,
            ),
        )
        return past if past is not None and _reaches(past, timestamp) else None

    def _current_of(self, user_id: str, app: str) -> OpenSession | None:
        place = (user_id, app)
        if place not in self._current:
            self._current[place] = self._load(
                "user_id = ? AND app = ? AND end_time IS NULL ORDER BY last_seen DESC LIMIT 1", place
            )
        current = self._current[place]
        return current if current is not None and current.end_time is None else None

    def _load(self, where: str, values: tuple[Any, ...]) -> OpenSession | None:
        row = self._tx.conn.execute(f"SELECT {COLUMNS} FROM user_sessions WHERE {where}", values).fetchone()  # noqa: S608
        if row is None:
            return None
        return self.known(row)

    def known(self, row: tuple[Any, ...]) -> OpenSession:
        """The session of a row: what this transaction has changed already counts, not what the file still says."""
        session = self._by_id.get(row[1])
        if session is None:
            session = self._by_id[row[1]] = OpenSession(row)
            session.counted = self._counted(session)
            if session.end_time is None:
                self._recall_pages(session)
        return session

    def _recall_pages(self, session: OpenSession) -> None:
        """Have the pages of a session that goes on in mind, unless there are too many."""
        if session.pages is None and session.pages_visited <= MOST_PAGES_KEPT:
            (pages,) = self._tx.conn.execute(_PAGES_OF, (session.id,)).fetchone()
            session.pages = {hash(page) for page in from_list(pages) if page is not None}
            session.pages_visited = len(session.pages)


def _last_places(conn: sqlite3.Connection) -> tuple[int, int]:
    """The highest ``revision`` and the highest ``seq`` ever given."""
    revision = last_revision(conn)
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'user_sessions'").fetchone()
    return revision, row[0] if row else 0


def last_revision(conn: sqlite3.Connection) -> int:
    """The highest ``revision`` ever given to a session, be it gone by now."""
    return int(conn.execute(_LAST_REVISION).fetchone()[0])


_LAST_REVISION = (
    "SELECT MAX(COALESCE((SELECT MAX(revision) FROM user_sessions), 0), (SELECT revision FROM highest_revision))"
)


def _reaches(session: OpenSession, timestamp: int) -> bool:
    """Whether an activity at ``timestamp`` belongs to ``session`` by the 30-minute and the 24-hour rule."""
    return (
        session.start_time - IDLE_MS <= timestamp <= session.last_seen + IDLE_MS
        and max(session.last_seen, timestamp) - min(session.start_time, timestamp) < LONGEST_MS
    )


def close_stale(tx: Tx, cache: SessionCache) -> list[str]:
    """End up to 1,000 sessions that nobody ended and that are over by their silence or length; returns their users."""
    book = SessionBook(tx, lambda: "", cache)
    rows = tx.conn.execute(
        f"SELECT {COLUMNS} FROM user_sessions WHERE end_time IS NULL AND (last_seen < ? OR start_time <= ?) LIMIT 1000",  # noqa: S608
        (tx.now_ms - IDLE_MS, tx.now_ms - LONGEST_MS),
    ).fetchall()
    for row in rows:
        session = book.known(row)
        session.close(session.last_seen, "timeout")
        book.mark(session)
    book.save()
    return [row[2] for row in rows]


def read_session(conn: sqlite3.Connection, session_id: bytes | str) -> Session:
    """The stored session of that (encoded) id, which must exist."""
    row = conn.execute(f"SELECT {READ_COLUMNS} FROM user_sessions WHERE id = ?", (session_id,)).fetchone()  # noqa: S608
    return to_session(row)


class Bounds(NamedTuple):
    """Where a session's activities lie: whose they are (None: several users' came under its id), and their times."""

    user_id: str | None
    start: int
    last: int


def session_bounds(conn: sqlite3.Connection, session_id: str) -> Bounds | None:
    """What leads an index to a session's activities (see the schema); None for a session never seen."""
    row = conn.execute(
        "SELECT CASE WHEN NOT shared THEN user_id END, start_time, last_seen FROM user_sessions WHERE id = ?",
        (encode_id(session_id),),
    ).fetchone()
    return None if row is None else Bounds(*row)


def to_session(row: tuple[Any, ...]) -> Session:
    """A row of READ_COLUMNS as the record."""
    (_, id_, user_id, app, start, seen, end, reason, pages, activities, info, ip, agent, _, _) = row
    return Session(
        id=decode_id(id_),
        user_id=user_id,
        app=app,
        start_time=to_datetime(start),
        last_seen=to_datetime(seen),
        end_time=None if end is None else to_datetime(end),
        end_reason=reason,
        duration=((seen if end is None else end) - start) / 1000,
        pages_visited=pages,
        activities=activities,
        device_info=from_object(info),
        ip_address=ip,
        user_agent=agent,
    )


_INSERT = (
    "INSERT INTO user_sessions (seq, id, user_id, app, start_time, last_seen, end_time, end_reason, pages_visited, "
    "activities, device_info, ip_address, user_agent, shared, key_activities, revision) VALUES {rows}"
)
_UPDATE = (
    "WITH v (last_seen, activities, key_activities, pages, seq) AS (VALUES {rows}) UPDATE user_sessions SET "
    "last_seen = v.last_seen, activities = v.activities, key_activities = v.key_activities, pages_visited = v.pages "
    "FROM v WHERE user_sessions.seq = v.seq"
)
_MOVE = "UPDATE user_sessions SET start_time = ?, shared = ? WHERE seq = ?"
"""Apart from _UPDATE: it sets what indexes hold, and those are written anew even where nothing changes."""
_UPDATE_AND_TELL = (
    "UPDATE user_sessions SET start_time = ?, last_seen = ?, end_time = ?, end_reason = ?, activities = ?, "
    "shared = ?, key_activities = ?, pages_visited = ?, revision = ? WHERE seq = ?"
)
_PAGES_OF = f"SELECT {_of_pages('json_group_array(DISTINCT page_url)')} FROM user_sessions WHERE id = ?"  # noqa: S608
_COUNT_PAGES = f"UPDATE user_sessions SET pages_visited = {PAGES} WHERE id = ? RETURNING pages_visited"  # noqa: S608
