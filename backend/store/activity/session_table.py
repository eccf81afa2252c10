"""The ``user_sessions`` table: writes of working copies, reads as records."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_id, encode_id, from_list, from_object, to_json
from flashflow.backend.schemas.records import Session
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.session_cache import MOST_PAGES_KEPT, OpenSession
from flashflow.backend.store.engine.sql import execute_rows
from flashflow.backend.store.rollups.models import OTHER

COLUMNS = (
    "seq, id, user_id, app, start_time, last_seen, end_time, end_reason, pages_visited, activities, "
    "device_info, ip_address, user_agent, shared, key_activities, implicit"
)


def _of_rows(what: str, column: str) -> str:
    """Build SQL for ``what`` over a column of the activities of the enclosing query's ``user_sessions``."""
    of_all = (
        f"SELECT {column} FROM user_activities a WHERE "
        "a.timestamp BETWEEN user_sessions.start_time AND user_sessions.last_seen AND a.session_id = user_sessions.id"
    )
    shared, own = (what.replace("{rows}", rows) for rows in (of_all, user_index.of_session(column)))
    return f"CASE WHEN shared THEN {shared} ELSE {own} END"


PAGES = _of_rows("(SELECT COUNT(DISTINCT page_url) FROM ({rows}))", "page_url")
KEYS = _of_rows(
    "(SELECT COUNT(*) FROM ({rows}) WHERE activity_type IN "
    f"(SELECT name FROM figure_names WHERE kind = {OTHER['type']} AND marked))",
    "activity_type",
)
"""SQL for the number of a session's key activities."""
LIVE_PAGES = f"CASE WHEN end_time IS NULL AND pages_visited > {MOST_PAGES_KEPT} THEN {PAGES} ELSE pages_visited END"
READ_COLUMNS = COLUMNS.replace("pages_visited", f"{LIVE_PAGES} AS pages_visited")


def write(conn: sqlite3.Connection, sessions: Iterable[OpenSession]) -> list[OpenSession]:
    """Write ``sessions``; return the ones to publish events for: opened, ended or merged."""
    published: list[OpenSession] = []
    sessions = tuple(sessions)
    revision, seq = _last_places(conn) if any(s.publish for s in sessions) else (0, 0)
    inserts, updates, moves, endings = [], [], [], []
    for s in sessions:
        if s.publish:
            revision += 1
            published.append(s)
        if s.is_new:
            s.seq = seq = seq + 1
            inserts.append(
                (s.seq, s.id, s.user_id, s.app, s.start_time, s.last_seen, s.end_time, s.end_reason,
                 s.pages_visited, s.activities, s.device_info, s.ip_address, s.user_agent, s.shared,
                 s.key_activities, s.implicit, revision)
            )  # fmt: skip
        elif s.publish:
            endings.append(
                (s.start_time, s.last_seen, s.end_time, s.end_reason, s.activities, s.shared, s.key_activities,
                 s.implicit, s.pages_visited, revision, s.seq)
            )  # fmt: skip
        else:
            updates.append((s.last_seen, s.activities, s.key_activities, s.pages_visited, s.seq))
            if s.moved:
                moves.append((s.start_time, s.shared, s.implicit, s.seq))
        s.saved()
    if inserts:
        execute_rows(conn, _INSERT, inserts)
    if updates:
        execute_rows(conn, _UPDATE, updates)
    if moves:
        conn.executemany(_MOVE, moves)
    if endings:
        conn.executemany(_UPDATE_AND_PUBLISH, endings)
    return published


def count_pages(conn: sqlite3.Connection, session: OpenSession) -> None:
    """Recount an ended session's distinct pages from its activities, in the file and in memory."""
    (session.pages_visited,) = conn.execute(_COUNT_PAGES, (session.id,)).fetchone()


def count_keys(conn: sqlite3.Connection, session: OpenSession) -> None:
    """Recount a session's key activities, in the file and in memory."""
    (session.key_activities,) = conn.execute(_COUNT_KEYS, (session.id,)).fetchone()


def save_pages(conn: sqlite3.Connection, session: OpenSession) -> None:
    """Write the number of pages held in memory."""
    conn.execute("UPDATE user_sessions SET pages_visited = ? WHERE seq = ?", (session.pages_visited, session.seq))


