"""The outbox of ``notifications.db``: one queue for each route, claimed with a lease, and the messages to deliver.

The transitions behind each call are in ``delivery_state``.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from flashflow.backend.core.encoding import decode_id, decode_json, from_object, to_json
from flashflow.backend.domain.delivery_messages import Claimed, DeliveryMessage, Link, NextStep
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications import delivery_state

SUMMARY_LINES = 20


class OutboxTable:
    """The store behind the outbox's workers. Claims are atomic; an expired lease is claimed again."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run_steps(self, steps: Sequence[NextStep]) -> list[Claimed | BaseException | None]:
        """Take the next step of several workers in one transaction: record each one's attempt and claim the next due
        delivery of its route. Answer each with its claim, None, or the error."""
        return self._store.run_all([Write(_run_step, step) for step in steps])

    def give_back(self, delivery_id: str) -> None:
        """Return a claimed delivery that was not attempted."""
        self._store.run(Write(_give_back, delivery_id))

    def recover(self, *, all_leases: bool) -> int:
        """Queue deliveries whose lease has expired, or with ``all_leases`` (at the start of a process) all that are
        being sent; return how many."""
        return self._store.run(Write(_recover, all_leases))

    def hasten(self, route: str, codes: Sequence[str]) -> int:
        """Make due now the deliveries of ``route`` whose last attempt failed with one of ``codes``; return how many."""
        hastened = 0
        while count := self._store.run(Write(_hasten, (route, tuple(codes)))):
            hastened += count
        return hastened

    def refuse_routes(self, routes: Sequence[str]) -> int:
        """Fail queued deliveries of routes that are not configured (not among ``routes``); return how many."""
        refused = 0
        while count := self._store.run(Write(_refuse, tuple(routes))):
            refused += count
        return refused

    def next_due(self, routes: Sequence[str]) -> dict[str, int]:
        """Route → due time of its next queued delivery, for those of ``routes`` that have one."""
        if not routes:
            return {}
        rows = self._store.read(lambda conn: conn.execute(_NEXT_DUE, (to_json(list(routes)),)).fetchall())
        return {route: int(at) for route, at in rows if at is not None}

    def next_lease(self) -> int | None:
        """The time at which the first lease expires."""
        row = self._store.read(lambda conn: conn.execute(_NEXT_LEASE).fetchone())
        return None if row[0] is None else int(row[0])


_NEXT_DUE = (
    "SELECT value, (SELECT MIN(next_attempt_at) FROM deliveries WHERE status = 'pending' "
    "AND next_attempt_at IS NOT NULL AND route = value) FROM json_each(?)"
)
_NEXT_LEASE = "SELECT MIN(lease_until) FROM deliveries WHERE status = 'sending'"


# --- writer handlers --------------------------------------------------------------------------------------------------


def _run_step(tx: Tx, items: Sequence[NextStep]) -> list[Claimed | None]:
    delivery_state.record_attempts(tx, [item.tried for item in items if item.tried is not None])
    counts = Counter(item.route for item in items)
    leases = {item.route: item.lease_ms for item in items}
    claims = {route: _claim(tx, route, count, leases[route]) for route, count in counts.items() if route is not None}
    return [claims[item.route].pop() if item.route is not None and claims[item.route] else None for item in items]


def _claim(tx: Tx, route: str, count: int, lease_ms: int) -> list[Claimed]:
    """Up to ``count`` claims, the last one due first."""
    return [
        Claimed(
            tries=row.tries,
            message=_message(tx.conn, row.columns),
            due_at=row.due_at,
            tried_since=row.tried_since,
            previous_code=row.previous_code,
        )
        for row in reversed(delivery_state.claim(tx, route, count, lease_ms, _MESSAGE))
    ]


def _give_back(tx: Tx, items: Sequence[str]) -> list[None]:
    delivery_state.give_back(tx, items)
    return [None] * len(items)


def _recover(tx: Tx, items: Sequence[bool]) -> list[int]:
    return [delivery_state.recover_leases(tx, all_leases=all_leases) for all_leases in items]


def _hasten(tx: Tx, items: Sequence[tuple[str, tuple[str, ...]]]) -> list[int]:
    return [delivery_state.hasten(tx, route, codes) for route, codes in items]


def _refuse(tx: Tx, items: Sequence[tuple[str, ...]]) -> list[int]:
    return [delivery_state.refuse_routes(tx, routes) for routes in items]


# --- messages ---------------------------------------------------------------------------------------------------------

_MESSAGE = (
    "d.seq, d.id, d.notification_seq, d.route, n.id, n.user_id, n.app, n.title, n.message, "
    "n.priority, n.notification_type, n.data, n.actions, n.collapse_key, n.count, n.created_at, n.expires_at, "
    "COALESCE(k.critical, 0), t.token, t.platform, t.updated_at, c.email, c.phone, "
    "EXISTS (SELECT 1 FROM deliveries s WHERE s.carrier_seq = d.seq)"
)
_BUNDLED = (
    "SELECT n.title, n.message FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq "
    "WHERE d.carrier_seq = ? AND d.status = 'pending' ORDER BY n.seq DESC"
)
_decode_actions = msgspec.json.Decoder(tuple[Link, ...]).decode


def _message(conn: sqlite3.Connection, row: tuple[Any, ...]) -> DeliveryMessage:
    (
        seq, id_, _, route, notification, user_id, app, title, message, priority, kind, data, actions, collapse, count,
        created, expires, critical, token, platform, registered, email, phone, carries,
    ) = row  # fmt: skip
    bundled = conn.execute(_BUNDLED, (seq,)).fetchall() if carries else []
    if bundled:
        title, message = summary([(title, message), *bundled])
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
        actions=() if bundled else decode_json(_decode_actions, actions, ()),
        collapse_key=collapse,
        count=count,
        created_at=created,
        expires_at=expires,
    )


def summary(texts: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Title and message of a digest of ``texts`` (title, message): the first lines of the first twenty."""
    lines = [f"• {title}: {message.splitlines()[0] if message else ''}"[:200] for title, message in texts]
    if len(lines) > SUMMARY_LINES:
        lines = [*lines[:SUMMARY_LINES], f"… and {len(texts) - SUMMARY_LINES} more"]
    return f"{len(texts)} notifications", "\n".join(lines)
