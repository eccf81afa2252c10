"""The outbox of ``notifications.db``: one queue for each route, claimed with a lease, and the messages to deliver.

The transitions behind each call are in ``delivery_state``.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

import msgspec
from peewee import Select, fn

from flashflow.backend.core.encoding import decode_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.delivery_messages import Claimed, DeliveryMessage, Link, NextStep
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.statement import Statement, listed, slot
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications import delivery_state, models
from flashflow.backend.store.notifications.delivery_state import Sendable

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
        rows = self._store.read(lambda conn: _NEXT_DUE.all(conn, routes=list(routes)))
        return {row.route: row.at for row in rows if row.at is not None}

    def next_lease(self) -> int | None:
        """The time at which the first lease expires."""
        until: int | None = self._store.read(_NEXT_LEASE.value)
        return until


class _NextDue(NamedTuple):
    route: str
    at: int | None


_D, _N = models.Delivery, models.Notification
_ROUTES = listed("routes")
_FIRST_DUE = _D.select(fn.MIN(_D.next_attempt_at)).where(
    _D.status == "pending", _D.next_attempt_at.is_null(False), _D.route == _ROUTES.c.value
)
_NEXT_DUE = Statement(lambda: Select([_ROUTES], [_ROUTES.c.value.alias("route"), _FIRST_DUE.alias("at")]), _NextDue)
_NEXT_LEASE = Statement(lambda: _D.select(fn.MIN(_D.lease_until)).where(_D.status == "sending"))


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
            tries=before.tries,
            message=_message(tx.conn, row),
            due_at=before.due_at,
            tried_since=before.tried_since,
            previous_code=before.previous_code,
        )
        for before, row in reversed(delivery_state.claim(tx, route, count, lease_ms))
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


class _Text(NamedTuple):
    title: str
    message: str


_BUNDLED = Statement(
    lambda: (
        _D.select(_N.title, _N.message)
        .join(_N, on=_N.seq == _D.notification_seq)
        .where(_D.digest_seq == slot("digest"), _D.status == "pending")
        .order_by(_N.seq.desc())
    ),
    _Text,
)
_decode_actions = msgspec.json.Decoder(tuple[Link, ...]).decode


def _message(conn: sqlite3.Connection, row: Sendable) -> DeliveryMessage:
    title, message = row.title, row.message
    bundled = _BUNDLED.all(conn, digest=row.seq) if row.is_digest else []
    if bundled:
        title, message = summary([(title, message), *bundled])
    elif row.occurrences > 1:
        title = f"{title} ({row.occurrences})"
    return DeliveryMessage(
        delivery_id=row.id,
        notification_id=row.notification_id,
        user_id=row.user_id,
        app=row.app,
        title=title,
        message=message,
        priority=row.priority,
        target={"email": row.email, "sms": row.phone}.get(row.route) if row.token is None else row.token,
        platform=row.platform,
        registered_at=row.registered_at,
        notification_type=row.notification_type,
        critical=row.critical,
        data=row.data or None,
        actions=() if bundled else decode_json(_decode_actions, row.actions, ()),
        collapse_key=row.collapse_key,
        count=row.occurrences,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def summary(texts: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Title and message of a digest of ``texts`` (title, message): the first lines of the first twenty."""
    lines = [f"• {title}: {message.splitlines()[0] if message else ''}"[:200] for title, message in texts]
    if len(lines) > SUMMARY_LINES:
        lines = [*lines[:SUMMARY_LINES], f"… and {len(texts) - SUMMARY_LINES} more"]
    return f"{len(texts)} notifications", "\n".join(lines)
