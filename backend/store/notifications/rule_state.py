"""Rule state in ``notifications.db``: the last evaluated activity, and counters for each rule and user."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from flashflow.backend.core.encoding import decode_json, to_json
from flashflow.backend.domain.rule_conditions import NONE_YET, RuleState
from flashflow.backend.store.engine.writer import Tx

_decode_times = msgspec.json.Decoder(tuple[int, ...]).decode


class Mark(NamedTuple):
    """``judged``: ``seq`` of the last evaluated activity; ``revision`` grows with every change of a rule."""

    judged: int
    revision: int


def mark(conn: sqlite3.Connection) -> Mark:
    return Mark(*conn.execute("SELECT judged, revision FROM rule_mark").fetchone())


def move_mark(tx: Tx, judged: int) -> None:
    """Record that every activity up to ``judged`` is evaluated."""
    tx.conn.execute("UPDATE rule_mark SET judged = ?", (judged,))


def step_back(tx: Tx, last_seq: int) -> None:
    """Lower every mark to ``last_seq``: the activity file is older than the one evaluated."""
    tx.conn.execute("UPDATE rule_mark SET judged = MIN(judged, ?)", (last_seq,))
    tx.conn.execute("UPDATE rules SET after_seq = ?1 WHERE after_seq > ?1", (last_seq,))


def latest_known(conn: sqlite3.Connection) -> int:
    """The highest activity ``seq`` in the mark or in a rule."""
    return int(conn.execute("SELECT MAX(judged, (SELECT COALESCE(MAX(after_seq), 0) FROM rules)) FROM rule_mark")
               .fetchone()[0])  # fmt: skip


def uses_of(conn: sqlite3.Connection, rule_seq: int, user_id: str) -> RuleState:
    """A rule's state for a user."""
    row = conn.execute(
        "SELECT times, fired_at FROM rule_uses WHERE rule_seq = ? AND user_id = ?", (rule_seq, user_id)
    ).fetchone()
    return NONE_YET if row is None else RuleState(decode_json(_decode_times, row[0], ()), row[1])


def states_of_user(conn: sqlite3.Connection, user_id: str) -> list[tuple[str, str, RuleState]]:
    """(rule name, app, state) for every rule with state for the user."""
    rows = conn.execute(
        "SELECT r.name, r.app, u.times, u.fired_at FROM rule_uses u JOIN rules r ON r.seq = u.rule_seq "
        "WHERE u.user_id = ? ORDER BY r.seq",
        (user_id,),
    )
    return [
        (name, app, RuleState(decode_json(_decode_times, times, ()), fired_at)) for name, app, times, fired_at in rows
    ]


def remember(tx: Tx, rule_seq: int, user_id: str, uses: RuleState, useful_until: int) -> None:
    """Store a rule's state for a user until ``useful_until`` (milliseconds since 1970)."""
    tx.conn.execute(
        "INSERT INTO rule_uses (rule_seq, user_id, times, fired_at, useful_until) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET times = excluded.times, fired_at = excluded.fired_at, "
        "useful_until = excluded.useful_until",
        (rule_seq, user_id, to_json(uses.times), uses.fired_at, useful_until),
    )


def delete_state(tx: Tx, rule_seq: int, user_id: str) -> None:
    """Delete a rule's state for a user."""
    tx.conn.execute("DELETE FROM rule_uses WHERE rule_seq = ? AND user_id = ?", (rule_seq, user_id))


def delete_expired_state(tx: Tx) -> int:
    """Delete expired state; return the number of rows."""
    return tx.conn.execute("DELETE FROM rule_uses WHERE useful_until < ?", (tx.now_ms,)).rowcount
