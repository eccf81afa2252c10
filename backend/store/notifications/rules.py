"""The ``rules`` table: conditions, messages and firing counters."""

from __future__ import annotations

import sqlite3
from datetime import datetime

import msgspec
from peewee import Case, fn

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_cursor, decode_json, decoder_of, encode_cursor, to_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import Record
from flashflow.backend.schemas.rules import AlertIn, OnIn, Recipients, RuleChangeIn, RuleMessageIn
from flashflow.backend.store.engine.statement import Statement, any_or_same, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import models


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


UNREADABLE = Body(send=RuleMessageIn(title="Damaged rule", message="The stored text of this rule cannot be read."))


def body_of(change: RuleChangeIn) -> Body:
    """The stored part of ``change``, after a JSON round trip so that it compares equal to a stored body."""
    body = Body(
        on=change.on, alert=change.alert, send=change.send, to=change.to, cooldown_minutes=change.cooldown_minutes
    )
    return decoder_of(Body).decode(to_json(body))


def decode_body(text: str) -> Body:
    """Decode a stored body; UNREADABLE where it is damaged."""
    return decode_json(decoder_of(Body).decode, text, UNREADABLE)


def named(conn: sqlite3.Connection, name: str, app: str | None) -> list[Row]:
    """The rules of that name, of every app or of ``app`` alone, oldest first."""
    return [_usable(row) for row in _NAMED.each(conn, name=name, app=app)]


def by_seq(conn: sqlite3.Connection, seq: int) -> Row | None:
    """The rule with that ``seq``; None if it was deleted."""
    row = _BY_SEQ.one(conn, seq=seq)
    return None if row is None else _usable(row)


def enabled(conn: sqlite3.Connection) -> list[Row]:
    """Every enabled rule, oldest first."""
    return [row for row in map(_usable, _ENABLED.each(conn)) if row.enabled]


def count_of(conn: sqlite3.Connection, app: str) -> int:
    """Count the app's rules."""
    return int(_COUNT.value(conn, app=app))


def list_rules(conn: sqlite3.Connection, app: str | None, limit: int, cursor: str | None) -> RulePage:
    """List rules, newest first. Raises ValidationError for an invalid cursor."""
    (before,) = (1 << 62,) if cursor is None else decode_cursor(cursor, "rules", 1)
    rows, more = _NEWEST.page(conn, limit, app=app, before=before)
    following = encode_cursor("rules", rows[-1].seq) if more else None
    return RulePage(rules=tuple(_usable(row).rule() for row in rows), next_cursor=following)


def insert(
    tx: Tx, rule_id: str, name: str, app: str, owner: str | None, body: Body, *, switched_on: bool, after_seq: int
) -> int:
    """Insert a rule; return its ``seq``."""
    seq: int = _INSERT.value(
        tx.conn, id=rule_id, name=name, app=app, owner=owner, enabled=switched_on, rule=to_json(body),
        after_seq=after_seq, now=tx.now_ms,
    )  # fmt: skip
    return seq


def update(tx: Tx, row: Row, name: str, owner: str | None, body: Body, *, switched_on: bool) -> None:
    """Update a rule's definition."""
    _UPDATE.run(
        tx.conn, seq=row.seq, name=name, owner=owner, enabled=switched_on, rule=to_json(body), updated_at=tx.now_ms
    )


def reset_state(tx: Tx, seq: int, after_seq: int) -> None:
    """Restart counters and checks from now; cool-downs continue."""
    _RESTART.run(tx.conn, seq=seq, after_seq=after_seq, checked_at=tx.now_ms)
    _RESET_TIMES.run(tx.conn, seq=seq)


def note(tx: Tx, seq: int, fired: int, error: str | None) -> None:
    """Add ``fired`` sent notifications (0: the attempt failed) and the error of a failed one, if any."""
    _NOTE.run(tx.conn, seq=seq, fired=fired, error=error, now=tx.now_ms)


def dismiss_error(tx: Tx, seq: int) -> None:
    """Clear the last error."""
    _DISMISS_ERROR.run(tx.conn, seq=seq)


def note_check(tx: Tx, seq: int) -> None:
    """Record that an alert was checked now."""
    _NOTE_CHECK.run(tx.conn, seq=seq, checked_at=tx.now_ms)


def delete(tx: Tx, seq: int) -> None:
    """Delete a rule and its state; sent notifications stay."""
    _DELETE.run(tx.conn, seq=seq)


def _usable(row: Row) -> Row:
    """Disable a damaged rule: it is listed and can be deleted, but never fires."""
    return row._replace(enabled=False) if row.body is UNREADABLE else row


_R = models.Rule
_ROWS = _R.select(
    _R.seq, _R.id, _R.name, _R.app, _R.owner, _R.enabled, _R.rule.alias("body").converter(decode_body), _R.after_seq,
    _R.checked_at, _R.fired, _R.last_fired_at, _R.last_error, _R.last_error_at, _R.created_at, _R.updated_at,
)  # fmt: skip
_THIS = _R.seq == slot("seq")
_NAMED = Statement(lambda: _ROWS.where(_R.name == slot("name"), any_or_same(_R.app)).order_by(_R.seq), Row)
_BY_SEQ = Statement(lambda: _ROWS.where(_THIS), Row)
_ENABLED = Statement(lambda: _ROWS.where(_R.enabled).order_by(_R.seq), Row)
_COUNT = Statement(lambda: _R.select(fn.COUNT(_R.seq)).where(_R.app == slot("app")))
_NEWEST = Statement(lambda: _ROWS.where(any_or_same(_R.app), _R.seq < slot("before")).order_by(_R.seq.desc()), Row)
_INSERT = Statement(
    lambda: _R.insert(
        {
            **slots(_R.id, _R.name, _R.app, _R.owner, _R.enabled, _R.rule, _R.after_seq),
            **dict.fromkeys((_R.checked_at, _R.created_at, _R.updated_at), slot("now")),
        }
    ).returning(_R.seq)
)
_UPDATE = Statement(lambda: _R.update(slots(_R.name, _R.owner, _R.enabled, _R.rule, _R.updated_at)).where(_THIS))
_RESTART = Statement(lambda: _R.update(slots(_R.after_seq, _R.checked_at)).where(_THIS))
_RESET_TIMES = Statement(lambda: models.RuleUse.update(times=()).where(models.RuleUse.rule_seq == slot("seq")))
_NOTE = Statement(
    # A success keeps an earlier error: its owner has not seen it yet.
    lambda: _R.update(
        {
            _R.fired: _R.fired + slot("fired"),
            _R.last_fired_at: Case(None, [(slot("fired") > 0, slot("now"))], _R.last_fired_at),
            _R.last_error: fn.COALESCE(slot("error"), _R.last_error),
            _R.last_error_at: Case(None, [(slot("error").is_null(), _R.last_error_at)], slot("now")),
        }
    ).where(_THIS)
)
_DISMISS_ERROR = Statement(lambda: _R.update(last_error=None, last_error_at=None).where(_THIS))
_NOTE_CHECK = Statement(lambda: _R.update(slots(_R.checked_at)).where(_THIS))
_DELETE = Statement(lambda: _R.delete().where(_THIS))
