"""The ``user_activities`` table: idempotent inserts, queries newest first; queries of a user's sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from peewee import Tuple

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
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import Activity, ActivityPage, SessionPage, Tracked
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.models import UserActivity, UserSession
from flashflow.backend.store.activity.session_cache import SessionCache, SessionRow
from flashflow.backend.store.activity.session_table import (
    READ_COLUMNS,
    session_bounds,
    sessions_at,
    to_session,
)
from flashflow.backend.store.activity.sessionizer import SessionBook
from flashflow.backend.store.activity.user_index import ActivityRow, IndexQuery, Place
from flashflow.backend.store.engine.numbers import Numbers, last_seq
from flashflow.backend.store.engine.sql import take
from flashflow.backend.store.engine.statement import Statement, TextStatement, any_or_same, columns, slot
from flashflow.backend.store.engine.writer import TryCarefully, Tx
from flashflow.backend.store.rollups.partitions import ALWAYS, partition, session_partitions


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


class _Stored(NamedTuple):
    """The app and the session of a stored activity."""

    app: str
    session_id: str


USERS_COUNTED_AT_ONCE = 8
"""A transaction with activities of more users defers the update of their counters."""
COUNTED_WITH_A_WRITE = 500
"""Deferred activities that a small write counts; it leaves more of them to the idle second. Counting one takes about 50
steps, and a transaction on an event loop has ``step_limit.STEPS``: beyond these it would be done twice."""

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
    taken: dict[bytes, _Stored] = {}
    rows: list[tuple[Any, ...]] = []
    totals: dict[str, tuple[int, int]] = {}
    answers: list[list[Tracked | FlashFlowError]] = []
    for request in requests:
        answer: list[Tracked | FlashFlowError] = []
        for a in request:
            key = encode_id(a.id)
            known = _known(tx, taken, key) if a.id_given else None
            if known is not None:
                answer.append(
                    Tracked(activity_id=a.id, session_id=known.session_id, duplicate=True)
                    if known.app == a.app
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
            session_id = decode_id(session.id)
            if a.id_given:
                taken[key] = _Stored(a.app, session_id)
            number = None if a.user_agent is None else cache.agent(tx, a.user_agent)
            rows.append(
                (key, a.user_id, a.activity_type, session.id, a.app, a.timestamp, a.received_at, a.metadata,
                 a.page_url, a.referrer, a.user_agent if number is None else None, encode_address(a.ip_address),
                 number)
            )  # fmt: skip
            count, last = totals.get(a.user_id, (0, 0))
            totals[a.user_id] = (count + 1, max(last, a.timestamp))
            tx.events.append(Event("activity", a.id, a.user_id, a.app))
            answer.append(Tracked(activity_id=a.id, session_id=session_id))
        answers.append(answer)
    if rows:
        try:
            _INSERT.many(tx.conn, rows)
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
    stored = _STORED.one(tx.conn, id=encode_id(str(answer.activity_id)))
    assert stored is not None
    return msgspec.structs.replace(answer, session_id=stored.session_id)


def _count(tx: Tx, totals: dict[str, tuple[int, int]], rows: int, book: SessionBook) -> None:
    """Count the ``rows`` just inserted and the sessions they opened, now or deferred (``user_index``)."""
    counted = user_index.counted_to(tx.conn)
    if len(totals) > USERS_COUNTED_AT_ONCE:
        if counted is None:
            user_index.count_later(tx, ACTIVITY_SEQS.last(tx.conn) - rows)
        return
    if counted is not None:
        if ACTIVITY_SEQS.last(tx.conn) - counted > COUNTED_WITH_A_WRITE:
            return
        user_index.count_tail(tx)
        totals = {}
    count_users(tx, totals, book)


def count_users(tx: Tx, totals: dict[str, tuple[int, int]], book: SessionBook) -> None:
    """Add activities (count, last time) and the sessions that ``book`` opened to the users' counters."""
    users = totals.keys() | book.opened.keys()
    if users:
        user_index.COUNT_USERS.many(
            tx.conn, [(user, book.opened.get(user, 0), *totals.get(user, (0, None))) for user in sorted(users)]
        )


def _known(tx: Tx, taken: dict[bytes, _Stored], key: bytes) -> _Stored | None:
    """Return the app and the session of the activity stored under this id."""
    if key in taken or not tx.careful:
        return taken.get(key)
    return _STORED.one(tx.conn, id=key)


_A, _S = UserActivity, UserSession
_STORED = Statement(lambda: _A.select(*columns(_A, _Stored)).where(_A.id == slot("id")), _Stored)
# A user agent with a key is stored as the key.
_INSERTED = (
    _A.id, _A.user_id, _A.activity_type, _A.session_id, _A.app, _A.timestamp, _A.received_at, _A.metadata, _A.page_url,
    _A.referrer, _A.user_agent, _A.ip_address, _A.agent,
)  # fmt: skip
_INSERT = Statement(lambda: _A.insert({field: slot(field.name) for field in _INSERTED}))


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
) -> tuple[list[ActivityRow], str | None]:
    """Return activities, newest ``timestamp`` first, and the next cursor; ``since`` is included, ``until`` is not.
    Returns up to ``limit`` rows, fewer once they have ``most_bytes``."""
    low, high = -ALWAYS if since is None else since, ALWAYS if until is None else until - 1
    if session_id is not None:
        bounds = session_bounds(conn, session_id)
        if bounds is None or (user_id is not None and bounds.user_id not in (None, user_id)):
            return [], None
        user_id = user_id if bounds.user_id is None else bounds.user_id
        low, high = max(low, bounds.start), min(high, bounds.last)
    before = Place(ALWAYS, 0)
    if cursor is not None:
        before = Place(*decode_cursor(cursor, "activities", 2))
        high = min(high, before.timestamp)
    query = IndexQuery(
        user_id or "", low, high, activity_type, None if session_id is None else encode_id(session_id), app,
        before=before,
    )  # fmt: skip
    if user_id is not None:
        places = user_index.places_of_user(conn, query, limit + 1)
    else:
        of_all = activity_type is None and session_id is None and app is None
        places = (_PLACES_OF_ALL if of_all else _PLACES).all(
            conn, low=low, high=high, limit=limit + 1, **query.values()
        )
    rows, more = take(user_index.rows_at(conn, [place.seq for place in places]), limit, most_bytes)
    return rows, encode_cursor("activities", rows[-1].timestamp, rows[-1].seq) if more else None


