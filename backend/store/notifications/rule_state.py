"""Rule state in ``notifications.db``: the last evaluated activity, and counters for each rule and user."""

from __future__ import annotations

import sqlite3

from peewee import fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.rule_firing import NONE_YET, RuleState
from flashflow.backend.store.engine.statement import Statement, columns, slot, slots, upsert
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.models import Rule, RuleMark, RuleUse


class Mark(NamedTuple):
    """``evaluated_to``: ``seq`` of the last evaluated activity; ``revision`` grows with every change of a rule."""

    evaluated_to: int
    revision: int


class NamedState(NamedTuple):
    """A rule's state for a user, with the rule's name and app."""

    name: str
    app: str
    times: tuple[int, ...]
    fired_at: int | None


def mark(conn: sqlite3.Connection) -> Mark:
    [found] = _MARK.all(conn)
    return found


def move_mark(tx: Tx, evaluated_to: int) -> None:
    """Record that every activity up to ``evaluated_to`` is evaluated."""
    _MOVE_MARK.run(tx.conn, evaluated_to=evaluated_to)


def step_back(tx: Tx, last_seq: int) -> None:
    """Lower every mark to ``last_seq``: the activity file is older than the one evaluated."""
    _LOWER_MARK.run(tx.conn, last=last_seq)
    _LOWER_RULES.run(tx.conn, last=last_seq)


def latest_known(conn: sqlite3.Connection) -> int:
    """The highest activity ``seq`` in the mark or in a rule."""
    return int(_LATEST_KNOWN.value(conn))


def uses_of(conn: sqlite3.Connection, rule_seq: int, user_id: str) -> RuleState:
    """A rule's state for a user."""
    return _STATE.one(conn, rule_seq=rule_seq, user_id=user_id) or NONE_YET


def states_of_user(conn: sqlite3.Connection, user_id: str) -> list[NamedState]:
    """The state of every rule with state for the user."""
    return _STATES_OF_USER.all(conn, user_id=user_id)


def remember(tx: Tx, rule_seq: int, user_id: str, uses: RuleState, useful_until: int) -> None:
    """Store a rule's state for a user until ``useful_until`` (milliseconds since 1970)."""
    _REMEMBER.run(tx.conn, rule_seq=rule_seq, user_id=user_id, useful_until=useful_until, **uses._asdict())


def delete_state(tx: Tx, rule_seq: int, user_id: str) -> None:
    """Delete a rule's state for a user."""
    _DELETE.run(tx.conn, rule_seq=rule_seq, user_id=user_id)


def delete_expired_state(tx: Tx) -> int:
    """Delete expired state; return the number of rows."""
    return _DELETE_EXPIRED.run(tx.conn, now=tx.now_ms).rowcount


_MARK = Statement(lambda: RuleMark.select(*columns(RuleMark, Mark)), Mark)
_MOVE_MARK = Statement(lambda: RuleMark.update(slots(RuleMark.evaluated_to)))
_LOWER_MARK = Statement(lambda: RuleMark.update({RuleMark.evaluated_to: fn.MIN(RuleMark.evaluated_to, slot("last"))}))
_LOWER_RULES = Statement(lambda: Rule.update({Rule.after_seq: slot("last")}).where(Rule.after_seq > slot("last")))
_LATEST_KNOWN = Statement(
    lambda: RuleMark.select(
        fn.MAX(RuleMark.evaluated_to, Rule.select(fn.COALESCE(fn.MAX(Rule.after_seq), 0))).alias("latest")
    )
)
_OF_BOTH = (RuleUse.rule_seq == slot("rule_seq")) & (RuleUse.user_id == slot("user_id"))
_STATE = Statement(lambda: RuleUse.select(*columns(RuleUse, RuleState)).where(_OF_BOTH), RuleState)
_STATES_OF_USER = Statement(
    lambda: (
        RuleUse.select(Rule.name, Rule.app, RuleUse.times, RuleUse.fired_at)
        .join(Rule, on=Rule.seq == RuleUse.rule_seq)
        .where(RuleUse.user_id == slot("user_id"))
        .order_by(Rule.seq)
    ),
    NamedState,
)
_REMEMBER = Statement(
    lambda: upsert([RuleUse.rule_seq, RuleUse.user_id], [RuleUse.times, RuleUse.fired_at, RuleUse.useful_until])
)
_DELETE = Statement(lambda: RuleUse.delete().where(_OF_BOTH))
_DELETE_EXPIRED = Statement(lambda: RuleUse.delete().where(RuleUse.useful_until < slot("now")))
