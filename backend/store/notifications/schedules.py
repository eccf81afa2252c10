"""The ``schedules`` table: recurring notifications."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_cursor, decode_json, decoder_of, encode_cursor, to_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.recurrence import Recurrence
from flashflow.backend.schemas.records import Record
from flashflow.backend.store.engine.statement import Statement, any_or_same, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import models


class Schedule(Record, frozen=True, kw_only=True):
    """A recurring notification.

    ``next_at`` is None once the rule has ended; ``last_at`` is the time of the last send, ``last_error`` the text of a
    failure since then.
    """

    id: str
    name: str
    app: str
    notification: dict[str, Any]
    rule: Recurrence
    next_at: datetime | None
    last_at: datetime | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime


class SchedulePage(Record, frozen=True, kw_only=True):
    """Newest first; ``next_cursor`` is None on the last page."""

    schedules: tuple[Schedule, ...]
    next_cursor: str | None


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored request: ``notification`` as the caller gave it, ``owner`` the only app whose templates may be used
    (None: any), ``last_error`` the reason of the last refusal."""

    notification: dict[str, Any]
    owner: str | None = None
    last_error: str | None = None


class Row(NamedTuple):
    """A stored schedule; times in milliseconds since 1970."""

    seq: int
    id: str
    name: str
    app: str
    request: Request
    rule: Recurrence
    next_at: int | None
    last_at: int | None
    created_at: int
    updated_at: int

    def schedule(self) -> Schedule:
        """Convert to the public record."""
        return Schedule(
            id=self.id,
            name=self.name,
            app=self.app,
            notification=self.request.notification,
            rule=self.rule,
            next_at=None if self.next_at is None else to_datetime(self.next_at),
            last_at=None if self.last_at is None else to_datetime(self.last_at),
            last_error=self.request.last_error,
            created_at=to_datetime(self.created_at),
            updated_at=to_datetime(self.updated_at),
        )


_DAMAGED = Request(notification={"user_id": ""}, last_error="The stored text of this schedule cannot be read.")
_DAILY = Recurrence(every_minutes=24 * 60)


def decode_request(text: str) -> Request:
    """Decode a stored request."""
    return decode_json(decoder_of(Request).decode, text, _DAMAGED)


def _decode_recurrence(text: str) -> Recurrence:
    return decode_json(decoder_of(Recurrence).decode, text, _DAILY)


def find(conn: sqlite3.Connection, schedule_id: str, app: str | None) -> Row | None:
    """Find a schedule; ``app`` limits the search to one app's (None: any)."""
    row = _FIND.one(conn, id=schedule_id, app=app)
    return None if row is None else _usable(row)


def list_schedules(conn: sqlite3.Connection, app: str | None, limit: int, cursor: str | None) -> SchedulePage:
    """List schedules, newest first. Raises ValidationError for an invalid cursor."""
    (before,) = (1 << 62,) if cursor is None else decode_cursor(cursor, "schedules", 1)
    rows, more = _NEWEST.page(conn, limit, app=app, before=before)
    following = encode_cursor("schedules", rows[-1].seq) if more else None
    return SchedulePage(schedules=tuple(_usable(row).schedule() for row in rows), next_cursor=following)


def with_recipient(conn: sqlite3.Connection, user_id: str) -> list[Schedule]:
    """Every schedule with this recipient."""
    found = [_usable(row).schedule() for row in _ALL.each(conn)]
    return [schedule for schedule in found if user_id in users_of(schedule.notification)]


def users_of(notification: dict[str, Any]) -> list[str]:
    """The recipients of a stored request."""
    several: list[str] = notification.get("user_ids") or []
    return several or [notification["user_id"]]


def due(conn: sqlite3.Connection, now_ms: int, limit: int) -> list[int]:
    """The ``seq`` of due schedules, the longest due first."""
    return [seq for (seq,) in _DUE.each(conn, now=now_ms, limit=limit)]


def find_due(conn: sqlite3.Connection, seq: int, now_ms: int) -> Row | None:
    """A schedule, if it is stored and due."""
    row = _FIND_DUE.one(conn, seq=seq, now=now_ms)
    return None if row is None else _usable(row)


def named(conn: sqlite3.Connection, app: str, name: str) -> str | None:
    """The id of the app's schedule of that name."""
    found: str | None = _NAMED.value(conn, app=app, name=name)
    return found


def insert(tx: Tx, schedule_id: str, name: str, app: str, request: Request, rule: Recurrence, next_at: int) -> None:
    """Insert a schedule."""
    _INSERT.run(
        tx.conn, id=schedule_id, name=name, app=app, request=to_json(request), rule=to_json(rule), next_at=next_at,
        created_at=tx.now_ms, updated_at=tx.now_ms,
    )  # fmt: skip


def update(tx: Tx, seq: int, name: str, request: Request, rule: Recurrence, next_at: int | None) -> None:
    """Update a schedule's definition."""
    _UPDATE.run(
        tx.conn, seq=seq, name=name, request=to_json(request), rule=to_json(rule), next_at=next_at, updated_at=tx.now_ms
    )


def move_on(tx: Tx, row: Row, next_at: int | None, last_at: int | None, last_error: str | None) -> None:
    """Record the result of a run and the next time."""
    _MOVE_ON.run(tx.conn, seq=row.seq, next_at=next_at, last_at=last_at)
    if last_error != row.request.last_error:
        request = msgspec.structs.replace(row.request, last_error=last_error)
        _SET_REQUEST.run(tx.conn, seq=row.seq, request=to_json(request))


def delete(tx: Tx, seq: int) -> None:
    """Delete a schedule; sent notifications stay."""
    _DELETE.run(tx.conn, seq=seq)


def _usable(row: Row) -> Row:
    """Take the recipient from a damaged schedule: it is listed and can be changed or deleted; its runs are refused."""
    return row._replace(request=_DAMAGED) if row.rule is _DAILY else row


_S = models.Schedule
_ROWS = _S.select(
    _S.seq, _S.id, _S.name, _S.app, _S.request.converter(decode_request), _S.rule.converter(_decode_recurrence),
    _S.next_at, _S.last_at, _S.created_at, _S.updated_at,
)  # fmt: skip
_THIS = _S.seq == slot("seq")
_FIND = Statement(lambda: _ROWS.where(_S.id == slot("id", _S.id), any_or_same(_S.app)), Row)
_NEWEST = Statement(lambda: _ROWS.where(any_or_same(_S.app), _S.seq < slot("before")).order_by(_S.seq.desc()), Row)
_ALL = Statement(lambda: _ROWS.order_by(_S.seq), Row)
_DUE = Statement(lambda: _S.select(_S.seq).where(_S.next_at <= slot("now")).order_by(_S.next_at).limit(slot("limit")))
_FIND_DUE = Statement(lambda: _ROWS.where(_THIS, _S.next_at <= slot("now")), Row)
_NAMED = Statement(lambda: _S.select(_S.id).where(_S.app == slot("app"), _S.name == slot("name")))
_INSERT = Statement(
    lambda: _S.insert(slots(_S.id, _S.name, _S.app, _S.request, _S.rule, _S.next_at, _S.created_at, _S.updated_at))
)
_UPDATE = Statement(lambda: _S.update(slots(_S.name, _S.request, _S.rule, _S.next_at, _S.updated_at)).where(_THIS))
_MOVE_ON = Statement(lambda: _S.update(slots(_S.next_at, _S.last_at)).where(_THIS))
_SET_REQUEST = Statement(lambda: _S.update(slots(_S.request)).where(_THIS))
_DELETE = Statement(lambda: _S.delete().where(_THIS))
