"""Shared sessions (activities of several users: a visitor who logs in later) when one of the users is erased."""

from __future__ import annotations

from collections.abc import Sequence

from peewee import SQL, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.models import UserActivity, UserSession
from flashflow.backend.store.activity.session_cache import OpenSession, SessionCache
from flashflow.backend.store.activity.sessionizer import SessionBook
from flashflow.backend.store.engine.statement import Statement, slot
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.models import OTHER, Dimension


class Gone(NamedTuple):
    """A deleted activity: the encoded id of its session, its type, its timestamp."""

    session: bytes
    kind: str
    timestamp: int


class _Times(NamedTuple):
    """The times of a session's first and last activity; None without any."""

    first: int | None
    last: int | None


class _Share(NamedTuple):
    """One user's activities in a session."""

    user_id: str
    first: int
    last: int
    activities: int
    key_activities: int


def without(tx: Tx, user_id: str, activities: Sequence[Gone], cache: SessionCache) -> None:
    """Subtract deleted ``activities`` from shared sessions of other users, and shrink these to the activities left."""
    book = SessionBook(tx, lambda: "", cache)
    times_of: dict[bytes, set[int]] = {}
    for gone in activities:
        session = book.shared(gone.session)
        if session is not None and session.user_id != user_id:
            session.activities = max(0, session.activities - 1)
            session.key_activities = max(0, session.key_activities - (gone.kind in cache.key_types))
            times_of.setdefault(gone.session, set()).add(gone.timestamp)
    for id_, times in times_of.items():
        session = book.shared(id_)
        assert session is not None
        _shrink(tx, session, times)
        book.mark(session)
    book.save()


def _shrink(tx: Tx, session: OpenSession, times: set[int]) -> None:
    """Move the session's start and end to its remaining activities, where deleted ones at ``times`` had set them."""
    start, seen = session.start_time, session.last_seen
    left = _TIMES.one(tx.conn, start=start, end=seen, id=session.id)
    assert left is not None
    first, last = left
    if start in times:
        session.start_time = seen if first is None and seen not in times else start if first is None else first
    if seen in times:
        session.last_seen = session.start_time if last is None else last
    if (start, seen) != (session.start_time, session.last_seen):
        if session.end_reason == "timeout" or session.end_time in times:
            session.end_time = session.last_seen
        session.publish = True


def reassign(tx: Tx, user_id: str, ids: Sequence[bytes], cache: SessionCache) -> frozenset[bytes]:
    """Reassign shared sessions of ``user_id``, whose own activities are deleted, to the first of the other users, and
    clear the device columns; return the ids of reassigned sessions."""
    book = SessionBook(tx, lambda: "", cache)
    taken: list[OpenSession] = []
    for id_ in ids:
        session = book.shared(id_)
        assert session is not None
        shares = _SHARES.all(tx.conn, start=session.start_time, end=session.last_seen, id=id_)
        if shares:
            session.user_id, session.shared, session.implicit = shares[0].user_id, len(shares) > 1, False
            session.start_time = shares[0].first
            session.last_seen = max(share.last for share in shares)
            session.activities = sum(share.activities for share in shares)
            session.key_activities = sum(share.key_activities for share in shares)
            if session.end_time is not None:
                session.end_time = session.last_seen
            session.publish = True
            _HAND_OVER.run(tx.conn, user=session.user_id, seq=session.seq)
            user_index.change_sessions(tx, session.user_id, session.seq, by=1)
            book.mark(session)
            taken.append(session)
    book.save()
    return frozenset(session.id for session in taken)


_A, _S = UserActivity, UserSession
_OF_SESSION = _A.timestamp.between(slot("start"), slot("end")) & (_A.session_id == slot("id"))
_FIRST, _LAST = fn.MIN(_A.timestamp), fn.MAX(_A.timestamp)
_TIMES = Statement(lambda: _A.select(_FIRST.alias("first"), _LAST.alias("last")).where(_OF_SESSION), _Times)
_KEY_TYPES = Dimension.select(Dimension.name).where(Dimension.kind == OTHER["type"], Dimension.marked)
_SHARES = Statement(
    lambda: (
        _A.select(
            _A.user_id,
            _FIRST.alias("first"),
            _LAST.alias("last"),
            fn.COUNT(SQL("*")).alias("activities"),
            fn.SUM(_A.activity_type.in_(_KEY_TYPES)).alias("key_activities"),
        )
        .where(_OF_SESSION)
        .group_by(_A.user_id)
        .order_by(_FIRST, _A.user_id)
    ),
    _Share,
)
_HAND_OVER = Statement(
    lambda: _S.update({_S.user_id: slot("user"), _S.device_info: None, _S.ip_address: None, _S.user_agent: None}).where(
        _S.seq == slot("seq")
    )
)