_BY_TIME = (
    _A.select(*columns(_A, Place))
    .where(
        _A.timestamp.between(slot("low"), slot("high")),
        Tuple(_A.timestamp, _A.seq) < Tuple(slot("before"), slot("before_seq")),
    )
    .order_by(_A.timestamp.desc(), _A.seq.desc())
    .limit(slot("limit"))
)
_PLACES_OF_ALL = Statement(_BY_TIME, Place)  # reads the index only
_PLACES = Statement(
    lambda: _BY_TIME.where(
        any_or_same(_A.activity_type),
        slot("session_id").is_null() | (_A.session_id == slot("session_id")),
        any_or_same(_A.app),
    ),
    Place,
)


def activities_after(
    conn: sqlite3.Connection, seq: int, until: int, user_id: str | None, app: str | None
) -> Iterator[ActivityRow]:
    """Iterate over the activities after ``seq`` up to ``until``, in order of arrival."""
    return _AFTER.each(conn, after=seq, until=until, user_id=user_id, app=app)


_AFTER = Statement(
    lambda: user_index.ACTIVITIES_BY_SEQ.where(any_or_same(_A.user_id), any_or_same(_A.app)), ActivityRow
)


ACTIVITY_SEQS = Numbers(Statement(lambda: last_seq(_A)))


def list_sessions(
    conn: sqlite3.Connection, user_id: str, app: str | None, limit: int, cursor: str | None
) -> SessionPage:
    """Return up to ``limit`` sessions of a user, newest start first."""
    rows, following = session_rows(conn, user_id, app, limit, cursor, None)
    return SessionPage(sessions=tuple(map(to_session, rows)), next_cursor=following)


def session_rows(
    conn: sqlite3.Connection, user_id: str, app: str | None, limit: int, cursor: str | None, most_bytes: int | None
) -> tuple[list[SessionRow], str | None]:
    """Return a user's sessions, newest start first, and the next cursor. Returns up to ``limit`` rows, fewer once they
    have ``most_bytes``."""
    newest, before_seq = (ALWAYS, 0) if cursor is None else decode_cursor(cursor, "sessions", 2)
    query = _SESSIONS_IN_PARTITION if app is None else _SESSIONS_OF_APP
    seqs: list[int] = []
    for part in session_partitions(conn, newest):
        found = query.each(
            conn,
            partition=part,
            user_id=user_id,
            app=app,
            before=newest,
            before_seq=before_seq,
            limit=limit + 1 - len(seqs),
        )
        seqs += [seq for (seq,) in found]
        if len(seqs) > limit:
            break
    rows, more = take(sessions_at(conn, seqs), limit, most_bytes)
    return rows, encode_cursor("sessions", rows[-1].start_time, rows[-1].seq) if more else None


_IN_PARTITION = (
    _S.select(_S.seq)
    .where(
        partition(_S.start_time) == slot("partition"),
        _S.user_id == slot("user_id"),
        Tuple(_S.start_time, _S.seq) < Tuple(slot("before"), slot("before_seq")),
    )
    .order_by(_S.start_time.desc(), _S.seq.desc())
    .limit(slot("limit"))
)
_SESSIONS_IN_PARTITION = Statement(_IN_PARTITION)  # reads the index only
_SESSIONS_OF_APP = Statement(lambda: _IN_PARTITION.where(_S.app == slot("app")))


def sessions_after(
    conn: sqlite3.Connection, revision: int, until: int, user_id: str | None, app: str | None
) -> Iterator[SessionRow]:
    """Iterate over sessions that opened or ended after ``revision`` up to ``until``, oldest change first."""
    return _SESSIONS_AFTER.each(conn, after=revision, until=until, user_id=user_id, app=app)


# By the revision's index: rows from a user's index would all be read and sorted before the first is returned.
_SESSIONS_AFTER = TextStatement(
    f"SELECT {READ_COLUMNS} FROM user_sessions INDEXED BY user_sessions_revision "
    "WHERE revision > :after AND revision <= :until AND (:user_id IS NULL OR user_id = :user_id) "
    "AND (:app IS NULL OR app = :app) ORDER BY revision",
    SessionRow,
    reason="an index hint",
)


def to_activity(row: ActivityRow) -> Activity:
    """Convert a row."""
    return Activity(
        id=decode_id(row.id),
        user_id=row.user_id,
        activity_type=row.activity_type,
        session_id=decode_id(row.session_id),
        app=row.app,
        timestamp=to_datetime(row.timestamp),
        received_at=to_datetime(row.received_at),
        metadata=from_object(row.metadata),
        page_url=row.page_url,
        referrer=row.referrer,
        user_agent=row.user_agent,
        ip_address=decode_address(row.ip_address),
    )
