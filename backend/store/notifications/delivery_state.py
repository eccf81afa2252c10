"""The state machine of a delivery: every transition of the ``deliveries`` table, with its SQL.

    (new)          -> delivered | pending | held | suppressed | failed    insert_deliveries: a decision of the policy
    held           -> decided again                                       redecide, bundle
    pending        -> sending                                             claim
    sending        -> sent | delivered | failed | dead | pending          record_attempts, give_back, recover_leases
    pending        -> suppressed | failed                                 cancel_obsolete, refuse_routes
    pending, held  -> suppressed                                          suppress_unsent: read, expired, cancelled
    failed, dead   -> decided again                                       redecide: a retry

A pending delivery is queued while ``next_attempt_at`` is set. Without it, it waits for its notification's scheduled
time or is bundled: the digest delivery ``carrier_seq`` sends it along and passes its outcome on. Services decide, this
module writes; every function with a ``tx`` runs in the writer's transaction. Times are milliseconds since 1970.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flashflow.backend.core.clock import IdMaker
from flashflow.backend.core.encoding import decode_id, encode_id, to_json
from flashflow.backend.core.events import Event
from flashflow.backend.domain.delivery_messages import AttemptResult, Outcome, overall
from flashflow.backend.domain.delivery_policy import Decision
from flashflow.backend.domain.preferences import may_use
from flashflow.backend.store.engine.sql import execute_rows
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.notifications import last_revision
from flashflow.backend.store.notifications.preferences import choices_of

AT_ONCE = 500
"""Deliveries changed in one transaction."""
INTERRUPTED = "interrupted"
"""The code of an attempt whose worker did not report back."""
INTERRUPTED_MOST = 8
"""Interrupted attempts after which a delivery is dead; some of them may have ended before they began."""

_ARRIVED = {"delivered", "sent"}
_STATUS = {"delivered": "delivered", "sent": "sent", "permanent": "failed", "token_dead": "failed"}
"""Outcome of an attempt -> status of its delivery; any other outcome is retried or ends as ``dead``."""
_QUEUED = "status = 'pending' AND next_attempt_at IS NOT NULL"
_IN = "IN (SELECT value FROM json_each(?))"


# --- decisions as rows ------------------------------------------------------------------------------------------------


class NewDelivery(NamedTuple):
    """A row to insert; ``next_attempt_at`` queues it, ``release_at`` holds it."""

    id: bytes
    notification_seq: int
    channel: str
    device_seq: int | None
    status: str
    code: str | None
    reason: str | None
    created_at: int
    updated_at: int
    next_attempt_at: int | None
    route: str
    release_at: int | None


_INSERT = f"INSERT INTO deliveries ({', '.join(NewDelivery._fields)}) VALUES {{rows}}"


def new_delivery(new_id: IdMaker, tx: Tx, notification_seq: int, decision: Decision) -> NewDelivery:
    """The row of one decision."""
    return NewDelivery(
        new_id.raw(), notification_seq, decision.channel, decision.device_seq, decision.status, decision.code,
        decision.reason, tx.now_ms, tx.now_ms, decision.due if decision.status == "pending" else None, decision.route,
        decision.due if decision.status == "held" else None,
    )  # fmt: skip


def insert_deliveries(tx: Tx, deliveries: Sequence[NewDelivery]) -> None:
    """Store deliveries of stored notifications and wake the outbox if one of them is queued."""
    execute_rows(tx.conn, _INSERT, deliveries)
    for delivery in deliveries:
        if delivery.next_attempt_at is not None:
            wake_outbox(tx, delivery.id)
            return


def replace_deliveries(tx: Tx, notification_seq: int, deliveries: Sequence[NewDelivery]) -> None:
    """Store a notification's deliveries in place of the earlier ones."""
    tx.conn.execute("DELETE FROM deliveries WHERE notification_seq = ?", (notification_seq,))
    insert_deliveries(tx, deliveries)


