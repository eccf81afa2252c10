"""From a request to stored notifications and deliveries, decided and written in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from backend.clock import IdMaker
from backend.delivery.resolver import Decision, Facts, Target, decide
from backend.errors import FlashFlowError, ValidationError
from backend.events import Event
from backend.handover import overall
from backend.records import Decided, NotificationType, Sent
from backend.store import notifications as table
from backend.store.codec import decode_id, from_object, from_strings, to_json
from backend.store.notifications import NewDelivery, NewNotification
from backend.store.people import choices_of, read_type, remember_type, targets_of
from backend.store.templates import read_template
from backend.store.writer import Tx
from backend.texts import render

DUE_AT_ONCE = 500


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A checked ``send``: for whom, what, when. Times in milliseconds since 1970."""

    users: tuple[str, ...]
    app: str
    owner: str | None
    """The only app whose templates may be filled in; None: any."""
    title: str | None
    message: str | None
    template: str | None
    locale: str
    notification_type: str
    channels: tuple[str, ...] | None
    data: str | None
    priority: str
    actions: str | None
    collapse_key: str | None
    device_tokens: tuple[str, ...] | None
    scheduled_at: int | None
    expires_at: int | None


class Sending:
    """The transactions that make notifications and release scheduled ones.

    ``this_computer`` is the token of the device this process runs on, once it is registered.
    """

    def __init__(self, new_id: IdMaker) -> None:
        self._new_id = new_id
        self.this_computer: str | None = None

    def send(self, tx: Tx, orders: Sequence[Order]) -> list[tuple[Sent, ...] | FlashFlowError]:
        """Store every order's notifications; an order whose template cannot be filled in is refused whole."""
        seq, revision = table.last_places(tx.conn)
        notifications: list[NewNotification] = []
        deliveries: list[NewDelivery] = []
        answers: list[tuple[Sent, ...] | FlashFlowError] = []
        types: dict[str, NotificationType | None] = {}
        for order in orders:
            try:
                title, message, channels = self._content(tx, order, types)
            except ValidationError as refusal:
                answers.append(refusal)
                continue
            sent: list[Sent] = []
            for user_id in order.users:
                seq, revision = seq + 1, revision + 1
                decisions = self._decide(tx.conn, user_id, order, channels, tx.now_ms)
                row = self._row(tx, order, user_id, title, message, channels, decisions, seq, revision)
                made = [self._delivery(tx, seq, decision) for decision in decisions]
                notifications.append(row)
                deliveries.extend(made)
                notification_id = decode_id(row.id)
                tx.events.append(Event("notification", notification_id, user_id, order.app))
                sent.append(
                    Sent(
                        notification_id=notification_id,
                        user_id=user_id,
                        status=row.status,
                        deliveries=tuple(
                            Decided(channel=d.channel, status=d.status, code=d.code, reason=d.reason) for d in made
                        ),
                    )
                )
            answers.append(tuple(sent))
        table.insert(tx, notifications, deliveries)
        _ring(tx, deliveries)
        return answers

    def release(self, tx: Tx, items: Sequence[None]) -> list[int]:
        """Send what was scheduled for now; who gets it is decided now, not when it was scheduled."""
        rows = tx.conn.execute(
            "SELECT seq, id, user_id, app, notification_type, channels, device_tokens FROM notifications "
            "WHERE status = 'scheduled' AND scheduled_at <= ? AND (expires_at IS NULL OR expires_at > ?) "
            "ORDER BY scheduled_at LIMIT ?",
            (tx.now_ms, tx.now_ms, DUE_AT_ONCE),
        ).fetchall()
        revision = table.last_revision(tx.conn)
        for offset, (seq, id_, user_id, app, kind, channels, tokens) in enumerate(rows, 1):
            wanted = from_strings(tokens) if tokens else None
            decisions = decide(self._facts(tx.conn, user_id, kind, from_strings(channels), wanted))
            tx.conn.execute("DELETE FROM deliveries WHERE notification_seq = ?", (seq,))
            deliveries = [self._delivery(tx, seq, decision) for decision in decisions]
            table.insert_deliveries(tx, deliveries)
            _ring(tx, deliveries)
            status = overall([d.status for d in decisions])
            arrived = tx.now_ms if status == "delivered" else None
            tx.conn.execute(
                "UPDATE notifications SET status = ?, inbox = ?, sent_at = ?, delivered_at = ?, revision = ? "
                "WHERE seq = ?",
                (status, _inbox(decisions), arrived, arrived, revision + offset, seq),
            )
            tx.events.append(Event("notification.updated", decode_id(id_), user_id, app))
        return [len(rows)] * len(items)

    def expire(self, tx: Tx, items: Sequence[None]) -> list[int]:
        """Take what has expired unread out of the inbox and the outbox."""
        rows = tx.conn.execute(
            "SELECT seq, id, user_id, app FROM notifications WHERE expires_at <= ? "
            "AND status IN ('scheduled', 'pending', 'sent', 'delivered') AND inbox IS NOT 'archived' "
            "ORDER BY expires_at LIMIT ?",
            (tx.now_ms, DUE_AT_ONCE),
        ).fetchall()
        revision = table.last_revision(tx.conn)
        for offset, (seq, id_, user_id, app) in enumerate(rows, 1):
            tx.conn.execute(
                "UPDATE notifications SET status = 'expired', inbox = NULL, revision = ? WHERE seq = ?",
                (revision + offset, seq),
            )
            tx.conn.execute(
                "UPDATE deliveries SET status = 'suppressed', code = 'expired', reason = 'It expired first.', "
                "next_attempt_at = NULL, updated_at = ? WHERE notification_seq = ? AND status = 'pending'",
                (tx.now_ms, seq),
            )
            tx.events.append(Event("notification.updated", decode_id(id_), user_id, app))
        return [len(rows)] * len(items)

    def _content(
        self, tx: Tx, order: Order, types: dict[str, NotificationType | None]
    ) -> tuple[str, str, tuple[str, ...]]:
        """Title, message and channels, from the order, its template and its type, in that order. ``types`` keeps what
        this transaction has read of them."""
        channels = order.channels
        title, message = order.title, order.message
        if order.template is not None:
            template = read_template(tx.conn, order.template, order.locale, order.owner)
            if template is None:
                raise ValidationError.of("template", f"there is no template “{order.template}”")
            rendered = render(
                title or template.title_template, message or template.message_template, from_object(order.data)
            )
            title, message = rendered.title, rendered.message
            channels = channels or template.channels or None
        assert title is not None
        assert message is not None
        if order.notification_type not in types:
            types[order.notification_type] = read_type(tx.conn, order.notification_type)
            if types[order.notification_type] is None:
                remember_type(tx, order.notification_type, order.app)
        known = types[order.notification_type]
        if known is not None and channels is None:
            channels = known.channels
        return title, message, channels or ("in_app",)

    def _decide(
        self, conn: sqlite3.Connection, user_id: str, order: Order, channels: tuple[str, ...], now: int
    ) -> tuple[Decision, ...]:
        if order.scheduled_at is not None and order.scheduled_at > now:
            return tuple(Decision(channel, None, "pending", "scheduled", "Waits for its time.") for channel in channels)
        return decide(self._facts(conn, user_id, order.notification_type, channels, order.device_tokens))

    def _facts(
        self,
        conn: sqlite3.Connection,
        user_id: str,
        notification_type: str,
        channels: tuple[str, ...],
        tokens: tuple[str, ...] | None,
    ) -> Facts:
        devices: list[Target] = []
        if "push" in channels:
            devices = [
                Target(seq, platform, token == self.this_computer)
                for seq, token, platform in targets_of(conn, user_id)
                if tokens is None or token in tokens
            ]
        return Facts(
            notification_type=notification_type, channels=channels, choices=choices_of(conn, user_id), devices=devices
        )

    def _row(
        self,
        tx: Tx,
        order: Order,
        user_id: str,
        title: str,
        message: str,
        channels: tuple[str, ...],
        decisions: Sequence[Decision],
        seq: int,
        revision: int,
    ) -> NewNotification:
        scheduled = order.scheduled_at is not None and order.scheduled_at > tx.now_ms
        status = "scheduled" if scheduled else overall([d.status for d in decisions])
        arrived = tx.now_ms if status == "delivered" else None
        return NewNotification(
            seq=seq,
            id=self._new_id.raw(),
            user_id=user_id,
            app=order.app,
            title=title,
            message=message,
            notification_type=order.notification_type,
            channels=to_json(channels),
            priority=order.priority,
            status=status,
            inbox=_inbox(decisions),
            data=order.data,
            actions=order.actions,
            device_tokens=to_json(order.device_tokens) if order.device_tokens else None,
            collapse_key=order.collapse_key,
            created_at=tx.now_ms,
            scheduled_at=order.scheduled_at,
            expires_at=order.expires_at,
            sent_at=arrived,
            delivered_at=arrived,
            revision=revision,
        )

    def _delivery(self, tx: Tx, seq: int, decision: Decision) -> NewDelivery:
        due = tx.now_ms if decision.status == "pending" and decision.code != "scheduled" else None
        return NewDelivery(
            self._new_id.raw(), seq, decision.channel, decision.device_seq, decision.status, decision.code,
            decision.reason, tx.now_ms, tx.now_ms, due,
        )  # fmt: skip


def _ring(tx: Tx, deliveries: Sequence[NewDelivery]) -> None:
    """Tell the outbox when one of ``deliveries`` waits for it."""
    for delivery in deliveries:
        if delivery.next_attempt_at is not None:
            tx.events.append(Event("outbox", decode_id(delivery.id)))
            return


def _inbox(decisions: Sequence[Decision]) -> str | None:
    return "unread" if any(d.channel == "in_app" and d.status == "delivered" for d in decisions) else None
