"""Process everything due: scheduled notifications, held deliveries, snoozes, expiries.

The database and the transaction's clock decide, in steps of a few hundred rows: after a jump of the clock or a suspend
each thing still happens, once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from flashflow.backend.core.clock import IdMaker
from flashflow.backend.core.events import Event
from flashflow.backend.domain.delivery_messages import overall
from flashflow.backend.domain.delivery_policy import Decision, decide
from flashflow.backend.notifications.collapse import follow_ups, update_in_place
from flashflow.backend.notifications.policy_inputs import PolicyInputLoader, PolicyQuery
from flashflow.backend.schemas.records import NotificationType, Record
from flashflow.backend.store.engine.writer import Tx, each_item
from flashflow.backend.store.notifications import delivery_state, notification_state
from flashflow.backend.store.notifications.deliveries import Unreleased, is_clock_set_back, still_held, unreleased_among
from flashflow.backend.store.notifications.delivery_state import HeldDelivery, new_delivery
from flashflow.backend.store.notifications.notification_state import COLLAPSED, NewContent, ScheduledNotification
from flashflow.backend.store.notifications.throttles import note_use
from flashflow.backend.store.notifications.types import read_type

DUE_AT_ONCE = 500
TOGETHER = 2_500
"""Held deliveries released in one step at most. Beyond it a user gets more than one digest."""
MOST_NAMED = 200
"""Deliveries named in the result of a digest that is sent now."""
DIGEST_CODES = {"quiet_hours", "do_not_disturb", "digest"}
"""Deliveries held for one of these reasons are released together, as a digest."""

Step = Callable[[Tx], int]


class DigestRelease(Record, frozen=True, kw_only=True):
    """The result of releasing a user's digests: the number of deliveries queued, those still held (the first 200 of
    ``held_count``), and those stopped, that is suppressed or failed."""

    released: int
    held_count: int
    held: tuple[Unreleased, ...]
    stopped: tuple[Unreleased, ...]


class DueRelease:
    """Transactions; each returns the number of rows it changed and is called again until that is 0."""

    def __init__(self, new_id: IdMaker, policy_inputs: PolicyInputLoader) -> None:
        self._new_id = new_id
        self._policy_inputs = policy_inputs
        self._latest: int | None = None

    def due(self, conn: sqlite3.Connection, now_ms: int) -> list[Step]:
        """The steps that have something to do at ``now_ms``."""
        steps: list[Step] = []
        # Rows from the future can exist only at the start or after the clock has gone back.
        if (self._latest is None or now_ms < self._latest) and is_clock_set_back(conn, now_ms):
            steps.append(self.set_back)
        self._latest = now_ms
        found = notification_state.due(conn, now_ms)
        often = (self.scheduled, self.held, self.snoozed, self.expire)
        return steps + [step for step, due in zip(often, found, strict=True) if due or (steps and step == self.held)]

    def set_back(self, tx: Tx) -> int:
        """After the clock was set back, shift waits computed with the old time; times set by a user or app stay."""
        moved = delivery_state.shift_waits(tx)
        for held in delivery_state.held_in_future(tx):
            again = self._decide(tx, held, first=True)
            due = again.due if again.status == "held" and again.code == held.code else tx.now_ms
            if held.code == "failover":
                due = tx.now_ms + max(0, held.release_at - held.updated_at)
            delivery_state.shift_held(tx, held.seq, due or tx.now_ms)
            moved += 1
        return moved

    # --- scheduled notifications ----------------------------------------------------------------------------------

    def scheduled(self, tx: Tx) -> int:
        """Send scheduled notifications; their recipients' settings now decide, not those at scheduling."""
        found = notification_state.scheduled_due(tx, DUE_AT_ONCE)
        for scheduled in found:
            self._send(tx, scheduled)
        return len(found)

    def _send(self, tx: Tx, due: ScheduledNotification) -> None:
        kind = read_type(tx.conn, due.notification_type)
        query = PolicyQuery(
            user_id=due.user_id,
            notification_type=due.notification_type,
            channels=due.channels,
            kind=kind,
            category=due.category,
            device_tokens=due.device_tokens,
            expires_at=due.expires_at,
        )
        decisions = decide(self._policy_inputs.load(tx.conn, query, tx.now_ms))
        known = None
        if due.collapse_key is not None:
            known = notification_state.find_open(tx.conn, due.user_id, due.app, due.collapse_key, decisions)
        if known is None:
            self._store(tx, due, decisions, kind, decisions, listed_at=tx.now_ms)
            return
        planned = follow_ups(tx.conn, known, decisions)
        content = NewContent(due.title, due.message, due.data, due.actions, due.priority, due.expires_at)
        update_in_place(tx, known, due.user_id, content, planned, self._new_id)
        reason = f"It updated the notification {known.id} of the same collapse_key."
        stored = [Decision(channel, None, "suppressed", COLLAPSED, reason) for channel in query.channels]
        used = [f.decision for f in planned if f.change != "stays"]
        self._store(tx, due, stored, kind, used, listed_at=due.created_at)

    def _store(
        self,
        tx: Tx,
        due: ScheduledNotification,
        decisions: Sequence[Decision],
        kind: NotificationType | None,
        used: Sequence[Decision],
        *,
        listed_at: int,
    ) -> None:
        """Store ``decisions`` as the notification's deliveries; ``used`` count against the throttle of its type."""
        if kind is not None:
            note_use(tx, due.user_id, kind, sorted({d.channel for d in used if d.status in {"pending", "held"}}))
        deliveries = [new_delivery(self._new_id, tx, due.seq, decision) for decision in decisions]
        delivery_state.replace_deliveries(tx, due.seq, deliveries)
        status = overall([d.status for d in decisions])
        arrived = tx.now_ms if status == "delivered" else None
        columns = {
            "status": status,
            "inbox": notification_state.inbox_place(decisions),
            "sent_at": arrived,
            "delivered_at": arrived,
            "listed_at": listed_at,
        }
        notification_state.update_notification(tx, due.seq, columns)
        tx.events.append(Event("notification.updated", due.id, due.user_id, due.app))

    # --- held deliveries ------------------------------------------------------------------------------------------

    def held(self, tx: Tx) -> int:
        """Release held deliveries whose time has come; those of one user and channel become one digest."""
        return len(self._release(tx, delivery_state.held_due(tx, DUE_AT_ONCE, TOGETHER)))

    def _release(self, tx: Tx, rows: Sequence[HeldDelivery]) -> list[tuple[HeldDelivery, Decision]]:
        decisions = [(held, self._decide(tx, held)) for held in rows]
        delivery_state.apply_release(tx, decisions, DIGEST_CODES)
        return decisions

    def _decide(self, tx: Tx, held: HeldDelivery, *, first: bool = False) -> Decision:
        """Decide a held delivery again, without the rules that were applied before: the throttle, the digest, and a
        fail-over chain in which its turn has come. ``first``: apply the digest as for a new delivery."""
        if held.read_at is not None:
            return Decision(held.channel, held.device_seq, "suppressed", "read_first", "It was read first.")
        failed_over = held.failed_over or held.code == "failover"
        channels = (held.channel,) if failed_over else held.channels
        query = PolicyQuery(
            user_id=held.user_id,
            notification_type=held.notification_type,
            channels=channels if held.channel in channels else (held.channel,),
            kind=read_type(tx.conn, held.notification_type),
            category=held.category,
            device_tokens=held.device_tokens,
            expires_at=held.expires_at,
            released=frozenset(
                {"throttle"} | ({"failover"} if failed_over else set()) | (set() if first else {"digest"})
            ),
        )
        for decision in decide(self._policy_inputs.load(tx.conn, query, tx.now_ms)):
            if decision.channel != held.channel:
                continue
            if decision.device_seq == held.device_seq or decision.status == "suppressed":
                return decision._replace(device_seq=held.device_seq)
        return Decision(held.channel, held.device_seq, "failed", "no_device", "This device is not registered any more.")

    @each_item
    def send_now(self, tx: Tx, item: tuple[str, str | None]) -> DigestRelease:
        """Handle (user, type or None for all): release the user's digests, 2,500 deliveries at once; the rest follows
        with the next step."""
        user_id, notification_type = item
        rows = delivery_state.held_by_digest(tx, user_id, notification_type)
        delivery_state.release_now(tx, [held.seq for held in rows])
        decisions = self._release(tx, rows[:TOGETHER])
        stopped = [held.seq for held, decision in decisions if decision.status in {"suppressed", "failed"}]
        held_count, still = still_held(tx.conn, user_id, notification_type, MOST_NAMED)
        return DigestRelease(
            released=sum(decision.status == "pending" for _, decision in decisions),
            held_count=held_count,
            held=still,
            stopped=unreleased_among(tx.conn, stopped, MOST_NAMED),
        )

    # --- snoozes, expiries ----------------------------------------------------------------------------------------

    def snoozed(self, tx: Tx) -> int:
        """Mark notifications as unread whose snooze has ended."""
        return notification_state.wake_snoozed(tx, DUE_AT_ONCE)

    def expire(self, tx: Tx) -> int:
        """Remove expired unread notifications from the inbox and the outbox."""
        return notification_state.expire_due(tx, DUE_AT_ONCE)