def redecide(tx: Tx, seq: int, decision: Decision, *, fresh: bool = False, in_turn: bool = False) -> None:
    """Apply a new decision to a stored delivery; its retry period starts with its next attempt.

    ``fresh`` resets the attempt count; ``in_turn`` marks a fail-over stage whose turn has come.
    """
    tx.conn.execute(
        "UPDATE deliveries SET status = ?, code = ?, reason = ?, device_seq = ?, route = ?, next_attempt_at = ?, "
        "release_at = ?, carrier_seq = NULL, lease_until = NULL, tried_since = NULL, retry_until = NULL, in_turn = ?, "
        "updated_at = ?, tries = CASE WHEN ? THEN 0 ELSE tries END WHERE seq = ?",
        (
            decision.status, decision.code, decision.reason, decision.device_seq, decision.route,
            decision.due if decision.status == "pending" else None,
            decision.due if decision.status == "held" else None, in_turn, tx.now_ms, fresh, seq,
        ),
    )  # fmt: skip


def wake_outbox(tx: Tx, delivery_id: bytes) -> None:
    """Publish that a delivery is due; ``delivery_id`` as stored."""
    tx.events.append(Event("outbox", decode_id(delivery_id)))


# --- the notification's status ----------------------------------------------------------------------------------------

_STATUSES = (
    "SELECT n.seq, n.id, n.user_id, n.app, group_concat(d.status) FROM notifications n "
    f"JOIN deliveries d ON d.notification_seq = n.seq WHERE n.seq {_IN} GROUP BY n.seq"
)
_SETTLE = (
    "WITH v (revision, status, now, seq) AS (VALUES {rows}) UPDATE notifications SET revision = v.revision, "
    "status = CASE WHEN notifications.status IN ('pending', 'sent', 'delivered', 'failed', 'suppressed') "
    "AND (expires_at IS NULL OR expires_at > v.now) THEN v.status ELSE notifications.status END, "
    "sent_at = CASE WHEN v.status IN ('sent', 'delivered') THEN COALESCE(sent_at, v.now) ELSE sent_at END, "
    "delivered_at = CASE WHEN v.status = 'delivered' THEN COALESCE(delivered_at, v.now) ELSE delivered_at END "
    "FROM v WHERE notifications.seq = v.seq"
)


def settle_notifications(tx: Tx, notification_seqs: Collection[int]) -> None:
    """Derive each notification's status from its deliveries and publish the change.

    A status set by its reader or sender (read, cancelled, …) stays, as does an expired notification's.
    """
    if not notification_seqs:
        return
    revision = last_revision(tx.conn)
    changes = []
    for seq, id_, user_id, app, statuses in tx.conn.execute(_STATUSES, (to_json(list(notification_seqs)),)).fetchall():
        revision += 1
        changes.append((revision, overall(statuses.split(",")), tx.now_ms, seq))
        tx.events.append(Event("notification.updated", decode_id(id_), user_id, app))
    execute_rows(tx.conn, _SETTLE, changes)


def _advance_and_settle(tx: Tx, notification_seqs: Collection[int]) -> None:
    """Advance the fail-over chains of changed notifications, then settle them."""
    for seq in notification_seqs:
        advance_failover(tx, seq)
    settle_notifications(tx, notification_seqs)


# --- fail-over chains -------------------------------------------------------------------------------------------------

_ADVANCE_FAILOVER = """
WITH stages AS (
    SELECT channel, status, code, release_at, status = 'held' AND code = 'failover' AS waits
    FROM deliveries WHERE notification_seq = ?2
), others AS (
    SELECT status FROM stages WHERE NOT waits
    AND (channel <> 'in_app' OR NOT EXISTS (SELECT 1 FROM stages WHERE NOT waits AND channel <> 'in_app'))
)
UPDATE deliveries SET release_at = ?1
WHERE notification_seq = ?2 AND status = 'held' AND code = 'failover' AND release_at > ?1
AND release_at = (SELECT MIN(release_at) FROM stages WHERE waits)
AND NOT EXISTS (SELECT 1 FROM others WHERE status IN ('pending', 'sending', 'sent', 'delivered', 'held'))
"""


def advance_failover(tx: Tx, notification_seq: int) -> None:
    """Make the next stage of a fail-over chain due if no other delivery can reach the user: see ``delivery_policy``."""
    tx.conn.execute(_ADVANCE_FAILOVER, (tx.now_ms, notification_seq))


# --- digests: one delivery carries others of the same user and channel ------------------------------------------------


def bundle(tx: Tx, seq: int, carrier_seq: int, route: str) -> None:
    """Send a delivery along with the digest delivery ``carrier_seq``."""
    tx.conn.execute(
        "UPDATE deliveries SET status = 'pending', code = 'in_summary', reason = 'On its way in a summary.', "
        "route = ?, next_attempt_at = NULL, release_at = NULL, carrier_seq = ?, updated_at = ? WHERE seq = ?",
        (route, carrier_seq, tx.now_ms, seq),
    )


