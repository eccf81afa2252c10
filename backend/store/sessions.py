"""Sessions in ``user_activities.db``: which one an activity belongs to, and when one is over (DEFINITIONS.md)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from backend.clock import to_datetime
from backend.errors import Conflict
from backend.events import Event
from backend.records import Session
from backend.store import timeline
from backend.store.codec import decode_id, encode_id, from_object, to_json
from backend.store.rows import execute_rows
from backend.store.writer import Tx

IDLE_MS = 30 * 60 * 1000
"""A session is over after this long without an activity or heartbeat [GA4, PostHog]."""
TAIL_TO_COUNT_IN = 256
"""Activities outside the index that counting an ended session's pages may look through."""
LONGEST_MS = 24 * 60 * 60 * 1000
"""… and after a day in any case."""

COLUMNS = (
    "seq, id, user_id, app, start_time, last_seen, end_time, end_reason, pages_visited, activities, "
    "device_info, ip_address, user_agent, shared"
)
_SHARED_PAGES = (
    "SELECT COUNT(DISTINCT page_url) FROM user_activities a WHERE "
    "a.timestamp BETWEEN user_sessions.start_time AND user_sessions.last_seen AND a.session_id = user_sessions.id"
)
PAGES = f"CASE WHEN shared THEN ({_SHARED_PAGES}) ELSE ({timeline.PAGES}) END"
LIVE_PAGES = f"CASE WHEN end_time IS NULL THEN {PAGES} ELSE pages_visited END"
READ_COLUMNS = COLUMNS.replace("pages_visited", f"{LIVE_PAGES} AS pages_visited")


class OpenSession:
    """A session as a transaction works on it; saved by the book."""

    __slots__ = (
        "activities", "app", "device_info", "end_reason", "end_time", "id", "ip_address", "is_new", "last_seen",
        "moved", "pages_visited", "seq", "shared", "start_time", "tell", "user_agent", "user_id",
    )  # fmt: skip

    def __init__(self, row: tuple[Any, ...], *, is_new: bool = False) -> None:
        self.seq: int
        self.id: bytes | str
        self.user_id: str
        self.app: str
        self.start_time: int
        self.last_seen: int
        self.end_time: int | None
        self.end_reason: str | None
        self.activities: int
        (
            self.seq, self.id, self.user_id, self.app, self.start_time, self.last_seen, self.end_time, self.end_reason,
            self.pages_visited, self.activities, self.device_info, self.ip_address, self.user_agent,
            self.shared,
        ) = row  # fmt: skip
        self.is_new = is_new
        self.tell = is_new
        self.moved = False

    def saved(self) -> None:
        """It stands in the file now."""
        self.is_new = self.tell = self.moved = False

    def touch(self, timestamp: int) -> None:
        """Stretch the session over ``timestamp``; one that is over and is reached by a late activity stays over."""
        if timestamp > self.last_seen:
            self.last_seen = timestamp
        elif timestamp < self.start_time:
            self.start_time = timestamp
            self.moved = True
        if self.end_time is not None and self.last_seen > self.end_time:
            self.end_time = self.last_seen
            self.tell = True

    def close(self, end_time: int, reason: str) -> None:
        self.end_time = end_time
        self.end_reason = reason
        self.tell = True

    def reopen(self) -> None:
        """It only looked as if it were over: what came late reaches up to now."""
        self.end_time = self.end_reason = None
        self.tell = True

    def is_stale(self, now: int) -> bool:
        """Whether it would be over at ``now``, had anyone looked: by 30 minutes of silence or by its day."""
        return now - self.last_seen > IDLE_MS or now - self.start_time >= LONGEST_MS


class SessionCache:
    """Sessions as the last transactions left them, for the next: true as long as this writer alone has written.

    Another process's commit shows in ``PRAGMA data_version`` and a rollback is told by the writer; both empty it.
    """

    MOST = 10_000

    def __init__(self) -> None:
        self.by_id: dict[bytes | str, OpenSession] = {}
        self.current: dict[tuple[str, str], OpenSession | None] = {}
        self._versions: dict[int, int] = {}

    def enter(self, tx: Tx) -> None:
        """Make sure that what is kept is what the file says at the start of ``tx``."""
        (version,) = tx.conn.execute("PRAGMA data_version").fetchone()
        # The number means something on its own connection only: it grows when any other one has committed.
        if version != self._versions.get(id(tx.conn)) or len(self.by_id) > self.MOST:
            self.clear()
            self._versions[id(tx.conn)] = version
        tx.undo.append(self.clear)

    def clear(self) -> None:
        self.by_id.clear()
        self.current.clear()


