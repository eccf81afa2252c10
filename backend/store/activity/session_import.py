"""Import of exported sessions: an unknown session is opened, a known one is merged with the stored row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flashflow.backend.core.encoding import encode_address, from_object
from flashflow.backend.core.errors import Conflict, FlashFlowError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import Tracked
from flashflow.backend.store.activity import activities, user_index
from flashflow.backend.store.activity.models import UserSession
from flashflow.backend.store.activity.session_cache import OpenSession, SessionCache
from flashflow.backend.store.activity.session_timeout import IDLE_MS, LONGEST_MS
from flashflow.backend.store.activity.sessionizer import SessionBook
from flashflow.backend.store.engine.statement import Statement, columns, slot
from flashflow.backend.store.engine.writer import Tx


class NewSession(NamedTuple):
    """A session to import; times in milliseconds since 1970, ``device_info`` as JSON text."""

    id: str
    user_id: str
    app: str
    start_time: int
    last_seen: int
    end_time: int | None
    end_reason: str | None
    device_info: str | None
    ip_address: str | None
    user_agent: str | None


class _DeviceInfo(NamedTuple):
    device_info: str | None


_ABOUT = ("device_info", "ip_address", "user_agent")


def import_sessions(
    tx: Tx, requests: Sequence[Sequence[NewSession]], cache: SessionCache
) -> list[list[Tracked | FlashFlowError]]:
    """Store the sessions of all ``requests``; return one answer each, a duplicate where nothing changed."""
    book = SessionBook(tx, lambda: "", cache)
    answers: list[list[Tracked | FlashFlowError]] = []
    fills: list[dict[str, Any]] = []
    for request in requests:
        answer: list[Tracked | FlashFlowError] = []
        for new in request:
            known = book.find(new.id)
            if known is None:
                _open(tx, book, new)
                changed = True
            elif (known.app, known.user_id) != (new.app, new.user_id):
                answer.append(Conflict(f"id: {new.id!r} belongs to another app or user."))
                continue
            else:
                changed = _join(tx, known, new)
                if changed:
                    book.mark(known)
                if _fill(tx, known, new):
                    fills.append({"id": new.id} | {name: getattr(known, name) for name in _ABOUT})
                    changed = True
            answer.append(Tracked(activity_id=None, session_id=new.id, duplicate=not changed))
        answers.append(answer)
    book.save()
    for values in fills:
        _FILL.run(tx.conn, **values)
    if user_index.counted_to(tx.conn) is None:  # otherwise they are counted with the pending activities
        activities.count_users(tx, {}, book)
    return answers


def _open(tx: Tx, book: SessionBook, new: NewSession) -> None:
    over = new.end_time is not None or _is_stale(tx, new)
    session = book.open(
        new.user_id, new.app, new.id, new.start_time, from_object(new.device_info), new.ip_address, new.user_agent,
        joins=not over,
    )  # fmt: skip
    session.touch(new.last_seen)
    if over:
        session.close(max(new.end_time or 0, new.last_seen), new.end_reason or "timeout")


def _is_stale(tx: Tx, new: NewSession) -> bool:
    return tx.now_ms - new.last_seen > IDLE_MS or tx.now_ms - new.start_time >= LONGEST_MS


def _join(tx: Tx, known: OpenSession, new: NewSession) -> bool:
    """Extend the stored session to the imported times and its end; return whether it changed."""
    before = _state(known)
    known.touch(new.start_time)
    known.touch(new.last_seen)
    if new.end_time is not None and new.end_reason == "ended":
        end = max(new.end_time, known.last_seen, (known.end_time or 0) if known.end_reason == "ended" else 0)
        if (known.end_reason, known.end_time) != ("ended", end):
            known.close(end, "ended")
    elif known.end_time is None and known.is_stale(tx.now_ms):
        known.close(known.last_seen, "timeout")
    return _state(known) != before


def _state(session: OpenSession) -> tuple[object, ...]:
    return session.start_time, session.last_seen, session.end_time, session.end_reason


def _fill(tx: Tx, known: OpenSession, new: NewSession) -> bool:
    """Fill empty device columns from ``new``; return whether any changed."""
    changed = False
    if known.device_info is None and not known.is_new:  # sessions are kept in memory without it
        known.device_info = _DEVICE_INFO.value(tx.conn, id=new.id)
    given = (new.device_info, encode_address(new.ip_address), new.user_agent)
    for name, value in zip(_ABOUT, given, strict=True):
        if getattr(known, name) is None and value is not None:
            setattr(known, name, value)
            changed = True
    return changed


_S = UserSession
_DEVICE_INFO = Statement(
    lambda: _S.select(*columns(_S, _DeviceInfo, stored=_DeviceInfo._fields)).where(_S.id == slot("id", _S.id)),
    _DeviceInfo,
)
_FILL = Statement(
    lambda: _S.update({getattr(_S, name): slot(name) for name in _ABOUT}).where(_S.id == slot("id", _S.id))
)