def promote_next_carrier(tx: Tx, seq: int) -> None:
    """Queue the newest delivery bundled in ``seq``, which is not sent, as the carrier of the others."""
    following = tx.conn.execute(
        "SELECT seq, id FROM deliveries WHERE carrier_seq = ? AND status = 'pending' ORDER BY notification_seq DESC "
        "LIMIT 1",
        (seq,),
    ).fetchone()
    if following is None:
        return
    carrier, id_ = following
    tx.conn.execute(
        "UPDATE deliveries SET carrier_seq = ? WHERE carrier_seq = ? AND status = 'pending'", (carrier, seq)
    )
    tx.conn.execute(
        "UPDATE deliveries SET carrier_seq = NULL, code = 'queued', reason = 'On its way.', next_attempt_at = ?, "
        "updated_at = ? WHERE seq = ?",
        (tx.now_ms, tx.now_ms, carrier),
    )
    wake_outbox(tx, id_)


def _resolve_bundled(tx: Tx, seq: int, outcome: Outcome) -> list[int]:
    """Pass the final outcome of a digest delivery on to its bundled deliveries; return their notifications."""
    rows = tx.conn.execute(
        "UPDATE deliveries SET status = ?, code = 'in_summary', reason = ?, updated_at = ? WHERE carrier_seq = ? "
        "AND status = 'pending' RETURNING notification_seq",
        (_STATUS.get(outcome.outcome, "dead"), f"In a summary: {outcome.text}"[:400], tx.now_ms, seq),
    ).fetchall()
    return [notification_seq for (notification_seq,) in rows]


# --- held deliveries --------------------------------------------------------------------------------------------------


class HeldDelivery(NamedTuple):
    """A held delivery with the policy inputs of its notification; ``channels`` and ``device_tokens`` are JSON lists."""

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
    notification_type: str
    channels: str
    category: str | None
    device_tokens: str | None
    expires_at: int | None
    read_at: int | None


_JOINED = "FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq"
_HELD = (
    "SELECT d.seq, d.id, d.notification_seq, d.channel, d.device_seq, d.code, d.in_turn, d.updated_at, d.release_at, "
    "n.user_id, n.notification_type, n.channels, n.category, n.device_tokens, n.expires_at, n.read_at "
    f"{_JOINED} WHERE d.status = 'held' AND "
)
_OF_USER = "n.user_id = ? AND (? IS NULL OR n.notification_type = ?)"


def held_due(tx: Tx, most: int, together: int) -> list[HeldDelivery]:
    """Held deliveries whose time has come, at most ``most``; beyond it, up to ``together`` of the same users, so that
    what belongs into one digest is released in one transaction."""
    first = _held(tx, "d.release_at <= ? ORDER BY d.release_at, d.seq LIMIT ?", tx.now_ms, most)
    if len(first) < most:
        return first
    users = to_json(sorted({held.user_id for held in first}))
    which = f"d.release_at <= ? AND n.user_id {_IN} ORDER BY d.release_at, d.seq LIMIT ?"
    return _held(tx, which, tx.now_ms, users, together)


def held_in_future(tx: Tx) -> list[HeldDelivery]:
    """Held deliveries written after the present time: the clock was set back."""
    return _held(tx, "d.updated_at > ? LIMIT ?", tx.now_ms, AT_ONCE)


def held_by_digest(tx: Tx, user_id: str, notification_type: str | None) -> list[HeldDelivery]:
    """Deliveries that a user's digests hold, of one type or all."""
    return _held(tx, f"d.code = 'digest' AND {_OF_USER} ORDER BY d.seq", user_id, notification_type, notification_type)


def _held(tx: Tx, which: str, *values: object) -> list[HeldDelivery]:
    return [HeldDelivery(*row) for row in tx.conn.execute(_HELD + which, values).fetchall()]


def release_now(tx: Tx, seqs: Sequence[int]) -> None:
    """Make held deliveries due now."""
    tx.conn.execute(f"UPDATE deliveries SET release_at = ? WHERE seq {_IN}", (tx.now_ms, to_json(list(seqs))))


