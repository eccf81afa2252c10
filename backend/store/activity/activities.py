"""The ``user_activities`` table: idempotent inserts, queries newest first; queries of a user's sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import (
    decode_address,
    decode_cursor,
    decode_id,
    encode_address,
    encode_cursor,
    encode_id,
    from_object,
)
from flashflow.backend.core.errors import Conflict, FlashFlowError
from flashflow.backend.core.events import Event
from flashflow.backend.schemas.records import Activity, ActivityPage, SessionPage, Tracked
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.activity.session_table import READ_COLUMNS, session_bounds, sessions_at, to_session
from flashflow.backend.store.activity.sessionizer import SessionBook
from flashflow.backend.store.engine.sql import clause, conditions, execute_rows, take
from flashflow.backend.store.engine.writer import TryCarefully, Tx
from flashflow.backend.store.rollups.partitions import partition_of, session_partitions


class NewActivity(NamedTuple):
    """An activity to store; times in milliseconds since 1970, ``metadata`` as JSON text. ``timed``: the sender gave its
    timestamp."""

    id: str
    id_given: bool
    timed: bool
    user_id: str
    activity_type: str
    session_id: str | None
    app: str
    timestamp: int
    received_at: int
    metadata: str | None
    page_url: str | None
    referrer: str | None
    user_agent: str | None
    ip_address: str | None


USERS_COUNTED_AT_ONCE = 8
"""A transaction with activities of more users defers the update of their counters."""

Tracking = Sequence[NewActivity]
"""The activities of one request."""


def track(
    tx: Tx, requests: Sequence[Tracking], new_id: Callable[[], str], cache: SessionCache
) -> Sequence[list[Tracked | FlashFlowError] | FlashFlowError]:
    """Store the activities of all ``requests``, their sessions and their users' counters; return one answer each.

    Raises TryCarefully when the unique index on ids refuses the rows: stored ids are rare, so they are looked up only
    on the second try.
    """
    book = SessionBook(tx, new_id, cache)
    taken: dict[bytes, tuple[str, bytes]] = {}
    rows: list[tuple[Any, ...]] = []
    totals: dict[str, tuple[int, int]] = {}
    answers: list[list[Tracked | FlashFlowError]] = []
    for request in requests:
        answer: list[Tracked | FlashFlowError] = []
        for a in request:
            key = encode_id(a.id)
            known = _known(tx, taken, key) if a.id_given else None
            if known is not None:
                app, session_id = known
                answer.append(
                    Tracked(activity_id=a.id, session_id=decode_id(session_id), duplicate=True)
                    if app == a.app
                    else Conflict(f"activity_id: {a.id!r} belongs to another app.")
                )
                continue
            try:
                session = book.place(
                    a.user_id, a.app, a.session_id, a.timestamp, a.page_url, is_key=a.activity_type in cache.key_types
                )
            except Conflict as refusal:
                answer.append(refusal)
                continue
            if a.id_given:
                taken[key] = (a.app, session.id)
            rows.append((key, a.user_id, a.activity_type, session.id, *a[6:-2], *_origin(tx, cache, a)))
            count, last = totals.get(a.user_id, (0, 0))
            totals[a.user_id] = (count + 1, max(last, a.timestamp))
            tx.events.append(Event("activity", a.id, a.user_id, a.app))
            answer.append(Tracked(activity_id=a.id, session_id=decode_id(session.id)))
        answers.append(answer)
    if rows:
        try:
            execute_rows(tx.conn, _INSERT, rows)
        except sqlite3.IntegrityError as error:
            raise TryCarefully from error
        _count(tx, totals, len(rows), book)
        book.save()
        if book.merged:
            return [[_with_session(tx, one) for one in answer] for answer in answers]
    return answers


def _with_session(tx: Tx, answer: Tracked | FlashFlowError) -> Tracked | FlashFlowError:
    """Return the answer with its activity's session after a session merge."""
    if isinstance(answer, FlashFlowError):
        return answer
    query = "SELECT session_id FROM user_activities WHERE id = ?"
    (session_id,) = tx.conn.execute(query, (encode_id(str(answer.activity_id)),)).fetchone()
    return msgspec.structs.replace(answer, session_id=decode_id(session_id))


