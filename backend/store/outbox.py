"""The outbox in ``notifications.db``: claims with a lease, attempts, what comes next."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backend.events import Event
from backend.handover import Notice, Outcome, overall
from backend.store.codec import decode_id, encode_id, to_json
from backend.store.database import Store
from backend.store.notifications import last_revision
from backend.store.writer import Tx, Write


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to record."""

    delivery_id: str
    started_at: int
    duration_ms: int
    outcome: Outcome
    retry_at: int | None


class OutboxTable:
    """What the outbox's workers ask of the store. Claims are atomic; an expired lease is claimed again."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, limit: int, lease_ms: int, full: Sequence[str] = ()) -> list[tuple[str, int, Notice]]:
        """Take up to ``limit`` due deliveries for ``lease_ms``, none of the channels in ``full``: (channel, tries
        including this one, notice)."""
        return self._store.run(Write(_claim, (limit, lease_ms, to_json(full))))

    def record_try(
        self, notice: Notice, started_at: int, duration_ms: int, outcome: Outcome, retry_at: int | None
    ) -> None:
        """Store an attempt and what it makes of its delivery and notification: ``retry_at`` puts the delivery back
        into the outbox, None ends it."""
        tried = Tried(
            delivery_id=notice.delivery_id,
            started_at=started_at,
            duration_ms=duration_ms,
            outcome=outcome,
            retry_at=retry_at,
        )
        self._store.run(Write(_record, tried))

    def give_back(self, delivery_id: str) -> None:
        """Return a claimed delivery that was not tried."""
        self._store.run(Write(_give_back, delivery_id))

    def next_due(self, full: Sequence[str] = ()) -> int | None:
        """When the next delivery is due or a lease runs out, but for the channels in ``full``; None when nothing
        waits."""
        row = self._store.read(lambda conn: conn.execute(_NEXT, (to_json(full),)).fetchone())
        return None if row[0] is None else int(row[0])


_NOT_FULL = "channel NOT IN (SELECT value FROM json_each(?1))"
_NEXT = (
    "SELECT MIN(at) FROM (SELECT MIN(next_attempt_at) AS at FROM deliveries WHERE status = 'pending' "  # noqa: S608
    f"AND next_attempt_at IS NOT NULL AND {_NOT_FULL} UNION ALL "
    f"SELECT MIN(lease_until) FROM deliveries WHERE status = 'sending' AND {_NOT_FULL})"
)
_DUE = (
    "SELECT seq FROM (SELECT seq, next_attempt_at AS at FROM deliveries WHERE status = 'pending' "  # noqa: S608
    f"AND next_attempt_at <= ?2 AND {_NOT_FULL} UNION ALL SELECT seq, lease_until FROM deliveries "
    f"WHERE status = 'sending' AND lease_until <= ?2 AND {_NOT_FULL}) ORDER BY at LIMIT ?3"
)
_CLAIMED = (
    "SELECT d.id, d.channel, d.tries, n.id, n.user_id, n.app, n.title, n.message, n.priority, t.token "
    "FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq "
    "LEFT JOIN device_tokens t ON t.seq = d.device_seq WHERE d.seq = ?"
)


def _claim(tx: Tx, items: Sequence[tuple[int, int, str]]) -> list[list[tuple[str, int, Notice]]]:
    answers = []
    for limit, lease_ms, full in items:
        claimed = []
        for (seq,) in tx.conn.execute(_DUE, (full, tx.now_ms, limit)).fetchall():
            tx.conn.execute(
                "UPDATE deliveries SET status = 'sending', lease_until = ?, tries = tries + 1, updated_at = ? "
                "WHERE seq = ?",
                (tx.now_ms + lease_ms, tx.now_ms, seq),
            )
            id_, channel, tries, notification, user_id, app, title, message, priority, token = tx.conn.execute(
                _CLAIMED, (seq,)
            ).fetchone()
            notice = Notice(
                delivery_id=decode_id(id_),
                notification_id=decode_id(notification),
                user_id=user_id,
                app=app,
                title=title,
                message=message,
                priority=priority,
                target=token,
            )
            claimed.append((channel, tries, notice))
        answers.append(claimed)
    return answers


_STATUS = {"delivered": "delivered", "sent": "sent", "permanent": "failed", "token_dead": "failed"}


def _record(tx: Tx, items: Sequence[Tried]) -> list[None]:
    for tried in items:
        row = tx.conn.execute(
            "SELECT d.seq, d.notification_seq, d.device_seq, d.status, n.id, n.user_id, n.app FROM deliveries d "
            "JOIN notifications n ON n.seq = d.notification_seq WHERE d.id = ?",
            (encode_id(tried.delivery_id),),
        ).fetchone()
        if row is None:  # erased while it was on its way
            continue
        seq, notification_seq, device_seq, status, notification, user_id, app = row
        outcome = tried.outcome
        tx.conn.execute(
            "INSERT INTO delivery_attempts (delivery_seq, started_at, duration_ms, outcome, code, text) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (seq, tried.started_at, tried.duration_ms, outcome.outcome, outcome.code, outcome.text),
        )
        if status == "sending":
            after = _STATUS.get(outcome.outcome) or ("dead" if tried.retry_at is None else "pending")
            tx.conn.execute(
                "UPDATE deliveries SET status = ?, code = ?, reason = ?, next_attempt_at = ?, lease_until = NULL, "
                "updated_at = ? WHERE seq = ?",
                (after, outcome.code, outcome.text, tried.retry_at, tx.now_ms, seq),
            )
            _settle(tx, notification_seq)
        if device_seq is not None and outcome.outcome == "token_dead":
            tx.conn.execute(
                "UPDATE device_tokens SET is_active = 0, updated_at = ? WHERE seq = ?", (tx.now_ms, device_seq)
            )
        elif device_seq is not None and outcome.outcome in {"delivered", "sent"}:
            tx.conn.execute("UPDATE device_tokens SET last_used_at = ? WHERE seq = ?", (tx.now_ms, device_seq))
        tx.events.append(Event("notification.updated", decode_id(notification), user_id, app))
    return [None] * len(items)


def _settle(tx: Tx, notification_seq: int) -> None:
    """Draw the notification's status from its deliveries, unless its reader has moved it on."""
    statuses = [
        status
        for (status,) in tx.conn.execute(
            "SELECT status FROM deliveries WHERE notification_seq = ?", (notification_seq,)
        )
    ]
    status = overall(statuses)
    tx.conn.execute(
        "UPDATE notifications SET revision = ?, "
        "status = CASE WHEN status IN ('pending', 'sent', 'delivered', 'failed') THEN ? ELSE status END, "
        "sent_at = CASE WHEN ? IN ('sent', 'delivered') THEN COALESCE(sent_at, ?) ELSE sent_at END, "
        "delivered_at = CASE WHEN ? = 'delivered' THEN COALESCE(delivered_at, ?) ELSE delivered_at END WHERE seq = ?",
        (last_revision(tx.conn) + 1, status, status, tx.now_ms, status, tx.now_ms, notification_seq),
    )


def _give_back(tx: Tx, items: Sequence[str]) -> list[None]:
    tx.conn.executemany(
        "UPDATE deliveries SET status = 'pending', lease_until = NULL, tries = tries - 1, updated_at = ? "
        "WHERE id = ? AND status = 'sending'",
        [(tx.now_ms, encode_id(delivery_id)) for delivery_id in items],
    )
    return [None] * len(items)