def re_evaluate_held(tx: Tx, user_id: str, code: str) -> None:
    """Make a user's deliveries held for this reason due now, so that they are decided again."""
    tx.conn.execute(
        "UPDATE deliveries SET release_at = ? WHERE status = 'held' AND code = ? AND EXISTS "
        "(SELECT 1 FROM notifications n WHERE n.seq = notification_seq AND n.user_id = ?)",
        (tx.now_ms, code, user_id),
    )


def apply_release(tx: Tx, released: Sequence[tuple[HeldDelivery, Decision]], digests: Collection[str]) -> None:
    """Apply the new decisions of held deliveries.

    Deliveries held for a reason among ``digests`` and pending now are bundled by user, channel and device; the one of
    the newest notification carries the others.
    """
    groups: dict[tuple[str, str, int | None], list[tuple[HeldDelivery, Decision]]] = {}
    for held, decision in released:
        if decision.status == "pending" and held.code in digests:
            groups.setdefault((held.user_id, held.channel, held.device_seq), []).append((held, decision))
            continue
        redecide(tx, held.seq, decision, in_turn=held.in_turn or held.code == "failover")
        if decision.status == "pending":
            wake_outbox(tx, held.id)
    for group in groups.values():
        carrier, decision = max(group, key=lambda pair: pair[0].notification_seq)
        redecide(tx, carrier.seq, decision)
        wake_outbox(tx, carrier.id)
        for held, _ in group:
            if held.seq != carrier.seq:
                bundle(tx, held.seq, carrier.seq, decision.route)
    _advance_and_settle(tx, {held.notification_seq for held, _ in released})


# --- a clock that was set back ----------------------------------------------------------------------------------------


def shift_waits(tx: Tx) -> int:
    """Shift waits written by a clock that was ahead so that as much of each is left as then; return how many."""
    moved = 0
    for status, column in (("pending", "next_attempt_at"), ("sending", "lease_until")):
        rows = tx.conn.execute(
            f"UPDATE deliveries SET {column} = ?1 + MAX(0, {column} - updated_at), updated_at = ?1 "
            f"WHERE status = '{status}' AND {column} IS NOT NULL AND updated_at > ?1 RETURNING seq",
            (tx.now_ms,),
        ).fetchall()
        moved += len(rows)
    return moved


def shift_held(tx: Tx, seq: int, release_at: int) -> None:
    """Hold a delivery written by a clock that was ahead until ``release_at``."""
    tx.conn.execute("UPDATE deliveries SET release_at = ?, updated_at = ? WHERE seq = ?", (release_at, tx.now_ms, seq))


# --- deliveries that must not be sent any more ------------------------------------------------------------------------


class Cancellation(NamedTuple):
    """The final state of a delivery that is not sent any more."""

    status: str
    code: str
    reason: str


_CANCEL_COLUMNS = (
    "n.status, n.expires_at, CASE WHEN n.inbox IN ('archived', 'snoozed') THEN n.inbox "
    "WHEN n.read_at IS NOT NULL THEN 'read' END, d.channel, "
    "d.device_seq IS NULL OR (t.user_id = n.user_id AND t.is_active), "
    "CASE d.channel WHEN 'email' THEN c.email IS NOT NULL WHEN 'sms' THEN c.phone IS NOT NULL ELSE 1 END, "
    "EXISTS (SELECT 1 FROM notification_preferences p WHERE p.user_id = n.user_id AND NOT p.enabled), "
    "n.user_id, n.notification_type, COALESCE(k.category, n.category)"
)
"""Inputs of ``_cancellation_of`` for a delivery ``d``, its notification ``n`` and _WITH_RECIPIENT."""
_WIDTH = 10
"""The number of _CANCEL_COLUMNS."""
_WITH_RECIPIENT = (
    f"{_JOINED} LEFT JOIN device_tokens t ON t.seq = d.device_seq LEFT JOIN contacts c ON c.user_id = n.user_id "
    "LEFT JOIN notification_types k ON k.name = n.notification_type"
)
_WITH_BUNDLED = (
    f"SELECT {_CANCEL_COLUMNS}, d.seq {_WITH_RECIPIENT} WHERE d.seq IN (SELECT value FROM json_each(?1)) "
    "OR (d.carrier_seq IN (SELECT value FROM json_each(?1)) AND d.status = 'pending')"
)
_ADDRESS = {"email": "e-mail address", "sms": "phone number"}


