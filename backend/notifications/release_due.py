"""What its time has come for: scheduled notifications, held deliveries, snoozes, expiry, stale devices.

Everything is decided by the database and the clock of the transaction, in steps of a few hundred rows: after a jump of
the clock or a night's sleep each thing still happens, once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from flashflow.backend.core.clock import IdMaker, to_datetime
from flashflow.backend.core.encoding import decode_id, from_strings, to_json
from flashflow.backend.core.events import Event
from flashflow.backend.domain.delivery_messages import overall
from flashflow.backend.domain.delivery_policy import Decision, decide
from flashflow.backend.notifications.collapse import COLLAPSED, InPlace, find_open, follow, update_in_place
from flashflow.backend.notifications.deliveries import (
    hand_back,
    inbox_place,
    new_delivery,
    redecide,
    ring,
    wake,
    withdraw,
)
from flashflow.backend.notifications.policy_inputs import PolicyInputLoader, PolicyQuery
from flashflow.backend.schemas.records import NotificationType, Record
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import notifications as table
from flashflow.backend.store.notifications.attempts import next_in_chain
from flashflow.backend.store.notifications.delivery_state import settle_all
from flashflow.backend.store.notifications.digests import bundle
from flashflow.backend.store.notifications.preferences import read_type
from flashflow.backend.store.notifications.throttles import note_use

DUE_AT_ONCE = 500
TOGETHER = 2_500
"""Deliveries let go of in one step at most. More than these, of as many people as are due first, are more than one
summary for somebody."""
MOST_NAMED = 200
"""Deliveries named in the answer to a digest that is sent now."""
STALE_MS = 270 * 24 * 60 * 60 * 1000
"""A token that no app has registered again for so long is stale [Firebase, "Manage FCM registration tokens"]."""
SUMMED_UP = {"quiet_hours", "do_not_disturb", "digest"}


_DUE = (
    "SELECT EXISTS (SELECT 1 FROM notifications WHERE status = 'scheduled' AND scheduled_at <= :now), "
    "EXISTS (SELECT 1 FROM deliveries WHERE status = 'held' AND release_at <= :now), "
    "EXISTS (SELECT 1 FROM notifications WHERE snoozed_until IS NOT NULL AND snoozed_until <= :now), "
    "EXISTS (SELECT 1 FROM notifications WHERE expires_at IS NOT NULL AND expires_at <= :now "
    "AND status IN ('scheduled', 'pending', 'sent', 'delivered') AND inbox IS NOT 'archived')"
)
_AHEAD = "SELECT seq FROM deliveries WHERE updated_at > :now AND "
_SET_BACK = (
    f"SELECT EXISTS ({_AHEAD} status = 'pending' AND next_attempt_at IS NOT NULL) "
    f"OR EXISTS ({_AHEAD} status = 'held') OR EXISTS ({_AHEAD} status = 'sending')"
)
_JOINED = "FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq"
_OF_HELD = f"{_JOINED} WHERE d.status = 'held'"
_THEIRS = "n.user_id = ? AND (? IS NULL OR n.notification_type = ?)"
_UNRELEASED = f"SELECT n.id, d.channel, d.status, d.code, d.reason, d.release_at {_JOINED}"
_HELD = (
    "SELECT d.seq, d.id, d.notification_seq, d.channel, d.device_seq, d.code, d.in_turn, d.updated_at, d.release_at, "
    "n.user_id, n.notification_type, n.channels, n.category, n.device_tokens, n.expires_at, n.read_at "
    f"{_OF_HELD} AND "
)
Step = Callable[[Tx, Sequence[None]], list[int]]


class Unreleased(Record, frozen=True, kw_only=True):
    """A delivery that does not go out now; ``code`` and ``reason`` say why, ``release_at`` until when it is held."""

    notification_id: str
    channel: str
    status: str
    code: str | None
    reason: str | None
    release_at: datetime | None


class DigestRelease(Record, frozen=True, kw_only=True):
    """What became of a user's digests: how many deliveries go out, which are held (the first 200 of ``held_count``),
    and which were stopped, that is suppressed or failed."""

    released: int
    held_count: int
    held: tuple[Unreleased, ...]
    stopped: tuple[Unreleased, ...]


class Scheduled(NamedTuple):
    """A scheduled notification whose time has come."""

    seq: int
    id: Any
    user_id: str
    app: str
    title: str
    message: str
    notification_type: str
    channels: str
    category: str | None
    device_tokens: str | None
    data: str | None
    actions: str | None
    priority: str
    collapse_key: str | None
    created_at: int
    expires_at: int | None


class Held(NamedTuple):
    """A held delivery whose time has come, with what its notification says."""

    seq: int
    id: Any
    notification_seq: int
    channel: str
    device_seq: int | None
    code: str
    in_turn: bool
    updated_at: int
    release_at: int
    user_id: str
    kind: str
    channels: str
    category: str | None
    device_tokens: str | None
    expires_at: int | None
    read_at: int | None


class DueRelease:
    """Handlers for the writer; each answers with how many rows it moved: as long as it is many, call again."""

    def __init__(self, new_id: IdMaker, policy_inputs: PolicyInputLoader) -> None:
        self._new_id = new_id
        self._policy_inputs = policy_inputs
        self._latest: int | None = None

    def due(self, conn: sqlite3.Connection, now_ms: int) -> list[Step]:
        """Which of the steps below have something to do; a glance at four indexes, so that an idle second writes
        nothing."""
        steps: list[Step] = []
        if self._latest is None or now_ms < self._latest:  # else nothing can have been written later than now
            steps += [self.set_back] * conn.execute(_SET_BACK, {"now": now_ms}).fetchone()[0]
        self._latest = now_ms
        found = conn.execute(_DUE, {"now": now_ms}).fetchone()
        often = (self.scheduled, self.held, self.snoozed, self.expire)
        return steps + [step for step, due in zip(often, found, strict=True) if due or (steps and step == self.held)]

    def set_back(self, tx: Tx, items: Sequence[None]) -> list[int]:
        """The clock was set back: what waits for a moment reckoned by the old one waits as long from now. What a person
        or an app set a time for waits for that time."""
        now = tx.now_ms
        moved = 0
        for status, column in (("pending", "next_attempt_at"), ("sending", "lease_until")):
            rows = tx.conn.execute(
                f"UPDATE deliveries SET {column} = ?1 + MAX(0, {column} - updated_at), updated_at = ?1 "  # noqa: S608
                f"WHERE status = '{status}' AND {column} IS NOT NULL AND updated_at > ?1 RETURNING seq",
                (now,),
            ).fetchall()
            moved += len(rows)
        for row in tx.conn.execute(f"{_HELD} d.updated_at > ? LIMIT ?", (now, DUE_AT_ONCE)).fetchall():
            held = Held(*row)
            again = self._again(tx, held, anew=True)
            due = again.due if again.status == "held" and again.code == held.code else now
            if held.code == "failover":
                due = now + max(0, held.release_at - held.updated_at)
            tx.conn.execute("UPDATE deliveries SET release_at = ?, updated_at = ? WHERE seq = ?", (due, now, held.seq))
            moved += 1
        return [moved] * len(items)

    def scheduled(self, tx: Tx, items: Sequence[None]) -> list[int]:
        """Send what was scheduled for now; who gets it is decided now, not when it was scheduled."""
        rows = tx.conn.execute(
            f"SELECT {', '.join(Scheduled._fields)} FROM notifications WHERE status = 'scheduled' "  # noqa: S608
            "AND scheduled_at <= ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY scheduled_at, seq LIMIT ?",
            (tx.now_ms, tx.now_ms, DUE_AT_ONCE),
        ).fetchall()
        for row in rows:
            self._send(tx, Scheduled(*row))
        return [len(rows)] * len(items)

    def _send(self, tx: Tx, due: Scheduled) -> None:
        kind = read_type(tx.conn, due.notification_type)
        question = PolicyQuery(
            user_id=due.user_id,
            notification_type=due.notification_type,
            channels=from_strings(due.channels),
            kind=kind,
            category=due.category,
            device_tokens=from_strings(due.device_tokens) if due.device_tokens else None,
            expires_at=due.expires_at,
        )
        decisions = decide(self._policy_inputs.load(tx.conn, question, tx.now_ms))
        known = None
        if due.collapse_key is not None:
            known = find_open(tx.conn, due.user_id, due.app, due.collapse_key, decisions)
        if known is None:
            self._store(tx, due, decisions, kind, decisions, listed_at=tx.now_ms)
            return
        follows = follow(tx.conn, known, decisions)
        change = InPlace(due.title, due.message, due.data, due.actions, due.priority, due.expires_at)
        update_in_place(tx, known, due.user_id, change, follows, self._new_id)
        reason = f"It updated the notification {known.id} of the same collapse_key."
        stored = [Decision(channel, None, "suppressed", COLLAPSED, reason) for channel in question.channels]
        used = [f.decision for f in follows if f.change != "stays"]
        self._store(tx, due, stored, kind, used, listed_at=due.created_at)

    def _store(
        self,
        tx: Tx,
        due: Scheduled,
        decisions: Sequence[Decision],
        kind: NotificationType | None,
        used: Sequence[Decision],
        *,
        listed_at: int,
    ) -> None:
        """Store ``decisions`` as the notification's deliveries; ``used`` count against the throttle of its type."""
        if kind is not None:
            note_use(tx, due.user_id, kind, sorted({d.channel for d in used if d.status in {"pending", "held"}}))
        tx.conn.execute("DELETE FROM deliveries WHERE notification_seq = ?", (due.seq,))
        deliveries = [new_delivery(self._new_id, tx, due.seq, decision) for decision in decisions]
        table.insert_deliveries(tx, deliveries)
        ring(tx, deliveries)
        status = overall([d.status for d in decisions])
        arrived = tx.now_ms if status == "delivered" else None
        tx.conn.execute(
            "UPDATE notifications SET status = ?, inbox = ?, sent_at = ?, delivered_at = ?, listed_at = ?, "
            "revision = ? WHERE seq = ?",
            (
                status, inbox_place(decisions), arrived, arrived, listed_at, table.last_revision(tx.conn) + 1, due.seq,
            ),
        )  # fmt: skip
        tx.events.append(Event("notification.updated", decode_id(due.id), due.user_id, due.app))

    def held(self, tx: Tx, items: Sequence[None]) -> list[int]:
        """Let go of what was held until now, what waited for the same person and channel as one summary."""
        return [len(self._release(tx, _due(tx)))] * len(items)

    def _release(self, tx: Tx, rows: Sequence[Held]) -> list[tuple[Held, Decision]]:
        """Decide each of ``rows`` again and have it stand so."""
        decisions: list[tuple[Held, Decision]] = []
        together: dict[tuple[str, str, int | None], list[tuple[Held, Decision]]] = {}
        for held in rows:
            decision = self._again(tx, held)
            decisions.append((held, decision))
            if decision.status == "pending" and held.code in SUMMED_UP:
                together.setdefault((held.user_id, held.channel, held.device_seq), []).append((held, decision))
            else:
                redecide(tx, held.seq, decision, in_turn=held.in_turn or held.code == "failover")
                if decision.status == "pending":
                    wake(tx, decode_id(held.id))
        for group in together.values():
            carrier, decision = max(group, key=lambda pair: pair[0].notification_seq)
            redecide(tx, carrier.seq, decision)
            wake(tx, decode_id(carrier.id))
            for held, _ in group:
                if held.seq != carrier.seq:
                    bundle(tx, held.seq, carrier.seq, decision.route)
        told = {held.notification_seq for held in rows}
        for seq in told:
            next_in_chain(tx, seq)
        settle_all(tx, told)
        return decisions

    def _again(self, tx: Tx, held: Held, *, anew: bool = False) -> Decision:
        """The decision for one delivery as things stand now, what it was held for having had its say: not a second time
        the digest, which comes first of all, nor a fail-over chain in which its turn has come. ``anew``: as if it had
        not been held yet."""
        if held.read_at is not None:
            return Decision(held.channel, held.device_seq, "suppressed", "read_first", "It was read first.")
        in_turn = held.in_turn or held.code == "failover"
        channels = (held.channel,) if in_turn else from_strings(held.channels)
        question = PolicyQuery(
            user_id=held.user_id,
            notification_type=held.kind,
            channels=channels if held.channel in channels else (held.channel,),
            kind=read_type(tx.conn, held.kind),
            category=held.category,
            device_tokens=from_strings(held.device_tokens) if held.device_tokens else None,
            expires_at=held.expires_at,
            released=frozenset({"throttle"} | ({"failover"} if in_turn else set()) | (set() if anew else {"digest"})),
        )
        for decision in decide(self._policy_inputs.load(tx.conn, question, tx.now_ms)):
            if decision.channel != held.channel:
                continue
            if decision.device_seq == held.device_seq or decision.status == "suppressed":
                return decision._replace(device_seq=held.device_seq)
        return Decision(held.channel, held.device_seq, "failed", "no_device", "This device is not registered any more.")

    def expire(self, tx: Tx, items: Sequence[None]) -> list[int]:
        """Take what has expired unread out of the inbox and the outbox."""
        rows = tx.conn.execute(
            "SELECT seq, id, user_id, app FROM notifications WHERE expires_at <= ? "
            "AND status IN ('scheduled', 'pending', 'sent', 'delivered') AND inbox IS NOT 'archived' "
            "ORDER BY expires_at LIMIT ?",
            (tx.now_ms, DUE_AT_ONCE),
        ).fetchall()
        for seq, id_, user_id, app in rows:
            tx.conn.execute(
                "UPDATE notifications SET status = 'expired', inbox = NULL, snoozed_until = NULL, revision = ? "
                "WHERE seq = ?",
                (table.last_revision(tx.conn) + 1, seq),
            )
            hand_back(tx, seq, "expired", "It expired first.")
            withdraw(tx, seq, decode_id(id_), user_id, app)
            tx.events.append(Event("notification.updated", decode_id(id_), user_id, app))
        return [len(rows)] * len(items)

    def snoozed(self, tx: Tx, items: Sequence[None]) -> list[int]:
        """Put what was snoozed until now back among the unread."""
        rows = tx.conn.execute(
            "SELECT seq, id, user_id, app FROM notifications WHERE snoozed_until IS NOT NULL AND snoozed_until <= ? "
            "ORDER BY snoozed_until LIMIT ?",
            (tx.now_ms, DUE_AT_ONCE),
        ).fetchall()
        revision = table.last_revision(tx.conn)
        for offset, (seq, id_, user_id, app) in enumerate(rows, 1):
            tx.conn.execute(
                "UPDATE notifications SET inbox = 'unread', status = 'delivered', read_at = NULL, "
                "snoozed_until = NULL, listed_at = ?, revision = ? WHERE seq = ?",
                (tx.now_ms, revision + offset, seq),
            )
            tx.events.append(Event("notification.updated", decode_id(id_), user_id, app))
        return [len(rows)] * len(items)

    def stale_devices(self, tx: Tx, items: Sequence[None]) -> list[int]:
        """Stop pushing to tokens that no app has registered again for 270 days."""
        rows = tx.conn.execute(
            "UPDATE device_tokens SET is_active = 0 WHERE is_active AND platform <> 'desktop' AND updated_at < ? "
            "RETURNING id, user_id, app",
            (tx.now_ms - STALE_MS,),
        ).fetchall()
        for id_, user_id, app in rows:
            tx.events.append(Event("device", decode_id(id_), user_id, app))
        return [len(rows)] * len(items)

    def send_now(self, tx: Tx, items: Sequence[tuple[str, str | None]]) -> list[DigestRelease]:
        """(user, type or None): release what the user's digests hold, 2,500 deliveries at once; more follow within
        seconds."""
        return [self._send_digest(tx, user_id, kind) for user_id, kind in items]

    def _send_digest(self, tx: Tx, user_id: str, kind: str | None) -> DigestRelease:
        values = (user_id, kind, kind)
        rows = tx.conn.execute(f"{_HELD} d.code = 'digest' AND {_THEIRS} ORDER BY d.seq", values).fetchall()
        tx.conn.execute(
            "UPDATE deliveries SET release_at = ? WHERE seq IN (SELECT value FROM json_each(?))",
            (tx.now_ms, to_json([row[0] for row in rows])),
        )
        decisions = self._release(tx, [Held(*row) for row in rows[:TOGETHER]])
        stopped = [held.seq for held, decision in decisions if decision.status in {"suppressed", "failed"}]
        return DigestRelease(
            released=sum(decision.status == "pending" for _, decision in decisions),
            held_count=tx.conn.execute(f"SELECT COUNT(*) {_OF_HELD} AND {_THEIRS}", values).fetchone()[0],
            held=_unreleased(tx, f"d.status = 'held' AND {_THEIRS}", *values),
            stopped=_unreleased(tx, "d.seq IN (SELECT value FROM json_each(?))", to_json(stopped)),
        )