def _origin(tx: Tx, cache: SessionCache, a: NewActivity) -> tuple[str | None, bytes | None, int | None]:
    """Return the columns ``user_agent``, ``ip_address`` and ``agent``; a user agent with a key is stored as the key."""
    number = None if a.user_agent is None else cache.agent(tx, a.user_agent)
    return (a.user_agent if number is None else None, encode_address(a.ip_address), number)


def _count(tx: Tx, totals: dict[str, tuple[int, int]], rows: int, book: SessionBook) -> None:
    """Count the ``rows`` just inserted and the sessions they opened, now or deferred (``user_index``)."""
    if len(totals) <= USERS_COUNTED_AT_ONCE:
        if user_index.count_tail(tx):
            totals = {}
    elif user_index.counted_to(tx.conn) is None:
        (last,) = tx.conn.execute("SELECT last_insert_rowid()").fetchone()
        user_index.count_later(tx, last - rows)
        return
    else:
        return
    count_users(tx, totals, book)


def count_users(tx: Tx, totals: dict[str, tuple[int, int]], book: SessionBook) -> None:
    """Add activities (count, last time) and the sessions that ``book`` opened to the users' counters."""
    users = totals.keys() | book.opened.keys()
    if users:
        execute_rows(
            tx.conn, _COUNT, [(user, book.opened.get(user, 0), *totals.get(user, (0, None))) for user in sorted(users)]
        )


def _known(tx: Tx, taken: dict[bytes, tuple[str, bytes]], key: bytes) -> tuple[str, bytes] | None:
    """Return the app and the session of the activity stored under this id."""
    if key in taken or not tx.careful:
        return taken.get(key)
    row: tuple[str, bytes] | None = tx.conn.execute(
        "SELECT app, session_id FROM user_activities WHERE id = ?", (key,)
    ).fetchone()
    return row


_INSERT = (
    "INSERT INTO user_activities (id, user_id, activity_type, session_id, app, timestamp, received_at, metadata, "
    "page_url, referrer, user_agent, ip_address, agent) VALUES {rows}"
)
_COUNT = user_index.COUNT.replace("{rows}", "VALUES {rows}")

COLUMNS = ", ".join(user_index.COLUMNS.values())


def list_activities(conn: sqlite3.Connection, *, limit: int, cursor: str | None = None, **filters: Any) -> ActivityPage:
    """Return up to ``limit`` activities, newest ``timestamp`` first; filters as in ``activity_rows``."""
    rows, following = activity_rows(conn, limit=limit, cursor=cursor, most_bytes=None, **filters)
    return ActivityPage(activities=tuple(map(to_activity, rows)), next_cursor=following)


def activity_rows(
    conn: sqlite3.Connection,
    *,
    user_id: str | None,
    activity_type: str | None,
    session_id: str | None,
    app: str | None,
    since: int | None,
    until: int | None,
    limit: int,
    cursor: str | None,
    most_bytes: int | None,
) -> tuple[list[tuple[Any, ...]], str | None]:
    """Return rows of COLUMNS, newest ``timestamp`` first, and the next cursor; ``since`` is included, ``until`` is not.
    Returns up to ``limit`` rows, fewer once they have ``most_bytes``."""
    low, high = since, None if until is None else until - 1
    if session_id is not None:
        bounds = session_bounds(conn, session_id)
        if bounds is None or (user_id is not None and bounds.user_id not in (None, user_id)):
            return [], None
        user_id = user_id if bounds.user_id is None else bounds.user_id
        low = bounds.start if low is None else max(low, bounds.start)
        high = bounds.last if high is None else min(high, bounds.last)
    where, values = conditions(
        [
            ("activity_type = ?", activity_type),
            ("session_id = ?", None if session_id is None else encode_id(session_id)),
            ("app = ?", app),
        ]
    )
    if cursor is not None:
        place = decode_cursor(cursor, "activities", 2)
        where.append("(timestamp, seq) < (?, ?)")
        values.extend(place)
        high = place[0] if high is None else min(high, place[0])
    if user_id is not None:
        places = user_index.places_of_user(conn, user_index.IndexQuery(user_id, where, values, low, high), limit + 1)
    else:
        within, times = conditions([("timestamp >= ?", low), ("timestamp <= ?", high)])
        places = conn.execute(
            f"SELECT timestamp, seq FROM user_activities{clause([*where, *within])} "
            "ORDER BY timestamp DESC, seq DESC LIMIT ?",
            (*values, *times, limit + 1),
        ).fetchall()
    rows, more = take(user_index.rows_at(conn, [seq for _, seq in places]), limit, most_bytes)
    return rows, encode_cursor("activities", rows[-1][6], rows[-1][0]) if more else None