def _cancellation_of(conn: sqlite3.Connection, row: tuple[Any, ...], now_ms: int) -> Cancellation | None:
    """The reason against sending a row of _CANCEL_COLUMNS; None where it may be sent."""
    status, expires_at, dealt_with, channel, has_device, has_address, chose, user_id, kind, category = row
    if status == "cancelled":
        return Cancellation("suppressed", "cancelled", "It was cancelled.")
    if status == "expired" or (expires_at is not None and expires_at <= now_ms):
        return Cancellation("suppressed", "expired", "It expired first.")
    if dealt_with and channel == "push":
        code = "read_first" if dealt_with == "read" else dealt_with
        return Cancellation("suppressed", code, f"It was {dealt_with} first.")
    verdict = may_use(choices_of(conn, user_id), kind, channel, category) if chose else None
    if verdict is not None and not verdict.allowed:
        return Cancellation("suppressed", verdict.code, verdict.reason)
    return _unreachable(channel, has_device, has_address)


def _unreachable(channel: str, has_device: bool, has_address: bool) -> Cancellation | None:
    if not has_device:  # removed, reported dead, or registered by another user
        return Cancellation("failed", "no_device", "This device is not registered any more.")
    if not has_address:
        return Cancellation("failed", "no_address", f"The user has no {_ADDRESS[channel]} any more.")
    return None


def _cancellations(tx: Tx, seqs: Collection[int]) -> dict[int, Cancellation]:
    """Find those of these deliveries, and of the ones bundled in them, that must not be sent any more."""
    if not seqs:
        return {}
    rows = tx.conn.execute(_WITH_BUNDLED, (to_json(list(seqs)),)).fetchall()
    found = ((row[_WIDTH], _cancellation_of(tx.conn, row[:_WIDTH], tx.now_ms)) for row in rows)
    return {seq: cancellation for seq, cancellation in found if cancellation is not None}


def _cancel(tx: Tx, cancellations: Mapping[int, Cancellation]) -> list[int]:
    """End these deliveries; deliveries bundled in them are sent without them. Return their notifications."""
    for seq, cancellation in cancellations.items():
        tx.conn.execute(
            "UPDATE deliveries SET status = ?, code = ?, reason = ?, next_attempt_at = NULL, lease_until = NULL, "
            "updated_at = ? WHERE seq = ?",
            (*cancellation, tx.now_ms, seq),
        )
        promote_next_carrier(tx, seq)
    rows = tx.conn.execute(
        f"SELECT DISTINCT notification_seq FROM deliveries WHERE seq {_IN}", (to_json(list(cancellations)),)
    )
    return [notification_seq for (notification_seq,) in rows]


def re_evaluate_queued(tx: Tx, user_ids: Collection[str]) -> None:
    """Re-evaluate queued deliveries after users changed preferences or contacts, bundled ones included.

    A delivery that is being sent is re-evaluated when its attempt has failed.
    """
    seqs = [
        seq
        for (seq,) in tx.conn.execute(
            f"SELECT d.seq {_JOINED} WHERE d.status = 'pending' AND d.next_attempt_at IS NOT NULL AND n.user_id {_IN}",
            (to_json(sorted(user_ids)),),
        )
    ]
    _advance_and_settle(tx, _cancel(tx, _cancellations(tx, seqs)))


def suppress_unsent(tx: Tx, notification_seq: int, code: str, reason: str, *, only_interrupting: bool = False) -> None:
    """Suppress a notification's pending and held deliveries; ``only_interrupting``: held ones and push alone."""
    only = "status = 'held' OR channel = 'push'" if only_interrupting else "1"
    rows = tx.conn.execute(
        "UPDATE deliveries SET status = 'suppressed', code = ?, reason = ?, next_attempt_at = NULL, "
        "release_at = NULL, carrier_seq = NULL, updated_at = ? WHERE notification_seq = ? "
        f"AND status IN ('pending', 'held') AND ({only}) RETURNING seq",
        (code, reason, tx.now_ms, notification_seq),
    ).fetchall()
    for (seq,) in rows:
        promote_next_carrier(tx, seq)


def has_external_delivery(tx: Tx, notification_seq: int) -> bool:
    """Whether a notification has a delivery outside the inbox."""
    sql = "SELECT 1 FROM deliveries WHERE notification_seq = ? AND route <> ''"
    return tx.conn.execute(sql, (notification_seq,)).fetchone() is not None