class SessionBook:
    """The sessions one transaction touches: read once, changed in memory, written once by ``save``."""

    def __init__(self, tx: Tx, new_id: Callable[[], str], cache: SessionCache | None = None) -> None:
        self._tx = tx
        self._new_id = new_id
        cache = cache or SessionCache()
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

    def place(self, user_id: str, app: str, session_id: str | None, timestamp: int) -> OpenSession:
        """The session an activity of ``timestamp`` counts in, opened where there is none.

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
    ) -> OpenSession:
        """A new session from ``timestamp`` on."""
        key = encode_id(session_id or self._new_id())
        info = to_json(device_info) if device_info else None
        session = OpenSession(
            (None, key, user_id, app, timestamp, timestamp, None, None, 0, 0, info, ip_address, user_agent, False),
            is_new=True,
        )
        self._by_id[key] = session
        self.opened[user_id] = self.opened.get(user_id, 0) + 1
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
                     s.pages_visited, s.activities, s.device_info, s.ip_address, s.user_agent, s.shared, revision)
                )  # fmt: skip
            elif s.tell:
                endings.append(
                    (s.start_time, s.last_seen, s.end_time, s.end_reason, s.activities, s.shared, revision, s.seq)
                )
            else:
                updates.append((s.last_seen, s.activities, s.seq))
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
        _count_pages(self._tx, [(s.id,) for s in self._touched.values() if s.end_time is not None])

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
            "user_id = ? AND app = ? AND start_time BETWEEN ? AND ? AND last_seen >= ? "
            "AND (end_reason IS NOT 'ended' OR end_time >= ?) ORDER BY start_time DESC LIMIT 1",
            (user_id, app, timestamp - LONGEST_MS, timestamp + IDLE_MS, timestamp - IDLE_MS, timestamp),
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
        return self._by_id.setdefault(row[1], OpenSession(row))


def _count_pages(tx: Tx, over: list[tuple[bytes | str]]) -> None:
    """Settle ``pages_visited`` of the sessions that are over."""
    if over:
        if timeline.tail_length(tx.conn) > TAIL_TO_COUNT_IN:
            timeline.catch_up(tx)
        tx.conn.executemany(_COUNT_PAGES, over)


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


def session_bounds(conn: sqlite3.Connection, session_id: str) -> list[tuple[str, Any]] | None:
    """Conditions that lead an index to a session's activities (see the schema); None for a session never seen."""
    row = conn.execute(
        "SELECT user_id, start_time, last_seen, shared FROM user_sessions WHERE id = ?", (encode_id(session_id),)
    ).fetchone()
    if row is None:
        return None
    user_id, start, last, shared = row
    return [("user_id = ?", None if shared else user_id), ("timestamp >= ?", start), ("timestamp <= ?", last)]


def to_session(row: tuple[Any, ...]) -> Session:
    """A row of READ_COLUMNS as the record."""
    (_, id_, user_id, app, start, seen, end, reason, pages, activities, info, ip, agent, _) = row
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
    "activities, device_info, ip_address, user_agent, shared, revision) VALUES {rows}"
)
_UPDATE = (
    "WITH v (last_seen, activities, seq) AS (VALUES {rows}) UPDATE user_sessions "
    "SET last_seen = v.last_seen, activities = v.activities FROM v WHERE user_sessions.seq = v.seq"
)
_MOVE = "UPDATE user_sessions SET start_time = ?, shared = ? WHERE seq = ?"
"""Apart from _UPDATE: it sets what indexes hold, and those are written anew even where nothing changes."""
_UPDATE_AND_TELL = (
    "UPDATE user_sessions SET start_time = ?, last_seen = ?, end_time = ?, end_reason = ?, activities = ?, "
    "shared = ?, revision = ? WHERE seq = ?"
)
_COUNT_PAGES = f"UPDATE user_sessions SET pages_visited = {PAGES} WHERE id = ?"  # noqa: S608
