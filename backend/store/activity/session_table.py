"""The ``user_sessions`` table: writes of working copies, reads as records."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from peewee import Case

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_address, decode_id, encode_id, from_list, from_object, to_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import Session
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.models import UserSession
from flashflow.backend.store.activity.session_cache import MOST_PAGES_KEPT, OpenSession, SessionRow
from flashflow.backend.store.engine.numbers import Numbers, last_revision, last_seq
from flashflow.backend.store.engine.statement import Statement, TextStatement, slot
from flashflow.backend.store.rollups.models import OTHER


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
    f"(SELECT name FROM dimensions WHERE kind = {OTHER['type']} AND marked))",
    "activity_type",
)
"""SQL for the number of a session's key activities."""
LIVE_PAGES = f"CASE WHEN end_time IS NULL AND pages_visited > {MOST_PAGES_KEPT} THEN {PAGES} ELSE pages_visited END"
READ_COLUMNS = ", ".join(SessionRow._fields).replace("pages_visited", f"{LIVE_PAGES} AS pages_visited")
"""The columns of a SessionRow with the number of pages of the present."""


def write(conn: sqlite3.Connection, sessions: Iterable[OpenSession]) -> list[OpenSession]:
    """Write ``sessions``; return the ones to publish events for: opened, ended or merged."""
    published: list[OpenSession] = []
    sessions = tuple(sessions)
    revisions, seqs = SESSION_REVISIONS.following(conn), SESSION_SEQS.following(conn)
    inserts, updates = [], []
    revision = 0
    for s in sessions:
        if s.publish:
            revision = next(revisions)
            published.append(s)
        if s.is_new:
            s.seq = next(seqs)
            inserts.append(
                SessionRow(
                    s.seq, s.id, s.user_id, s.app, s.start_time, s.last_seen, s.end_time, s.end_reason,
                    s.pages_visited, s.activities, s.device_info, s.ip_address, s.user_agent, s.shared,
                    revision, s.key_activities, s.implicit,
                )
            )  # fmt: skip
        elif s.publish:
            _UPDATE_AND_PUBLISH.run(
                conn,
                start_time=s.start_time,
                last_seen=s.last_seen,
                end_time=s.end_time,
                end_reason=s.end_reason,
                activities=s.activities,
                shared=s.shared,
                key_activities=s.key_activities,
                implicit=s.implicit,
                pages_visited=s.pages_visited,
                revision=revision,
                seq=s.seq,
            )
        else:
            updates.append((s.last_seen, s.activities, s.key_activities, s.pages_visited, s.seq))
            if s.moved:
                _MOVE.run(conn, start_time=s.start_time, shared=s.shared, implicit=s.implicit, seq=s.seq)
        s.saved()
    _INSERT.many(conn, inserts)
    _UPDATE.many(conn, updates)
    return published


def count_pages(conn: sqlite3.Connection, session: OpenSession) -> None:
    """Recount an ended session's distinct pages from its activities, in the file and in memory."""
    session.pages_visited = _COUNT_PAGES.value(conn, id=session.id)


def count_keys(conn: sqlite3.Connection, session: OpenSession) -> None:
    """Recount a session's key activities, in the file and in memory."""
    session.key_activities = _COUNT_KEYS.value(conn, id=session.id)


def save_pages(conn: sqlite3.Connection, session: OpenSession) -> None:
    """Write the number of pages held in memory."""
    _SAVE_PAGES.run(conn, pages_visited=session.pages_visited, seq=session.seq)


def recall_pages(conn: sqlite3.Connection, session: OpenSession) -> None:
    """Load an open session's distinct pages into memory, unless it exceeds MOST_PAGES_KEPT."""
    if session.pages is None and session.pages_visited <= MOST_PAGES_KEPT:
        pages = from_list(_PAGES_OF.value(conn, id=session.id))
        session.pages = {hash(page) for page in pages if page is not None}
        session.pages_visited = len(session.pages)


def read_session(conn: sqlite3.Connection, session_id: bytes) -> Session:
    """Read the session with the encoded id ``session_id``, which must exist."""
    row = _READ.one(conn, id=session_id)
    assert row is not None
    return to_session(row)