def dismiss_toast(tx: Tx, notification_seq: int, notification_id: str, user_id: str, app: str) -> None:
    """Publish that this computer's toast must disappear, where one was or is being shown."""
    if tx.conn.execute(
        "SELECT 1 FROM deliveries WHERE notification_seq = ? AND route = 'desktop' "
        "AND status IN ('sending', 'sent', 'delivered')",
        (notification_seq,),
    ).fetchone():
        tx.events.append(Event("toast.dismissed", notification_id, user_id, app))


# --- claims and leases ------------------------------------------------------------------------------------------------


class ClaimedRow(NamedTuple):
    """A delivery that was claimed: its state before, and the columns asked for."""

    tries: int
    due_at: int
    tried_since: int | None
    previous_code: str | None
    columns: tuple[Any, ...]


_DUE = (
    f"SELECT seq FROM deliveries WHERE {_QUEUED} AND route = ? AND next_attempt_at <= ? "
    "ORDER BY next_attempt_at LIMIT ?"
)
_CLAIM = (
    "UPDATE deliveries SET status = 'sending', lease_until = ?, tries = tries + 1, updated_at = ? "
    f"WHERE seq {_IN} RETURNING seq, tries, next_attempt_at, tried_since, code"
)


def claim(tx: Tx, route: str, count: int, lease_ms: int, columns: str) -> list[ClaimedRow]:
    """Claim up to ``count`` due deliveries of a route, the first due first, and cancel obsolete ones on the way.

    ``columns``: SQL over the delivery ``d``, its notification ``n``, device ``t``, contacts ``c`` and type ``k``.
    """
    due = _sendable(tx, route, count, columns)
    if not due:
        return []
    seqs = to_json([row[_WIDTH] for row in due])
    claimed = {seq: before for seq, *before in tx.conn.execute(_CLAIM, (tx.now_ms + lease_ms, tx.now_ms, seqs))}
    return [ClaimedRow._make((*claimed[row[_WIDTH]], row[_WIDTH + 1 :])) for row in due]


def _sendable(tx: Tx, route: str, count: int, columns: str) -> list[tuple[Any, ...]]:
    sql = (
        f"SELECT {_CANCEL_COLUMNS}, d.seq, {columns} {_WITH_RECIPIENT} WHERE d.seq IN ({_DUE}) "
        "ORDER BY d.next_attempt_at"
    )
    for limit in (count, AT_ONCE, AT_ONCE):
        rows = tx.conn.execute(sql, (route, tx.now_ms, limit)).fetchall()
        found = ((row[_WIDTH], _cancellation_of(tx.conn, row[:_WIDTH], tx.now_ms)) for row in rows)
        obsolete = {seq: cancellation for seq, cancellation in found if cancellation is not None}
        if obsolete:
            _advance_and_settle(tx, _cancel(tx, obsolete))
        sendable = [row for row in rows if row[_WIDTH] not in obsolete][:count]
        if sendable or not rows:
            return sendable
    return []


def give_back(tx: Tx, delivery_ids: Iterable[str]) -> None:
    """Queue claimed deliveries again that were not attempted."""
    tx.conn.executemany(
        "UPDATE deliveries SET status = 'pending', lease_until = NULL, tries = tries - 1, updated_at = ? "
        "WHERE id = ? AND status = 'sending'",
        [(tx.now_ms, encode_id(delivery_id)) for delivery_id in delivery_ids],
    )


_LOST = Outcome(
    outcome="transient",
    code=INTERRUPTED,
    text="FlashFlow stopped before the answer came; this try may have arrived.",
)
_EXPIRED_LEASES = (
    "SELECT seq, notification_seq, tries, tried_since, updated_at FROM deliveries "
    "WHERE status = 'sending' AND lease_until <= ? ORDER BY lease_until, seq LIMIT ?"
)
_INTERRUPTIONS = (
    "SELECT COUNT(*) FROM delivery_attempts WHERE delivery_seq = ? AND code = ? AND started_at >= COALESCE(?, 0)"
)
_RECOVER = (
    # The due time stays: the time until this start must not count towards the delivery's age.
    "UPDATE deliveries SET status = ?1, code = ?2, reason = ?3, lease_until = NULL, updated_at = ?4, "
    "next_attempt_at = CASE ?1 WHEN 'dead' THEN NULL ELSE MIN(COALESCE(next_attempt_at, ?4), ?4) END WHERE seq = ?5"
)


