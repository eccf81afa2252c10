"""The ``rules`` table: conditions, messages and firing counters."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_cursor, decode_id, decode_json, encode_cursor, encode_id, to_json
from flashflow.backend.schemas.records import Record
from flashflow.backend.schemas.rules import AlertIn, OnIn, Recipients, RuleChangeIn, RuleMessageIn
from flashflow.backend.store.engine.sql import clause, conditions, take
from flashflow.backend.store.engine.writer import Tx

_COLUMNS = (
    "seq, id, name, app, owner, enabled, rule, after_seq, checked_at, fired, last_fired_at, last_error, "
    "last_error_at, created_at, updated_at"
)


class Rule(Record, frozen=True, kw_only=True):
    """A rule. ``fired`` counts sent notifications; ``last_error`` is the text of the latest failure until
    dismissed. ``watches`` is the only app whose activities it evaluates; None: every app's."""

    id: str
    name: str
    app: str
    watches: str | None
    enabled: bool
    on: OnIn | None
    alert: AlertIn | None
    send: RuleMessageIn
    to: Recipients
    cooldown_minutes: int
    fired: int
    last_fired_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    created_at: datetime
    updated_at: datetime


class RulePage(Record, frozen=True, kw_only=True):
    """Newest first; ``next_cursor`` is None on the last page."""

    rules: tuple[Rule, ...]
    next_cursor: str | None


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a RuleChangeIn stored as JSON."""

    on: OnIn | None = None
    alert: AlertIn | None = None
    send: RuleMessageIn
    to: Recipients = "user"
    cooldown_minutes: int = 60


class Row(NamedTuple):
    """A stored rule; times in milliseconds since 1970. ``after_seq``: only later activities are evaluated."""

    seq: int
    id: str
    name: str
    app: str
    owner: str | None
    enabled: bool
    body: Body
    after_seq: int
    checked_at: int
    fired: int
    last_fired_at: int | None
    last_error: str | None
    last_error_at: int | None
    created_at: int
    updated_at: int

    def rule(self) -> Rule:
        """Convert to the public record."""
        return Rule(
            id=self.id,
            name=self.name,
            app=self.app,
            watches=self.owner,
            enabled=self.enabled,
            on=self.body.on,
            alert=self.body.alert,
            send=self.body.send,
            to=self.body.to,
            cooldown_minutes=self.body.cooldown_minutes,
            fired=self.fired,
            last_fired_at=None if self.last_fired_at is None else to_datetime(self.last_fired_at),
            last_error=self.last_error,
            last_error_at=None if self.last_error_at is None else to_datetime(self.last_error_at),
            created_at=to_datetime(self.created_at),
            updated_at=to_datetime(self.updated_at),
        )


_decode_body = msgspec.json.Decoder(Body).decode
UNREADABLE = Body(send=RuleMessageIn(title="Damaged rule", message="The stored text of this rule cannot be read."))


def body_of(change: RuleChangeIn) -> Body:
    """The stored part of ``change``, after a JSON round trip so that it compares equal to a stored body."""
    body = Body(
        on=change.on, alert=change.alert, send=change.send, to=change.to, cooldown_minutes=change.cooldown_minutes
    )
    return _decode_body(to_json(body))


def decode_body(text: str) -> Body:
    """Decode a stored body; UNREADABLE where it is damaged."""
    return decode_json(_decode_body, text, UNREADABLE)


def named(conn: sqlite3.Connection, name: str, app: str | None) -> list[Row]:
    """The rules of that name, of every app or of ``app`` alone, oldest first."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM rules WHERE name = ? AND (? IS NULL OR app = ?) ORDER BY seq",
        (name, app, app),
    )
    return [_to_row(row) for row in rows]


