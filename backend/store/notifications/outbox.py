"""The outbox in ``notifications.db``: one queue a route, claims with a lease, attempts, what comes next."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from flashflow.backend.core.encoding import decode_id, decode_json, encode_id, from_object, to_json
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Link, NextStep, Outcome
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications.attempts import INTERRUPTED, attempt, next_in_chain, record, resolve_bundled
from flashflow.backend.store.notifications.cancellation import (
    COLUMNS,
    JOINED,
    WIDTH,
    cancel_deliveries,
    end_of,
    ends_of,
)
from flashflow.backend.store.notifications.delivery_state import settle_all

SUMMARY_LINES = 20
INTERRUPTED_MOST = 8
"""So often a delivery may be caught by the end of a process: it may have been in hand and not begun yet."""
AT_ONCE = 500
"""Deliveries put back or refused in one transaction."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed delivery, as ``Claimed`` says."""

    tries: int
    notice: DeliveryMessage
    due_at: int
    tried_since: int | None
    previous_code: str | None


class OutboxTable:
    """What the outbox's workers ask of the store. Claims are atomic; an expired lease is claimed again."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def turns(self, turns: Sequence[NextStep]) -> list[Claim | BaseException | None]:
        """Several workers' turns in one transaction: each one's try recorded, and the next due delivery of its route
        claimed; what that is, or why it could not be done."""
        return self._store.run_all([Write(_turn, turn) for turn in turns])

    def give_back(self, delivery_id: str) -> None:
        """Return a claimed delivery that was not tried."""
        self._store.run(Write(_give_back, delivery_id))

    def recover(self, *, all_leases: bool) -> int:
        """Put back what was claimed and never recorded: leases that ran out, or ``all_leases`` where every worker of
        an earlier process is gone. How many there were."""
        return self._store.run(Write(_recover, all_leases))

    def hasten(self, route: str, codes: Sequence[str]) -> int:
        """Make due now what waits on ``route`` for its next try after a failure with one of ``codes``; how many."""
        hastened = 0
        while count := self._store.run(Write(_hasten, (route, tuple(codes)))):
            hastened += count
        return hastened

    def refuse_routes(self, routes: Sequence[str]) -> int:
        """End what waits for a route that is not among ``routes`` (it is not configured any more); how many."""
        refused = 0
        while count := self._store.run(Write(_refuse, tuple(routes))):
            refused += count
        return refused

    def next_due(self, routes: Sequence[str]) -> dict[str, int]:
        """Route → when its next delivery is due, for those of ``routes`` that have one waiting."""
        if not routes:
            return {}
        rows = self._store.read(lambda conn: conn.execute(_NEXT, (to_json(list(routes)),)).fetchall())
        return {route: int(at) for route, at in rows if at is not None}

    def next_lease(self) -> int | None:
        """When the first lease runs out."""
        row = self._store.read(
            lambda conn: conn.execute("SELECT MIN(lease_until) FROM deliveries WHERE status = 'sending'").fetchone()
        )
        return None if row[0] is None else int(row[0])


_WAITS = "status = 'pending' AND next_attempt_at IS NOT NULL"
_NEXT = (
    f"SELECT value, (SELECT MIN(next_attempt_at) FROM deliveries WHERE {_WAITS} AND route = value) FROM json_each(?)"
)
DUE = (
    f"SELECT seq FROM deliveries WHERE {_WAITS} AND route = ? AND next_attempt_at <= ? ORDER BY next_attempt_at LIMIT ?"
)
_CLAIM = (
    "UPDATE deliveries SET status = 'sending', lease_until = ?, tries = tries + 1, updated_at = ? "
    "WHERE seq IN (SELECT value FROM json_each(?)) RETURNING seq, tries, next_attempt_at, tried_since, code"
)
_WANTED = (
    f"SELECT {COLUMNS}, d.seq, d.id, d.notification_seq, d.route, n.id, n.user_id, n.app, n.title, n.message, "
    "n.priority, n.notification_type, n.data, n.actions, n.collapse_key, n.count, n.created_at, n.expires_at, "
    "COALESCE(k.critical, 0), t.token, t.platform, t.updated_at, c.email, c.phone, "
    "EXISTS (SELECT 1 FROM deliveries s WHERE s.carrier_seq = d.seq) "
    f"FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq {JOINED} "
    f"WHERE d.seq IN ({DUE}) ORDER BY d.next_attempt_at"
)
_CARRIED = (
    "SELECT n.title, n.message FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq "
    "WHERE d.carrier_seq = ? AND d.status = 'pending' ORDER BY n.seq DESC"
)
_decode_actions = msgspec.json.Decoder(tuple[Link, ...]).decode


def _turn(tx: Tx, items: Sequence[NextStep]) -> list[Claim | None]:
    record(tx, [item.tried for item in items if item.tried is not None])
    wanted = Counter(item.route for item in items)
    leases = {item.route: item.lease_ms for item in items}
    claims = {route: _claim(tx, route, count, leases[route]) for route, count in wanted.items() if route is not None}
    return [claims[item.route].pop() if item.route is not None and claims[item.route] else None for item in items]


def _claim(tx: Tx, route: str, count: int, lease_ms: int) -> list[Claim]:
    """Up to ``count`` claims, the one that is due first at the end."""
    due = _wanted(tx, route, count)
    if not due:
        return []
    by_seq = {row[WIDTH]: row for row in due}
    claimed = {
        seq: stood
        for seq, *stood in tx.conn.execute(_CLAIM, (tx.now_ms + lease_ms, tx.now_ms, to_json(list(by_seq)))).fetchall()
    }
    claims = []
    for seq, row in by_seq.items():
        tries, due_at, tried_since, code = claimed[seq]
        notice = _notice(tx.conn, row[WIDTH:])
        claims.append(
            Claim(tries=tries, notice=notice, due_at=due_at, tried_since=tried_since, previous_code=code)
        )  # fmt: skip
    return claims[::-1]


def _wanted(tx: Tx, route: str, count: int) -> list[tuple[Any, ...]]:
    """Rows of _WANTED that are due, the first first; what need not go out any more is called off on the way."""
    for limit in (count, AT_ONCE, AT_ONCE):
        rows = tx.conn.execute(_WANTED, (route, tx.now_ms, limit)).fetchall()
        ends = {row[WIDTH]: end for row in rows if (end := end_of(tx.conn, row[:WIDTH], tx.now_ms)) is not None}
        if ends:
            told = cancel_deliveries(tx, ends)
            for notification_seq in told:
                next_in_chain(tx, notification_seq)
            settle_all(tx, told)
        found = [row for row in rows if row[WIDTH] not in ends][:count]
        if found or not rows:
            return found
    return []


def _notice(conn: sqlite3.Connection, row: tuple[Any, ...]) -> DeliveryMessage:
    (
        seq, id_, _, route, notification, user_id, app, title, message, priority, kind, data, actions, collapse, count,
        created, expires, critical, token, platform, registered, email, phone, carries,
    ) = row  # fmt: skip
    carried = conn.execute(_CARRIED, (seq,)).fetchall() if carries else []
    if carried:
        title, message = summary([(title, message), *carried])
    elif count > 1:
        title = f"{title} ({count})"
    return DeliveryMessage(
        delivery_id=decode_id(id_),
        notification_id=decode_id(notification),
        user_id=user_id,
        app=app,
        title=title,
        message=message,
        priority=priority,
        target={"email": email, "sms": phone}.get(route) if token is None else token,
        platform=platform,
        registered_at=registered,
        notification_type=kind,
        critical=bool(critical),
        data=from_object(data) or None,
        actions=() if carried else decode_json(_decode_actions, actions, ()),
        collapse_key=collapse,
        count=count,
        created_at=created,
        expires_at=expires,
    )


def summary(notices: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """One notice that tells of several, (title, message) each, the first lines of the first twenty."""
    lines = [f"• {title}: {message.splitlines()[0] if message else ''}"[:200] for title, message in notices]
    if len(lines) > SUMMARY_LINES:
        lines = [*lines[:SUMMARY_LINES], f"… and {len(notices) - SUMMARY_LINES} more"]
    return f"{len(notices)} notifications", "\n".join(lines)


def _give_back(tx: Tx, items: Sequence[str]) -> list[None]:
    tx.conn.executemany(
        "UPDATE deliveries SET status = 'pending', lease_until = NULL, tries = tries - 1, updated_at = ? "
        "WHERE id = ? AND status = 'sending'",
        [(tx.now_ms, encode_id(delivery_id)) for delivery_id in items],
    )
    return [None] * len(items)


_NEVER = 2**62
_LOST = Outcome(
    outcome="transient",
    code=INTERRUPTED,
    text="FlashFlow stopped before the answer came; this try may have arrived.",
)


_UNCONFIGURED = Outcome(
    outcome="permanent", code="not_configured", text="This channel is not configured any more."
)  # fmt: skip


_INTERRUPTIONS = (
    "SELECT COUNT(*) FROM delivery_attempts WHERE delivery_seq = ? AND code = ? AND started_at >= COALESCE(?, 0)"
)
_HASTEN = (
    "UPDATE deliveries SET next_attempt_at = ?1 WHERE seq IN (SELECT seq FROM deliveries "
    f"WHERE {_WAITS} AND route = ?2 AND next_attempt_at > ?1 AND code IN (SELECT value FROM json_each(?3)) LIMIT ?4)"
)


def _hasten(tx: Tx, items: Sequence[tuple[str, tuple[str, ...]]]) -> list[int]:
    return [
        tx.conn.execute(_HASTEN, (tx.now_ms, route, to_json(list(codes)), AT_ONCE)).rowcount for route, codes in items
    ]


def _recover(tx: Tx, items: Sequence[bool]) -> list[int]:
    answers = []
    for all_leases in items:
        rows: list[Any] = tx.conn.execute(
            "SELECT seq, notification_seq, tries, tried_since, updated_at FROM deliveries "
            "WHERE status = 'sending' AND lease_until <= ? ORDER BY lease_until, seq LIMIT ?",
            (_NEVER if all_leases else tx.now_ms, AT_ONCE),
        ).fetchall()
        back: list[int] = []
        told: dict[int, None] = {}
        for seq, notification_seq, tries, tried_since, claimed_at in rows:
            (before,) = tx.conn.execute(_INTERRUPTIONS, (seq, INTERRUPTED, tried_since)).fetchone()
            dead = min(tries, before + 1) >= INTERRUPTED_MOST
            lasted = max(0, tx.now_ms - claimed_at)
            attempt(tx, seq, claimed_at, lasted, _LOST, next_try_at=None if dead else tx.now_ms)
            tx.conn.execute(
                # Its old due time stays: how long it waited for this start counts for no age.
                "UPDATE deliveries SET status = ?1, code = ?2, reason = ?3, lease_until = NULL, updated_at = ?4, "
                "next_attempt_at = CASE ?1 WHEN 'dead' THEN NULL ELSE MIN(COALESCE(next_attempt_at, ?4), ?4) END "
                "WHERE seq = ?5",
                ("dead" if dead else "pending", _LOST.code, _LOST.text, tx.now_ms, seq),
            )
            told[notification_seq] = None
            if dead:
                told |= dict.fromkeys(resolve_bundled(tx, seq, _LOST))
            else:
                back.append(seq)
        told |= dict.fromkeys(cancel_deliveries(tx, ends_of(tx, back)))
        for notification_seq in told:
            next_in_chain(tx, notification_seq)
        settle_all(tx, told)
        answers.append(len(rows))
    return answers


def _refuse(tx: Tx, items: Sequence[tuple[str, ...]]) -> list[int]:
    answers = []
    for routes in items:
        rows = tx.conn.execute(
            "UPDATE deliveries SET status = 'failed', code = ?, reason = ?, next_attempt_at = NULL, updated_at = ? "
            f"WHERE seq IN (SELECT seq FROM deliveries WHERE {_WAITS} "
            "AND route NOT IN (SELECT value FROM json_each(?)) LIMIT ?) RETURNING seq, notification_seq",
            (_UNCONFIGURED.code, _UNCONFIGURED.text, tx.now_ms, to_json(routes), AT_ONCE),
        ).fetchall()
        told = {notification_seq for _, notification_seq in rows}
        for seq, _ in rows:
            told.update(resolve_bundled(tx, seq, _UNCONFIGURED))
        for notification_seq in told:
            next_in_chain(tx, notification_seq)
        settle_all(tx, told)
        answers.append(len(rows))
    return answers