def recover_leases(tx: Tx, *, all_leases: bool) -> int:
    """Queue deliveries whose lease has expired, or all that are being sent; return how many."""
    until = 2**62 if all_leases else tx.now_ms
    rows: list[Any] = tx.conn.execute(_EXPIRED_LEASES, (until, AT_ONCE)).fetchall()
    queued: list[int] = []
    changed: dict[int, None] = {}
    for seq, notification_seq, tries, tried_since, claimed_at in rows:
        (before,) = tx.conn.execute(_INTERRUPTIONS, (seq, INTERRUPTED, tried_since)).fetchone()
        dead = min(tries, before + 1) >= INTERRUPTED_MOST
        lasted, next_try_at = max(0, tx.now_ms - claimed_at), None if dead else tx.now_ms
        attempt = (seq, claimed_at, lasted, _LOST.outcome, _LOST.code, _LOST.text, next_try_at)
        execute_rows(tx.conn, _ATTEMPT, [attempt])
        tx.conn.execute(_RECOVER, ("dead" if dead else "pending", _LOST.code, _LOST.text, tx.now_ms, seq))
        changed[notification_seq] = None
        if dead:
            changed |= dict.fromkeys(_resolve_bundled(tx, seq, _LOST))
        else:
            queued.append(seq)
    changed |= dict.fromkeys(_cancel(tx, _cancellations(tx, queued)))
    _advance_and_settle(tx, changed)
    return len(rows)


_UNCONFIGURED = Outcome(outcome="permanent", code="not_configured", text="This channel is not configured any more.")


def refuse_routes(tx: Tx, routes: Sequence[str]) -> int:
    """Fail queued deliveries whose route is not among ``routes``; return how many."""
    rows = tx.conn.execute(
        "UPDATE deliveries SET status = 'failed', code = ?, reason = ?, next_attempt_at = NULL, updated_at = ? "
        f"WHERE seq IN (SELECT seq FROM deliveries WHERE {_QUEUED} "
        "AND route NOT IN (SELECT value FROM json_each(?)) LIMIT ?) RETURNING seq, notification_seq",
        (_UNCONFIGURED.code, _UNCONFIGURED.text, tx.now_ms, to_json(routes), AT_ONCE),
    ).fetchall()
    changed = {notification_seq for _, notification_seq in rows}
    for seq, _ in rows:
        changed.update(_resolve_bundled(tx, seq, _UNCONFIGURED))
    _advance_and_settle(tx, changed)
    return len(rows)


_HASTEN = (
    "UPDATE deliveries SET next_attempt_at = ?1 WHERE seq IN (SELECT seq FROM deliveries "
    f"WHERE {_QUEUED} AND route = ?2 AND next_attempt_at > ?1 AND code IN (SELECT value FROM json_each(?3)) LIMIT ?4)"
)


def hasten(tx: Tx, route: str, codes: Sequence[str]) -> int:
    """Make due now the deliveries of a route whose last attempt failed with one of ``codes``; return how many."""
    return tx.conn.execute(_HASTEN, (tx.now_ms, route, to_json(list(codes)), AT_ONCE)).rowcount


# --- attempts ---------------------------------------------------------------------------------------------------------

_ATTEMPT = (
    "INSERT INTO delivery_attempts (delivery_seq, started_at, duration_ms, outcome, code, text, next_try_at) "
    "VALUES {rows}"
)
_MOVE = (
    "WITH v (status, code, reason, retry_at, retry_until, since, now, seq) AS (VALUES {rows}) "
    "UPDATE deliveries SET status = v.status, code = v.code, reason = v.reason, next_attempt_at = v.retry_at, "
    "retry_until = v.retry_until, tried_since = v.since, lease_until = NULL, updated_at = v.now "
    "FROM v WHERE deliveries.seq = v.seq"
)
_ATTEMPTED = (
    "SELECT id, seq, notification_seq, device_seq, status, code, "
    "EXISTS (SELECT 1 FROM deliveries c WHERE c.carrier_seq = deliveries.seq) FROM deliveries WHERE id IN "
)