def by_seq(conn: sqlite3.Connection, seq: int) -> Row | None:
    """The rule with that ``seq``; None if it was deleted."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM rules WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else _to_row(row)


def enabled(conn: sqlite3.Connection) -> list[Row]:
    """Every enabled rule, oldest first."""
    rows = map(_to_row, conn.execute(f"SELECT {_COLUMNS} FROM rules WHERE enabled ORDER BY seq"))
    return [row for row in rows if row.enabled]


def count_of(conn: sqlite3.Connection, app: str) -> int:
    """Count the app's rules."""
    return int(conn.execute("SELECT COUNT(*) FROM rules WHERE app = ?", (app,)).fetchone()[0])


def list_rules(conn: sqlite3.Connection, app: str | None, limit: int, cursor: str | None) -> RulePage:
    """List rules, newest first. Raises ValidationError for an invalid cursor."""
    where, values = conditions([("app = ?", app)])
    if cursor is not None:
        where.append("seq < ?")
        values.extend(decode_cursor(cursor, "rules", 1))
    rows, more = take(
        conn.execute(f"SELECT {_COLUMNS} FROM rules{clause(where)} ORDER BY seq DESC", values),
        limit,
    )
    following = encode_cursor("rules", rows[-1][0]) if more else None
    return RulePage(rules=tuple(_to_row(row).rule() for row in rows), next_cursor=following)


def insert(
    tx: Tx, rule_id: str, name: str, app: str, owner: str | None, body: Body, *, switched_on: bool, after_seq: int
) -> int:
    """Insert a rule; return its ``seq``."""
    cursor = tx.conn.execute(
        "INSERT INTO rules (id, name, app, owner, enabled, rule, after_seq, checked_at, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (encode_id(rule_id), name, app, owner, switched_on, to_json(body), after_seq, tx.now_ms, tx.now_ms, tx.now_ms),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def update(tx: Tx, row: Row, name: str, owner: str | None, body: Body, *, switched_on: bool) -> None:
    """Update a rule's definition."""
    tx.conn.execute(
        "UPDATE rules SET name = ?, owner = ?, enabled = ?, rule = ?, updated_at = ? WHERE seq = ?",
        (name, owner, switched_on, to_json(body), tx.now_ms, row.seq),
    )


def reset_state(tx: Tx, seq: int, after_seq: int) -> None:
    """Restart counters and checks from now; cool-downs continue."""
    tx.conn.execute("UPDATE rules SET after_seq = ?, checked_at = ? WHERE seq = ?", (after_seq, tx.now_ms, seq))
    tx.conn.execute("UPDATE rule_uses SET times = '[]' WHERE rule_seq = ?", (seq,))


def note(tx: Tx, seq: int, fired: int, error: str | None) -> None:
    """Add ``fired`` sent notifications (0: the attempt failed) and the error of a failed one, if any."""
    # A success keeps an earlier error: its owner has not seen it yet.
    tx.conn.execute(
        "UPDATE rules SET fired = fired + ?1, last_fired_at = CASE WHEN ?1 THEN ?2 ELSE last_fired_at END, "
        "last_error = COALESCE(?3, last_error), last_error_at = CASE WHEN ?3 IS NULL THEN last_error_at ELSE ?2 END "
        "WHERE seq = ?4",
        (fired, tx.now_ms, error, seq),
    )


def dismiss_error(tx: Tx, seq: int) -> None:
    """Clear the last error."""
    tx.conn.execute("UPDATE rules SET last_error = NULL, last_error_at = NULL WHERE seq = ?", (seq,))


def note_check(tx: Tx, seq: int) -> None:
    """Record that an alert was checked now."""
    tx.conn.execute("UPDATE rules SET checked_at = ? WHERE seq = ?", (tx.now_ms, seq))


def delete(tx: Tx, seq: int) -> None:
    """Delete a rule and its state; sent notifications stay."""
    tx.conn.execute("DELETE FROM rules WHERE seq = ?", (seq,))


def _to_row(row: tuple[Any, ...]) -> Row:
    seq, id_, name, app, owner, on, body, *rest = row
    stored = decode_body(body)  # a damaged rule is listed and can be deleted, but never fires
    return Row(seq, decode_id(id_), name, app, owner, bool(on) and stored is not UNREADABLE, stored, *rest)