def sessions_at(conn: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[SessionRow]:
    """Iterate over the sessions at ``seqs``, in their order."""
    return _ROWS_AT.each(conn, seqs=to_json(list(seqs)))


class Bounds(NamedTuple):
    """Bounds of a session's activities: their user (None: a shared session of several users) and their times."""

    user_id: str | None
    start: int
    last: int


def session_bounds(conn: sqlite3.Connection, session_id: str) -> Bounds | None:
    """Return the user and times by which an index finds a session's activities; None for an unknown session."""
    return _BOUNDS.one(conn, id=encode_id(session_id))


def to_session(row: SessionRow) -> Session:
    """Convert a row."""
    end = row.last_seen if row.end_time is None else row.end_time
    return Session(
        id=decode_id(row.id),
        user_id=row.user_id,
        app=row.app,
        start_time=to_datetime(row.start_time),
        last_seen=to_datetime(row.last_seen),
        end_time=None if row.end_time is None else to_datetime(row.end_time),
        end_reason=row.end_reason,
        duration=(end - row.start_time) / 1000,
        pages_visited=row.pages_visited,
        activities=row.activities,
        device_info=from_object(row.device_info),
        ip_address=decode_address(row.ip_address),
        user_agent=row.user_agent,
    )


_S = UserSession
SESSION_SEQS = Numbers(Statement(lambda: last_seq(_S)))
SESSION_REVISIONS = Numbers(Statement(lambda: last_revision(_S)))
_READ = TextStatement(f"SELECT {READ_COLUMNS} FROM user_sessions WHERE id = :id", SessionRow, reason="a join order")
# CROSS JOIN keeps the order of the list without sorting the rows, which may be as large as a request.
_ROWS_AT = TextStatement(
    f"SELECT {READ_COLUMNS} FROM (SELECT value AS wanted FROM json_each(:seqs)) "
    "CROSS JOIN user_sessions ON user_sessions.seq = wanted",
    SessionRow,
    reason="a join order",
)
_BOUNDS = Statement(
    lambda: _S.select(
        Case(None, [(~_S.shared, _S.user_id)]).alias("user_id"),
        _S.start_time.alias("start"),
        _S.last_seen.alias("last"),
    ).where(_S.id == slot("id")),
    Bounds,
)
_INSERT = Statement(lambda: _S.insert({getattr(_S, name): slot(name) for name in SessionRow._fields}))
_UPDATE = TextStatement(
    "WITH v (last_seen, activities, key_activities, pages, seq) AS "
    "(VALUES {rows:last_seen, activities, key_activities, pages, seq}) UPDATE user_sessions SET "
    "last_seen = v.last_seen, activities = v.activities, key_activities = v.key_activities, pages_visited = v.pages "
    "FROM v WHERE user_sessions.seq = v.seq",
    reason="an update from values",
)
_MOVED = (_S.start_time, _S.shared, _S.implicit)
# Not part of _UPDATE: SQLite rewrites the entries of indexed columns even if their values do not change.
_MOVE = Statement(lambda: _S.update({field: slot(field.name) for field in _MOVED}).where(_S.seq == slot("seq")))
_PUBLISHED = (
    *_MOVED, _S.last_seen, _S.end_time, _S.end_reason, _S.activities, _S.key_activities, _S.pages_visited, _S.revision,
)  # fmt: skip
_UPDATE_AND_PUBLISH = Statement(
    lambda: _S.update({field: slot(field.name) for field in _PUBLISHED}).where(_S.seq == slot("seq"))
)
_SAVE_PAGES = Statement(lambda: _S.update({_S.pages_visited: slot("pages_visited")}).where(_S.seq == slot("seq")))
_PAGES_OF = TextStatement(
    f"SELECT {_of_rows('(SELECT json_group_array(DISTINCT page_url) FROM ({rows}))', 'page_url')} "
    "FROM user_sessions WHERE id = :id",
    reason="a join order",
)
_COUNT_KEYS = TextStatement(
    f"UPDATE user_sessions SET key_activities = {KEYS} WHERE id = :id RETURNING key_activities", reason="a join order"
)
_COUNT_PAGES = TextStatement(
    f"UPDATE user_sessions SET pages_visited = {PAGES} WHERE id = :id RETURNING pages_visited", reason="a join order"
)