def record_attempts(tx: Tx, attempts: Sequence[AttemptResult]) -> None:
    """Store attempts and their effect on delivery, digest, device and notification; skip erased deliveries.

    A delivery with a ``retry`` is queued again, one without is final.
    """
    by_id = {encode_id(attempt.delivery_id): attempt for attempt in attempts}
    if len(by_id) < len(attempts):  # a lease expired too early and a second worker claimed the same delivery
        for attempt in attempts:
            record_attempts(tx, [attempt])
        return
    if not attempts:
        return
    # A fixed number of statements for the whole group: each one releases the interpreter to a dozen waiting workers.
    rows = tx.conn.execute(f"{_ATTEMPTED} ({','.join('?' * len(by_id))})", list(by_id)).fetchall()
    moves = _move_attempted(tx, [(row, by_id[row[0]]) for row in rows])
    changed: dict[int, None] = {}
    queued = [seq for seq, status in moves.items() if status == "pending"]
    missed = dict.fromkeys(_cancel(tx, _cancellations(tx, queued)) if queued else ())
    for id_, seq, notification_seq, device_seq, _, _, carries in rows:
        attempt = by_id[id_]
        touched = {notification_seq: None}
        if carries and seq in moves and attempt.retry is None:
            touched |= dict.fromkeys(_resolve_bundled(tx, seq, attempt.outcome))
        if device_seq is not None:
            _update_device(tx, device_seq, attempt)
        changed |= touched
        if attempt.outcome.outcome not in _ARRIVED:
            missed |= touched
    for notification_seq in missed:
        advance_failover(tx, notification_seq)
    settle_notifications(tx, changed | missed)


def _move_attempted(tx: Tx, rows: Sequence[tuple[tuple[Any, ...], AttemptResult]]) -> dict[int, str]:
    """Store attempts and move their deliveries; return ``seq`` -> new status of those that moved."""
    attempts, moves = [], {}
    for (_, seq, _, _, status, code, _), attempt in rows:
        outcome, retry = attempt.outcome, attempt.retry
        retry_at, until, since = (retry.at, retry.until, retry.since) if retry is not None else (None, None, None)
        attempts.append(
            (seq, attempt.started_at, attempt.duration_ms, outcome.outcome, outcome.code, outcome.text, retry_at)
        )
        if status == "sending" or (code == INTERRUPTED and outcome.outcome in _ARRIVED):  # it arrived after all
            after = _STATUS.get(outcome.outcome) or ("dead" if retry is None else "pending")
            moves[seq] = (after, outcome.code, outcome.text, retry_at, until, since, tx.now_ms, seq)
    execute_rows(tx.conn, _ATTEMPT, attempts)
    execute_rows(tx.conn, _MOVE, list(moves.values()))
    return {seq: move[0] for seq, move in moves.items()}


def _update_device(tx: Tx, device_seq: int, attempt: AttemptResult) -> None:
    if attempt.outcome.outcome == "token_dead":  # unless it was registered again during the attempt
        tx.conn.execute(
            "UPDATE device_tokens SET is_active = 0, updated_at = ? WHERE seq = ? AND updated_at <= ?",
            (tx.now_ms, device_seq, attempt.started_at),
        )
    elif attempt.outcome.outcome in _ARRIVED:
        tx.conn.execute("UPDATE device_tokens SET last_used_at = ? WHERE seq = ?", (tx.now_ms, device_seq))


# --- retries ----------------------------------------------------------------------------------------------------------


class Retriable(NamedTuple):
    """A failed or dead delivery, or one that waits between two attempts (pending)."""

    seq: int
    id: Any
    channel: str
    device_seq: int | None
    status: str


def retriable(tx: Tx, notification_seq: int) -> list[Retriable]:
    """The deliveries of a notification that a retry applies to."""
    rows = tx.conn.execute(
        "SELECT seq, id, channel, device_seq, status FROM deliveries WHERE notification_seq = ? AND channel <> "
        "'in_app' AND (status IN ('failed', 'dead') OR (status = 'pending' AND tries > 0))",
        (notification_seq,),
    )
    return [Retriable(*row) for row in rows.fetchall()]


def retry_now(tx: Tx, seq: int) -> None:
    """End a pending delivery's wait between two attempts."""
    tx.conn.execute("UPDATE deliveries SET next_attempt_at = ? WHERE seq = ? AND carrier_seq IS NULL", (tx.now_ms, seq))