def activities_after(
    conn: sqlite3.Connection, seq: int, until: int, user_id: str | None, app: str | None
) -> Iterator[tuple[Any, ...]]:
    """Iterate over rows of COLUMNS after ``seq`` up to ``until``, in order of arrival."""
    where, values = conditions([("seq > ?", seq), ("seq <= ?", until), ("user_id = ?", user_id), ("app = ?", app)])
    return conn.execute(
        f"SELECT {COLUMNS} FROM user_activities NOT INDEXED{clause(where)} ORDER BY seq",
        values,
    )


def last_seq(conn: sqlite3.Connection) -> int:
    """Return the highest ``seq`` ever assigned to an activity."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'user_activities'").fetchone()
    return int(row[0]) if row else 0


def list_sessions(
    conn: sqlite3.Connection, user_id: str, app: str | None, limit: int, cursor: str | None
) -> SessionPage:
    """Return up to ``limit`` sessions of a user, newest start first."""
    rows, following = session_rows(conn, user_id, app, limit, cursor, None)
    return SessionPage(sessions=tuple(map(to_session, rows)), next_cursor=following)


def session_rows(
    conn: sqlite3.Connection, user_id: str, app: str | None, limit: int, cursor: str | None, most_bytes: int | None
) -> tuple[list[tuple[Any, ...]], str | None]:
    """Return a user's sessions as rows of READ_COLUMNS, newest start first, and the next cursor. Returns up to
    ``limit`` rows, fewer once they have ``most_bytes``."""
    where, values = conditions([("app = ?", app)])
    newest: int | None = None
    if cursor is not None:
        where.append("(start_time, seq) < (?, ?)")
        place = decode_cursor(cursor, "sessions", 2)
        values.extend(place)
        newest = place[0]
    within = clause([f"{partition_of('start_time')} = ?", "user_id = ?", *where])
    seqs: list[int] = []
    for part in session_partitions(conn, newest):
        found = conn.execute(
            f"SELECT seq FROM user_sessions{within} ORDER BY start_time DESC, seq DESC LIMIT ?",
            (part, user_id, *values, limit + 1 - len(seqs)),
        )
        seqs += [seq for (seq,) in found]
        if len(seqs) > limit:
            break
    rows, more = take(sessions_at(conn, seqs), limit, most_bytes)
    return rows, encode_cursor("sessions", rows[-1][4], rows[-1][0]) if more else None


def sessions_after(
    conn: sqlite3.Connection, revision: int, until: int, user_id: str | None, app: str | None
) -> Iterator[tuple[Any, ...]]:
    """Iterate over sessions that opened or ended after ``revision`` up to ``until``, oldest change first: rows of
    READ_COLUMNS and the revision."""
    where, values = conditions(
        [("revision > ?", revision), ("revision <= ?", until), ("user_id = ?", user_id), ("app = ?", app)]
    )
    # By the revision's index: rows from a user's index would all be read and sorted before the first is returned.
    return conn.execute(
        f"SELECT {READ_COLUMNS}, revision FROM user_sessions INDEXED BY user_sessions_revision{clause(where)} "
        "ORDER BY revision",
        values,
    )


def to_activity(row: tuple[Any, ...]) -> Activity:
    """Convert a row of COLUMNS."""
    (_, id_, user_id, kind, session_id, app, timestamp, received, metadata, page, referrer, agent, ip) = row
    return Activity(
        id=decode_id(id_),
        user_id=user_id,
        activity_type=kind,
        session_id=decode_id(session_id),
        app=app,
        timestamp=to_datetime(timestamp),
        received_at=to_datetime(received),
        metadata=from_object(metadata),
        page_url=page,
        referrer=referrer,
        user_agent=agent,
        ip_address=decode_address(ip),
    )