def recall_pages(conn: sqlite3.Connection, session: OpenSession) -> None:
    """Load an open session's distinct pages into memory, unless it exceeds MOST_PAGES_KEPT."""
    if session.pages is None and session.pages_visited <= MOST_PAGES_KEPT:
        (pages,) = conn.execute(_PAGES_OF, (session.id,)).fetchone()
        session.pages = {hash(page) for page in from_list(pages) if page is not None}
        session.pages_visited = len(session.pages)


def _last_places(conn: sqlite3.Connection) -> tuple[int, int]:
    """Return the highest ``revision`` and the highest ``seq`` ever assigned."""
    revision = last_revision(conn)
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'user_sessions'").fetchone()
    return revision, row[0] if row else 0


def last_revision(conn: sqlite3.Connection) -> int:
    """Return the highest ``revision`` ever assigned to a session, deleted ones included."""
    return int(conn.execute(_LAST_REVISION).fetchone()[0])


_LAST_REVISION = (
    "SELECT MAX(COALESCE((SELECT MAX(revision) FROM user_sessions), 0), (SELECT revision FROM highest_revision))"
)


def read_session(conn: sqlite3.Connection, session_id: bytes) -> Session:
    """Read the session with the encoded id ``session_id``, which must exist."""
    row = conn.execute(f"SELECT {READ_COLUMNS} FROM user_sessions WHERE id = ?", (session_id,)).fetchone()
    return to_session(row)


def sessions_at(conn: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Iterate over rows of READ_COLUMNS in the order of ``seqs``."""
    return conn.execute(
        f"SELECT {READ_COLUMNS} FROM (SELECT value AS wanted FROM json_each(?)) "
        "CROSS JOIN user_sessions ON user_sessions.seq = wanted",
        (to_json(list(seqs)),),
    )


class Bounds(NamedTuple):
    """Bounds of a session's activities: their user (None: a shared session of several users) and their times."""

    user_id: str | None
    start: int
    last: int


def session_bounds(conn: sqlite3.Connection, session_id: str) -> Bounds | None:
    """Return the user and times by which an index finds a session's activities; None for an unknown session."""
    row = conn.execute(
        "SELECT CASE WHEN NOT shared THEN user_id END, start_time, last_seen FROM user_sessions WHERE id = ?",
        (encode_id(session_id),),
    ).fetchone()
    return None if row is None else Bounds(*row)


def to_session(row: tuple[Any, ...]) -> Session:
    """Convert a row of READ_COLUMNS."""
    (_, id_, user_id, app, start, seen, end, reason, pages, activities, info, ip, agent, _, _, _) = row
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
    "activities, device_info, ip_address, user_agent, shared, key_activities, implicit, revision) VALUES {rows}"
)
_UPDATE = (
    "WITH v (last_seen, activities, key_activities, pages, seq) AS (VALUES {rows}) UPDATE user_sessions SET "
    "last_seen = v.last_seen, activities = v.activities, key_activities = v.key_activities, pages_visited = v.pages "
    "FROM v WHERE user_sessions.seq = v.seq"
)
_MOVE = "UPDATE user_sessions SET start_time = ?, shared = ?, implicit = ? WHERE seq = ?"
"""Not part of _UPDATE: SQLite rewrites the entries of indexed columns even if their values do not change."""
_UPDATE_AND_PUBLISH = (
    "UPDATE user_sessions SET start_time = ?, last_seen = ?, end_time = ?, end_reason = ?, activities = ?, "
    "shared = ?, key_activities = ?, implicit = ?, pages_visited = ?, revision = ? WHERE seq = ?"
)
_PAGES_OF = (
    f"SELECT {_of_rows('(SELECT json_group_array(DISTINCT page_url) FROM ({rows}))', 'page_url')} "
    "FROM user_sessions WHERE id = ?"
)
_COUNT_KEYS = f"UPDATE user_sessions SET key_activities = {KEYS} WHERE id = ? RETURNING key_activities"
_COUNT_PAGES = f"UPDATE user_sessions SET pages_visited = {PAGES} WHERE id = ? RETURNING pages_visited"
