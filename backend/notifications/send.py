"""Send: turn orders into stored notifications and decided deliveries, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from flashflow.backend.core.clock import IdMaker
from flashflow.backend.core.encoding import decode_id, from_object, to_json
from flashflow.backend.core.errors import Erased, FlashFlowError, ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.domain.delivery_messages import overall
from flashflow.backend.domain.delivery_policy import Decision, decide
from flashflow.backend.notifications.collapse import decided, follow_ups, status_after, update_in_place
from flashflow.backend.notifications.orders import Order
from flashflow.backend.notifications.policy_inputs import PolicyInputLoader, PolicyQuery
from flashflow.backend.rendering.json_schema import check_data
from flashflow.backend.rendering.template_renderer import render
from flashflow.backend.schemas.records import DryRunResult, NotificationType, Sent
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import notifications as table
from flashflow.backend.store.notifications.delivery_settings import contact_of
from flashflow.backend.store.notifications.delivery_state import NewDelivery, insert_deliveries, new_delivery
from flashflow.backend.store.notifications.notification_state import (
    NewContent,
    OpenNotification,
    find_open,
    inbox_place,
)
from flashflow.backend.store.notifications.notifications import NewNotification
from flashflow.backend.store.notifications.templates import read_template
from flashflow.backend.store.notifications.throttles import note_use
from flashflow.backend.store.notifications.types import read_type, remember_type
from flashflow.backend.store.privacy import tombstones

Types = dict[str, NotificationType | None]
SendOrders = Callable[[Tx, Sequence[Order]], Sequence[tuple[Sent, ...] | FlashFlowError]]
"""``Sender.send``."""
DryRun = Callable[[sqlite3.Connection, Order, int], object]
"""``Sender.dry_run``: the other arguments are the order and the time in milliseconds since 1970."""


class Content(msgspec.Struct, frozen=True):
    """A rendered notification and its channels."""

    title: str
    message: str
    channels: tuple[str, ...]
    category: str | None


class Sender:
    """Writer handlers that create notifications."""

    def __init__(self, new_id: IdMaker, policy_inputs: PolicyInputLoader) -> None:
        self._new_id = new_id
        self._policy_inputs = policy_inputs

    def send(self, tx: Tx, orders: Sequence[Order]) -> list[tuple[Sent, ...] | FlashFlowError]:
        """Store every order's notifications. Refuse an order whose template cannot be rendered, or whose users are all
        erased; leave out erased users otherwise."""
        batch = _Batch(tx)
        answers: list[tuple[Sent, ...] | FlashFlowError] = []
        types: Types = {}
        for order in orders:
            try:
                order = _without_erased(tx.conn, order)  # noqa: PLW2901 the same order
                contents = self._contents(tx.conn, order, types)
            except (Erased, ValidationError) as refusal:
                answers.append(refusal)
                continue
            if types[order.notification_type] is None:
                remember_type(tx, order.notification_type, order.app)
            kind = types[order.notification_type]
            answers.append(tuple(self._send_one(batch, user, order, contents[user], kind) for user in order.users))
        batch.write()
        return answers

    def dry_run(self, conn: sqlite3.Connection, order: Order, now_ms: int) -> tuple[DryRunResult, ...]:
        """Compute the result of ``send`` for each user without storing it. Raises ValidationError and Erased."""
        types: Types = {}
        answers = []
        order = _without_erased(conn, order)
        for user, content in self._contents(conn, order, types).items():
            decisions = self._decide(conn, user, order, content, types[order.notification_type], now_ms)
            status = _status(order, decisions, now_ms)
            known = _open(conn, user, order, decisions, now_ms)
            if known is not None:
                planned = follow_ups(conn, known, decisions)
                status = status_after(conn, known, planned)
                decisions = tuple(f.decision for f in planned)
            answers.append(
                DryRunResult(
                    user_id=user,
                    title=content.title,
                    message=content.message,
                    status=status,
                    deliveries=decided(decisions),
                )
            )
        return tuple(answers)

    # --- one notification -----------------------------------------------------------------------------------------

    def _send_one(
        self, batch: _Batch, user: str, order: Order, content: Content, kind: NotificationType | None
    ) -> Sent:
        tx = batch.tx
        decisions = self._decide(tx.conn, user, order, content, kind, tx.now_ms)
        if order.collapse_key is not None:
            batch.write()  # the notification it updates may be in this batch
        known = _open(tx.conn, user, order, decisions, tx.now_ms)
        if known is not None:
            planned = follow_ups(tx.conn, known, decisions)
            _note_use(tx, user, order, kind, [f.decision for f in planned if f.change != "stays"])
            replacement = NewContent(content.title, content.message, order.data, order.actions, order.priority,
                             order.expires_at)  # fmt: skip
            sent = update_in_place(tx, known, user, replacement, planned, self._new_id)
            batch.revisions = table.NOTIFICATION_REVISIONS.following(tx.conn)
            return sent
        _note_use(tx, user, order, kind, decisions)
        status = _status(order, decisions, tx.now_ms)
        row = self._row(tx, order, user, content, decisions, status, next(batch.seqs), next(batch.revisions))
        batch.notifications.append(row)
        batch.deliveries.extend(new_delivery(self._new_id, tx, row.seq, decision) for decision in decisions)
        notification_id = decode_id(row.id)
        tx.events.append(Event("notification", notification_id, user, order.app))
        return Sent(notification_id=notification_id, user_id=user, status=status, deliveries=decided(decisions))

    def _contents(self, conn: sqlite3.Connection, order: Order, types: Types) -> dict[str, Content]:
        """Content for each user, from the order, else its template, else its type. Raises ValidationError.

        ``types`` caches the types read in this transaction.
        """
        if order.notification_type not in types:
            types[order.notification_type] = read_type(conn, order.notification_type)
        kind = types[order.notification_type]
        by_locale: dict[str, Content] = {}
        contents: dict[str, Content] = {}
        for user in order.users:
            locale = order.locale
            if not locale and order.template is not None:
                contact = contact_of(conn, user)
                locale = (contact.locale if contact is not None else None) or ""
            if locale not in by_locale:
                by_locale[locale] = _content(conn, order, kind, locale)
            contents[user] = by_locale[locale]
        return contents

    def _decide(
        self,
        conn: sqlite3.Connection,
        user: str,
        order: Order,
        content: Content,
        kind: NotificationType | None,
        now_ms: int,
    ) -> tuple[Decision, ...]:
        if _is_scheduled(order, now_ms):
            reason = "Waits for its time."
            return tuple(Decision(channel, None, "pending", "scheduled", reason) for channel in content.channels)
        query = PolicyQuery(
            user_id=user,
            notification_type=order.notification_type,
            channels=content.channels,
            kind=kind,
            category=content.category,
            device_tokens=order.device_tokens,
            expires_at=order.expires_at,
        )
        return decide(self._policy_inputs.load(conn, query, now_ms))

    def _row(
        self,
        tx: Tx,
        order: Order,
        user: str,
        content: Content,
        decisions: Sequence[Decision],
        status: str,
        seq: int,
        revision: int,
    ) -> NewNotification:
        arrived = tx.now_ms if status == "delivered" else None
        return NewNotification(
            seq=seq,
            id=self._new_id.raw(),
            user_id=user,
            app=order.app,
            title=content.title,
            message=content.message,
            notification_type=order.notification_type,
            channels=to_json(content.channels),
            priority=order.priority,
            status=status,
            inbox=inbox_place(decisions),
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
            category=content.category,
            listed_at=tx.now_ms,
        )


class _Batch:
    """Rows that one transaction is about to insert."""

    def __init__(self, tx: Tx) -> None:
        self.tx = tx
        self.deliveries: list[NewDelivery] = []
        self.notifications: list[NewNotification] = []
        self.seqs, self.revisions = (
            table.NOTIFICATION_SEQS.following(tx.conn),
            table.NOTIFICATION_REVISIONS.following(tx.conn),
        )

    def write(self) -> None:
        table.insert(self.tx, self.notifications)
        insert_deliveries(self.tx, self.deliveries)
        self.notifications, self.deliveries = [], []


def _without_erased(conn: sqlite3.Connection, order: Order) -> Order:
    """``order`` without its erased users. Raises Erased where no user is left."""
    erased = tombstones.erased_among(conn, order.users)
    if not erased:
        return order
    users = tuple(user for user in order.users if user not in erased)
    if not users:
        raise tombstones.refusal(order.users[0])
    return msgspec.structs.replace(order, users=users)


def _content(conn: sqlite3.Connection, order: Order, kind: NotificationType | None, locale: str) -> Content:
    channels = order.channels
    title, message, category = order.title, order.message, None
    if order.template is not None:
        template = read_template(conn, order.template, locale, order.owner)
        if template is None:
            raise ValidationError.of("template", f"there is no template “{order.template}”")
        data = from_object(order.data)
        if template.data_schema:
            check_data(template.data_schema, data)
        texts = title or template.title_template, message or template.message_template
        rendered = render(*texts, data, fallback=order.fallback)
        title, message, category = rendered.title, rendered.message, template.category
        channels = channels or template.channels or None
    assert title is not None
    assert message is not None
    if channels is None and kind is not None:
        channels = tuple(dict.fromkeys((*kind.channels, *(stage.channel for stage in kind.failover))))
    return Content(title, message, channels or ("in_app",), category)


def _open(
    conn: sqlite3.Connection, user: str, order: Order, decisions: Sequence[Decision], now_ms: int
) -> OpenNotification | None:  # fmt: skip
    """The open notification that ``order`` updates."""
    if order.collapse_key is None or _is_scheduled(order, now_ms):
        return None
    return find_open(conn, user, order.app, order.collapse_key, decisions)


def _note_use(
    tx: Tx, user: str, order: Order, kind: NotificationType | None, decisions: Sequence[Decision]
) -> None:  # fmt: skip
    if kind is not None and kind.throttle is not None and not _is_scheduled(order, tx.now_ms):
        note_use(tx, user, kind, sorted({d.channel for d in decisions if d.status in {"pending", "held"}}))


def _is_scheduled(order: Order, now_ms: int) -> bool:
    return order.scheduled_at is not None and order.scheduled_at > now_ms


def _status(order: Order, decisions: Sequence[Decision], now_ms: int) -> str:
    return "scheduled" if _is_scheduled(order, now_ms) else overall([d.status for d in decisions])