def _unreleased(tx: Tx, which: str, *values: object) -> tuple[Unreleased, ...]:
    rows = tx.conn.execute(f"{_UNRELEASED} WHERE {which} ORDER BY d.seq LIMIT {MOST_NAMED}", values)
    return tuple(
        Unreleased(
            notification_id=decode_id(id_),
            channel=channel,
            status=status,
            code=code,
            reason=reason,
            release_at=None if release_at is None else to_datetime(release_at),
        )
        for id_, channel, status, code, reason, release_at in rows
    )


def _due(tx: Tx) -> list[Held]:
    """What was held until now, a few hundred first, with all the rest of the same people: it makes one summary."""
    rows = tx.conn.execute(
        f"{_HELD} d.release_at <= ? ORDER BY d.release_at, d.seq LIMIT ?", (tx.now_ms, DUE_AT_ONCE)
    ).fetchall()
    first = [Held(*row) for row in rows]
    if len(first) < DUE_AT_ONCE:
        return first
    users = sorted({held.user_id for held in first})
    rows = tx.conn.execute(
        f"{_HELD} d.release_at <= ? AND n.user_id IN (SELECT value FROM json_each(?)) "  # noqa: S608
        "ORDER BY d.release_at, d.seq LIMIT ?",
        (tx.now_ms, to_json(users), TOGETHER),
    ).fetchall()
    return [Held(*row) for row in rows]
