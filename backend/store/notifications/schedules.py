"""The ``schedules`` table: recurring notifications."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_cursor, decode_id, decode_json, encode_cursor, encode_id, to_json
from flashflow.backend.domain.recurrence import Recurrence
from flashflow.backend.schemas.records import Record
from flashflow.backend.store.engine.sql import clause, conditions, take
from flashflow.backend.store.engine.writer import Tx

_COLUMNS = "seq, id, name, app, request, rule, next_at, last_at, created_at, updated_at"


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


_decode_request = msgspec.json.Decoder(Request).decode
_decode_rule = msgspec.json.Decoder(Recurrence).decode
_DAMAGED = Request(notification={"user_id": ""}, last_error="The stored text of this schedule cannot be read.")
_DAILY = Recurrence(every_minutes=24 * 60)


def decode_request(text: str) -> Request:
    """Decode a stored request."""
    return decode_json(_decode_request, text, _DAMAGED)


def find(conn: sqlite3.Connection, schedule_id: str, app: str | None) -> Row | None:
    """Find a schedule; ``app`` limits the search to one app's (None: any)."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM schedules WHERE id = ? AND (? IS NULL OR app = ?)",
        (encode_id(schedule_id), app, app),
    ).fetchone()
    return None if row is None else _to_row(row)


def list_schedules(conn: sqlite3.Connection, app: str | None, limit: int, cursor: str | None) -> SchedulePage:
    """List schedules, newest first. Raises ValidationError for an invalid cursor."""
    where, values = conditions([("app = ?", app)])
    if cursor is not None:
        where.append("seq < ?")
        values.extend(decode_cursor(cursor, "schedules", 1))
    rows, more = take(
        conn.execute(f"SELECT {_COLUMNS} FROM schedules{clause(where)} ORDER BY seq DESC", values),
        limit,
    )
    following = encode_cursor("schedules", rows[-1][0]) if more else None
    return SchedulePage(schedules=tuple(_to_row(row).schedule() for row in rows), next_cursor=following)


def with_recipient(conn: sqlite3.Connection, user_id: str) -> list[Schedule]:
    """Every schedule with this recipient."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM schedules ORDER BY seq")
    found = [_to_row(row).schedule() for row in rows]
    return [schedule for schedule in found if user_id in users_of(schedule.notification)]


def users_of(notification: dict[str, Any]) -> list[str]:
    """The recipients of a stored request."""
    several: list[str] = notification.get("user_ids") or []
    return several or [notification["user_id"]]


def due(conn: sqlite3.Connection, now_ms: int, limit: int) -> list[int]:
    """The ``seq`` of due schedules, the longest due first."""
    rows = conn.execute("SELECT seq FROM schedules WHERE next_at <= ? ORDER BY next_at LIMIT ?", (now_ms, limit))
    return [seq for (seq,) in rows]


def find_due(conn: sqlite3.Connection, seq: int, now_ms: int) -> Row | None:
    """A schedule, if it is stored and due."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM schedules WHERE seq = ? AND next_at <= ?", (seq, now_ms)).fetchone()
    return None if row is None else _to_row(row)


def named(conn: sqlite3.Connection, app: str, name: str) -> str | None:
    """The id of the app's schedule of that name."""
    row = conn.execute("SELECT id FROM schedules WHERE app = ? AND name = ?", (app, name)).fetchone()
    return None if row is None else decode_id(row[0])


def insert(tx: Tx, schedule_id: str, name: str, app: str, request: Request, rule: Recurrence, next_at: int) -> None:
    """Insert a schedule."""
    tx.conn.execute(
        "INSERT INTO schedules (id, name, app, request, rule, next_at, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (encode_id(schedule_id), name, app, to_json(request), to_json(rule), next_at, tx.now_ms, tx.now_ms),
    )


def update(tx: Tx, seq: int, name: str, request: Request, rule: Recurrence, next_at: int | None) -> None:
    """Update a schedule's definition."""
    tx.conn.execute(
        "UPDATE schedules SET name = ?, request = ?, rule = ?, next_at = ?, updated_at = ? WHERE seq = ?",
        (name, to_json(request), to_json(rule), next_at, tx.now_ms, seq),
    )


def move_on(tx: Tx, row: Row, next_at: int | None, last_at: int | None, last_error: str | None) -> None:
    """Record the result of a run and the next time."""
    tx.conn.execute("UPDATE schedules SET next_at = ?, last_at = ? WHERE seq = ?", (next_at, last_at, row.seq))
    if last_error != row.request.last_error:
        request = msgspec.structs.replace(row.request, last_error=last_error)
        tx.conn.execute("UPDATE schedules SET request = ? WHERE seq = ?", (to_json(request), row.seq))


def delete(tx: Tx, seq: int) -> None:
    """Delete a schedule; sent notifications stay."""
    tx.conn.execute("DELETE FROM schedules WHERE seq = ?", (seq,))


def _to_row(row: tuple[Any, ...]) -> Row:
    seq, id_, name, app, request, rule, *times = row
    stored = decode_json(_decode_rule, rule, _DAILY)
    # A damaged schedule is listed and can be changed or deleted; its runs are refused for want of a recipient.
    decoded = _DAMAGED if stored is _DAILY else decode_request(request)
    return Row(seq, decode_id(id_), name, app, decoded, stored, *times)
