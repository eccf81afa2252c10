"""The state machine of a delivery: every transition of the ``deliveries`` table, with its SQL.

    (new)          -> delivered | pending | held | suppressed | failed    insert_deliveries: a decision of the policy
    held           -> decided again                                       redecide, bundle
    pending        -> sending                                             claim
    sending        -> sent | delivered | failed | dead | pending          record_attempts, give_back, recover_leases
    pending        -> suppressed | failed                                 cancel_obsolete, refuse_routes
    pending, held  -> suppressed                                          suppress_unsent: read, expired, cancelled
    failed, dead   -> decided again                                       redecide: a retry

A pending delivery is queued while ``next_attempt_at`` is set. Without it, it waits for its notification's scheduled
time or is bundled: the digest delivery ``digest_seq`` sends it along and passes its outcome on. Services decide, this
module writes; every function with a ``tx`` runs in the writer's transaction. Times are milliseconds since 1970.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from peewee import JOIN, SQL, Case, ModelSelect, Query, fn

from flashflow.backend.core.clock import IdMaker
from flashflow.backend.core.encoding import decode_id, encode_id
from flashflow.backend.core.events import Event
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.delivery_messages import AttemptResult, Outcome, overall
from flashflow.backend.domain.delivery_policy import Decision
from flashflow.backend.domain.preferences import may_use
from flashflow.backend.store.engine.statement import (
    Statement,
    TextStatement,
    among,
    any_or_same,
    as_stored,
    columns,
    slot,
    slots,
    variants,
)
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import models
from flashflow.backend.store.notifications.notifications import NOTIFICATION_REVISIONS
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

_D, _N = models.Delivery, models.Notification
_A, _T, _C = models.DeliveryAttempt, models.DeviceToken, models.Contact
_K, _P = models.NotificationType, models.NotificationPreference
_THIS = _D.seq == slot("seq")
_OF_NOTIFICATION = _D.notification_seq == slot("notification")
_PENDING, _HELD = _D.status == "pending", _D.status == "held"
_QUEUED = _PENDING & _D.next_attempt_at.is_null(False)
_WITH_NOTIFICATION = _N.seq == _D.notification_seq


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


_INSERT = Statement(lambda: _D.insert({getattr(_D, name): slot(name) for name in NewDelivery._fields}))
_DELETE = Statement(lambda: _D.delete().where(_OF_NOTIFICATION))
_REDECIDE = Statement(
    lambda: _D.update(
        {
            **slots(
                _D.status, _D.code, _D.reason, _D.device_seq, _D.route, _D.next_attempt_at, _D.release_at,
                _D.failed_over, _D.updated_at,
            ),
            **dict.fromkeys((_D.digest_seq, _D.lease_until, _D.tried_since, _D.retry_until)),
            _D.tries: Case(None, [(slot("fresh"), 0)], _D.tries),
        }
    ).where(_THIS)
)  # fmt: skip


def new_delivery(new_id: IdMaker, tx: Tx, notification_seq: int, decision: Decision) -> NewDelivery:
    """The row of one decision."""
    return NewDelivery(
        new_id.raw(), notification_seq, decision.channel, decision.device_seq, decision.status, decision.code,
        decision.reason, tx.now_ms, tx.now_ms, decision.due if decision.status == "pending" else None, decision.route,
        decision.due if decision.status == "held" else None,
    )  # fmt: skip


def insert_deliveries(tx: Tx, deliveries: Sequence[NewDelivery]) -> None:
    """Store deliveries of stored notifications and wake the outbox if one of them is queued."""
    _INSERT.many(tx.conn, deliveries)
    for delivery in deliveries:
        if delivery.next_attempt_at is not None:
            wake_outbox(tx, decode_id(delivery.id))
            return


def replace_deliveries(tx: Tx, notification_seq: int, deliveries: Sequence[NewDelivery]) -> None:
    """Store a notification's deliveries in place of the earlier ones."""
    _DELETE.run(tx.conn, notification=notification_seq)
    insert_deliveries(tx, deliveries)


def redecide(tx: Tx, seq: int, decision: Decision, *, fresh: bool = False, failed_over: bool = False) -> None:
    """Apply a new decision to a stored delivery; its retry period starts with its next attempt.

    ``fresh`` resets the attempt count; ``failed_over`` marks a fail-over stage whose time has come.
    """
    _REDECIDE.run(
        tx.conn,
        seq=seq,
        status=decision.status,
        code=decision.code,
        reason=decision.reason,
        device_seq=decision.device_seq,
        route=decision.route,
        next_attempt_at=decision.due if decision.status == "pending" else None,
        release_at=decision.due if decision.status == "held" else None,
        failed_over=failed_over,
        updated_at=tx.now_ms,
        fresh=fresh,
    )


def wake_outbox(tx: Tx, delivery_id: str) -> None:
    """Publish that a delivery is due."""
    tx.events.append(Event("outbox", delivery_id))


# --- the notification's status ----------------------------------------------------------------------------------------


class _Statuses(NamedTuple):
    """A notification with the statuses of its deliveries, joined by commas."""

    seq: int
    id: str
    user_id: str
    app: str
    statuses: str


_STATUSES = Statement(
    lambda: (
        _N.select(_N.seq, _N.id, _N.user_id, _N.app, fn.GROUP_CONCAT(_D.status).alias("statuses"))
        .join(_D, on=_WITH_NOTIFICATION)
        .where(among(_N.seq, "seqs"))
        .group_by(_N.seq)
    ),
    _Statuses,
)
_SETTLE = TextStatement(
    "WITH v (revision, status, now, seq) AS (VALUES {rows:revision, status, now, seq}) "
    "UPDATE notifications SET revision = v.revision, "
    "status = CASE WHEN notifications.status IN ('pending', 'sent', 'delivered', 'failed', 'suppressed') "
    "AND (expires_at IS NULL OR expires_at > v.now) THEN v.status ELSE notifications.status END, "
    "sent_at = CASE WHEN v.status IN ('sent', 'delivered') THEN COALESCE(sent_at, v.now) ELSE sent_at END, "
    "delivered_at = CASE WHEN v.status = 'delivered' THEN COALESCE(delivered_at, v.now) ELSE delivered_at END "
    "FROM v WHERE notifications.seq = v.seq",
    reason="UPDATE FROM VALUES",
)


def settle_notifications(tx: Tx, notification_seqs: Collection[int]) -> None:
    """Derive each notification's status from its deliveries and publish the change.

    A status set by its reader or sender (read, cancelled, …) stays, as does an expired notification's.
    """
    if not notification_seqs:
        return
    changes = []
    rows = _STATUSES.all(tx.conn, seqs=list(notification_seqs))
    for row, revision in zip(rows, NOTIFICATION_REVISIONS.following(tx.conn), strict=False):
        changes.append((revision, overall(row.statuses.split(",")), tx.now_ms, row.seq))
        tx.events.append(Event("notification.updated", row.id, row.user_id, row.app))
    _SETTLE.many(tx.conn, changes)


def _advance_and_settle(tx: Tx, notification_seqs: Collection[int]) -> None:
    """Advance the fail-over chains of changed notifications, then settle them."""
    for seq in notification_seqs:
        advance_failover(tx, seq)
    settle_notifications(tx, notification_seqs)


# --- fail-over chains -------------------------------------------------------------------------------------------------

_OTHER, _EXTERNAL = _D.alias("other"), _D.alias("external")
_STAGE = _D.alias("stage")


def _waits(delivery: Any) -> Any:
    """Build the condition that ``delivery`` is a stage whose turn has not come."""
    return (delivery.status == "held") & (delivery.code == "failover")


_ADVANCE_FAILOVER = Statement(
    lambda: _D.update({_D.release_at: slot("now")}).where(
        _OF_NOTIFICATION,
        _waits(_D),
        _D.release_at > slot("now"),
        _D.release_at
        == _STAGE.select(fn.MIN(_STAGE.release_at)).where(
            _STAGE.notification_seq == slot("notification"), _waits(_STAGE)
        ),
        ~fn.EXISTS(
            _OTHER.select(SQL("1")).where(
                _OTHER.notification_seq == slot("notification"),
                ~_waits(_OTHER),
                _OTHER.status.in_(("pending", "sending", "sent", "delivered", "held")),
                # The inbox alone does not end a chain, unless it has no other channel.
                (_OTHER.channel != "in_app")
                | ~fn.EXISTS(
                    _EXTERNAL.select(SQL("1")).where(
                        _EXTERNAL.notification_seq == slot("notification"),
                        ~_waits(_EXTERNAL),
                        _EXTERNAL.channel != "in_app",
                    )
                ),
            )
        ),
    )
)


def advance_failover(tx: Tx, notification_seq: int) -> None:
    """Make the next stage of a fail-over chain due if no other delivery can reach the user: see ``delivery_policy``."""
    _ADVANCE_FAILOVER.run(tx.conn, now=tx.now_ms, notification=notification_seq)


# --- digests: one delivery bundles others of the same user and channel ------------------------------------------------


class _Bundled(NamedTuple):
    seq: int
    id: str


_IN_BUNDLE = (_D.digest_seq == slot("digest")) & _PENDING
_BUNDLE = Statement(
    lambda: _D.update(
        {
            _D.status: "pending",
            _D.code: "in_summary",
            _D.reason: "On its way in a summary.",
            _D.next_attempt_at: None,
            _D.release_at: None,
            **slots(_D.route, _D.digest_seq, _D.updated_at),
        }
    ).where(_THIS)
)
_NEXT_DIGEST = Statement(
    lambda: _D.select(*columns(_D, _Bundled)).where(_IN_BUNDLE).order_by(_D.notification_seq.desc()).limit(1), _Bundled
)
_CHANGE_DIGEST = Statement(lambda: _D.update(slots(_D.digest_seq)).where(_IN_BUNDLE))
_PROMOTE = Statement(
    lambda: _D.update(
        {
            _D.digest_seq: None,
            _D.code: "queued",
            _D.reason: "On its way.",
            _D.next_attempt_at: slot("now"),
            _D.updated_at: slot("now"),
        }
    ).where(_THIS)
)
_RESOLVE = Statement(
    lambda: (
        _D.update({**slots(_D.status, _D.reason, _D.updated_at), _D.code: "in_summary"})
        .where(_IN_BUNDLE)
        .returning(_D.notification_seq)
    )
)


def bundle(tx: Tx, seq: int, digest_seq: int, route: str) -> None:
    """Send a delivery along with the digest delivery ``digest_seq``."""
    _BUNDLE.run(tx.conn, seq=seq, route=route, digest_seq=digest_seq, updated_at=tx.now_ms)


def promote_next_digest(tx: Tx, seq: int) -> None:
    """Queue the newest delivery bundled in ``seq``, which is not sent, as the digest of the others."""
    following = _NEXT_DIGEST.one(tx.conn, digest=seq)
    if following is None:
        return
    _CHANGE_DIGEST.run(tx.conn, digest=seq, digest_seq=following.seq)
    _PROMOTE.run(tx.conn, seq=following.seq, now=tx.now_ms)
    wake_outbox(tx, following.id)


def _resolve_bundled(tx: Tx, seq: int, outcome: Outcome) -> list[int]:
    """Pass the final outcome of a digest delivery on to its bundled deliveries; return their notifications."""
    rows = _RESOLVE.all(
        tx.conn,
        digest=seq,
        status=_STATUS.get(outcome.outcome, "dead"),
        reason=f"In a summary: {outcome.text}"[:400],
        updated_at=tx.now_ms,
    )
    return [notification_seq for (notification_seq,) in rows]


# --- held deliveries --------------------------------------------------------------------------------------------------


class HeldDelivery(NamedTuple):
    """A held delivery with the policy inputs of its notification."""

    seq: int
    id: str
    notification_seq: int
    channel: str
    device_seq: int | None
    code: str
    failed_over: bool
    updated_at: int
    release_at: int
    user_id: str
    notification_type: str
    channels: tuple[str, ...]
    category: str | None
    device_tokens: tuple[str, ...] | None
    expires_at: int | None
    read_at: int | None


_HELD_ROWS = (
    _D.select(
        _D.seq, _D.id, _D.notification_seq, _D.channel, _D.device_seq, _D.code, _D.failed_over, _D.updated_at,
        _D.release_at, _N.user_id, _N.notification_type, _N.channels, _N.category, _N.device_tokens, _N.expires_at,
        _N.read_at,
    )
    .join(_N, on=_WITH_NOTIFICATION)
    .where(_HELD)
)  # fmt: skip
_FIRST_DUE = _HELD_ROWS.where(_D.release_at <= slot("now")).order_by(_D.release_at, _D.seq).limit(slot("most"))
_HELD_DUE = Statement(_FIRST_DUE, HeldDelivery)
_HELD_DUE_OF_USERS = Statement(lambda: _FIRST_DUE.where(among(_N.user_id, "users")), HeldDelivery)
_HELD_IN_FUTURE = Statement(lambda: _HELD_ROWS.where(_D.updated_at > slot("now")).limit(AT_ONCE), HeldDelivery)
_HELD_BY_DIGEST = Statement(
    lambda: _HELD_ROWS.where(
        _D.code == "digest", _N.user_id == slot("user_id"), any_or_same(_N.notification_type)
    ).order_by(_D.seq),
    HeldDelivery,
)
_RELEASE = Statement(lambda: _D.update(slots(_D.release_at)).where(among(_D.seq, "seqs")))
_RELEASE_OF_USER = Statement(
    lambda: _D.update(slots(_D.release_at)).where(
        _HELD,
        _D.code == slot("code"),
        fn.EXISTS(_N.select(SQL("1")).where(_WITH_NOTIFICATION, _N.user_id == slot("user_id"))),
    )
)


def held_due(tx: Tx, most: int, together: int) -> list[HeldDelivery]:
    """Held deliveries whose time has come, at most ``most``; beyond it, up to ``together`` of the same users, so that
    what belongs into one digest is released in one transaction."""
    first = _HELD_DUE.all(tx.conn, now=tx.now_ms, most=most)
    if len(first) < most:
        return first
    users = sorted({held.user_id for held in first})
    return _HELD_DUE_OF_USERS.all(tx.conn, now=tx.now_ms, users=users, most=together)


def held_in_future(tx: Tx) -> list[HeldDelivery]:
    """Held deliveries written after the present time: the clock was set back."""
    return _HELD_IN_FUTURE.all(tx.conn, now=tx.now_ms)


def held_by_digest(tx: Tx, user_id: str, notification_type: str | None) -> list[HeldDelivery]:
    """Deliveries that a user's digests hold, of one type or all."""
    return _HELD_BY_DIGEST.all(tx.conn, user_id=user_id, notification_type=notification_type)


def release_now(tx: Tx, seqs: Sequence[int]) -> None:
    """Make held deliveries due now."""
    _RELEASE.run(tx.conn, release_at=tx.now_ms, seqs=seqs)


def re_evaluate_held(tx: Tx, user_id: str, code: str) -> None:
    """Make a user's deliveries held for this reason due now, so that they are decided again."""
    _RELEASE_OF_USER.run(tx.conn, release_at=tx.now_ms, code=code, user_id=user_id)


def apply_release(tx: Tx, released: Sequence[tuple[HeldDelivery, Decision]], digests: Collection[str]) -> None:
    """Apply the new decisions of held deliveries.

    Deliveries held for a reason among ``digests`` and pending now are bundled by user, channel and device; the one of
    the newest notification bundles the others.
    """
    groups: dict[tuple[str, str, int | None], list[tuple[HeldDelivery, Decision]]] = {}
    for held, decision in released:
        if decision.status == "pending" and held.code in digests:
            groups.setdefault((held.user_id, held.channel, held.device_seq), []).append((held, decision))
            continue
        redecide(tx, held.seq, decision, failed_over=held.failed_over or held.code == "failover")
        if decision.status == "pending":
            wake_outbox(tx, held.id)
    for group in groups.values():
        digest, decision = max(group, key=lambda pair: pair[0].notification_seq)
        redecide(tx, digest.seq, decision)
        wake_outbox(tx, digest.id)
        for held, _ in group:
            if held.seq != digest.seq:
                bundle(tx, held.seq, digest.seq, decision.route)
    _advance_and_settle(tx, {held.notification_seq for held, _ in released})


# --- a clock that was set back ----------------------------------------------------------------------------------------


def _shift(status: str, column: Any) -> Query:
    """Build the query that shifts the waits of that status, which end at ``column``."""
    return _D.update({column: slot("now") + fn.MAX(0, column - _D.updated_at), _D.updated_at: slot("now")}).where(
        _D.status == status, column.is_null(False), _D.updated_at > slot("now")
    )


_SHIFT_PENDING = Statement(lambda: _shift("pending", _D.next_attempt_at))
_SHIFT_SENDING = Statement(lambda: _shift("sending", _D.lease_until))
_SHIFT_HELD = Statement(lambda: _D.update(slots(_D.release_at, _D.updated_at)).where(_THIS))


def shift_waits(tx: Tx) -> int:
    """Shift waits written by a clock that was ahead so that as much of each is left as then; return how many."""
    return sum(shift.run(tx.conn, now=tx.now_ms).rowcount for shift in (_SHIFT_PENDING, _SHIFT_SENDING))


def shift_held(tx: Tx, seq: int, release_at: int) -> None:
    """Hold a delivery written by a clock that was ahead until ``release_at``."""
    _SHIFT_HELD.run(tx.conn, seq=seq, release_at=release_at, updated_at=tx.now_ms)


# --- deliveries that must not be sent any more ------------------------------------------------------------------------


class Cancellation(NamedTuple):
    """The final state of a delivery that is not sent any more."""

    status: str
    code: str
    reason: str


class _Checked(NamedTuple):
    """Inputs of ``_cancellation_of`` for a delivery."""

    seq: int
    status: str
    expires_at: int | None
    dealt_with: str | None
    channel: str
    has_device: bool
    has_address: bool
    chose: bool
    user_id: str
    notification_type: str
    category: str | None


_CHECKS = (
    _D.seq,
    _N.status,
    _N.expires_at,
    Case(None, [(_N.inbox.in_(("archived", "snoozed")), _N.inbox), (_N.read_at.is_null(False), "read")]).alias(
        "dealt_with"
    ),
    _D.channel,
    (_D.device_seq.is_null() | ((_T.user_id == _N.user_id) & _T.is_active)).alias("has_device"),
    Case(_D.channel, [("email", _C.email.is_null(False)), ("sms", _C.phone.is_null(False))], 1).alias("has_address"),
    fn.EXISTS(_P.select(SQL("1")).where(_P.user_id == _N.user_id, ~_P.enabled)).alias("chose"),
    _N.user_id,
    _N.notification_type,
    fn.COALESCE(_K.category, _N.category).alias("category"),
)
"""The columns of _Checked."""


def _with_recipient(*selected: Any) -> ModelSelect[Any]:
    """Build the query over deliveries with their notification, device, contacts and type."""
    return (
        _D.select(*selected)
        .join(_N, on=_WITH_NOTIFICATION)
        .join_from(_D, _T, JOIN.LEFT_OUTER, on=_T.seq == _D.device_seq)
        .join_from(_N, _C, JOIN.LEFT_OUTER, on=_C.user_id == _N.user_id)
        .join_from(_N, _K, JOIN.LEFT_OUTER, on=_K.name == _N.notification_type)
    )


_WITH_BUNDLED = Statement(
    lambda: _with_recipient(*_CHECKS).where(among(_D.seq, "seqs") | (among(_D.digest_seq, "seqs") & _PENDING)), _Checked
)
_CANCEL = Statement(
    lambda: _D.update(
        {**slots(_D.status, _D.code, _D.reason, _D.updated_at), _D.next_attempt_at: None, _D.lease_until: None}
    ).where(_THIS)
)
_NOTIFICATIONS_OF = Statement(lambda: _D.select(_D.notification_seq).distinct().where(among(_D.seq, "seqs")))
_QUEUED_OF_USERS = Statement(
    lambda: _D.select(_D.seq).join(_N, on=_WITH_NOTIFICATION).where(_QUEUED, among(_N.user_id, "users"))
)
_SUPPRESS = (
    _D.update(
        {
            _D.status: "suppressed",
            _D.next_attempt_at: None,
            _D.release_at: None,
            _D.digest_seq: None,
            **slots(_D.code, _D.reason, _D.updated_at),
        }
    )
    .where(_OF_NOTIFICATION, _D.status.in_(("pending", "held")))
    .returning(_D.seq)
)
_SUPPRESS_ALL = Statement(_SUPPRESS)
_SUPPRESS_INTERRUPTING = Statement(lambda: _SUPPRESS.where(_HELD | (_D.channel == "push")))
_EXTERNAL_OF = Statement(lambda: _D.select(_D.seq).where(_OF_NOTIFICATION, _D.route != ""))
_TOASTS_OF = Statement(
    lambda: _D.select(_D.seq).where(
        _OF_NOTIFICATION, _D.route == "desktop", _D.status.in_(("sending", "sent", "delivered"))
    )
)
_ADDRESS = {"email": "e-mail address", "sms": "phone number"}


def _cancellation_of(conn: sqlite3.Connection, row: _Checked | Sendable, now_ms: int) -> Cancellation | None:
    """The reason against sending a delivery; None where it may be sent."""
    if row.status == "cancelled":
        return Cancellation("suppressed", "cancelled", "It was cancelled.")
    if row.status == "expired" or (row.expires_at is not None and row.expires_at <= now_ms):
        return Cancellation("suppressed", "expired", "It expired first.")
    if row.dealt_with and row.channel == "push":
        code = "read_first" if row.dealt_with == "read" else row.dealt_with
        return Cancellation("suppressed", code, f"It was {row.dealt_with} first.")
    if row.chose:
        verdict = may_use(choices_of(conn, row.user_id), row.notification_type, row.channel, row.category)
        if not verdict.allowed:
            return Cancellation("suppressed", verdict.code, verdict.reason)
    return _unreachable(row.channel, row.has_device, row.has_address)


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
    return _obsolete(tx, _WITH_BUNDLED.all(tx.conn, seqs=list(seqs)))


def _obsolete(tx: Tx, rows: Sequence[_Checked | Sendable]) -> dict[int, Cancellation]:
    """Find the deliveries among ``rows`` that must not be sent any more."""
    found = ((row.seq, _cancellation_of(tx.conn, row, tx.now_ms)) for row in rows)
    return {seq: cancellation for seq, cancellation in found if cancellation is not None}


def _cancel(tx: Tx, cancellations: Mapping[int, Cancellation]) -> list[int]:
    """End these deliveries; deliveries bundled in them are sent without them. Return their notifications."""
    for seq, cancellation in cancellations.items():
        _CANCEL.run(tx.conn, seq=seq, updated_at=tx.now_ms, **cancellation._asdict())
        promote_next_digest(tx, seq)
    rows = _NOTIFICATIONS_OF.all(tx.conn, seqs=list(cancellations))
    return [notification_seq for (notification_seq,) in rows]


def re_evaluate_queued(tx: Tx, user_ids: Collection[str]) -> None:
    """Re-evaluate queued deliveries after users changed preferences or contacts, bundled ones included.

    A delivery that is being sent is re-evaluated when its attempt has failed.
    """
    seqs = [seq for (seq,) in _QUEUED_OF_USERS.all(tx.conn, users=sorted(user_ids))]
    _advance_and_settle(tx, _cancel(tx, _cancellations(tx, seqs)))


def suppress_unsent(tx: Tx, notification_seq: int, code: str, reason: str, *, only_interrupting: bool = False) -> None:
    """Suppress a notification's pending and held deliveries; ``only_interrupting``: held ones and push alone."""
    suppress = _SUPPRESS_INTERRUPTING if only_interrupting else _SUPPRESS_ALL
    rows = suppress.all(tx.conn, notification=notification_seq, code=code, reason=reason, updated_at=tx.now_ms)
    for (seq,) in rows:
        promote_next_digest(tx, seq)


def has_external_delivery(tx: Tx, notification_seq: int) -> bool:
    """Whether a notification has a delivery outside the inbox."""
    return _EXTERNAL_OF.one(tx.conn, notification=notification_seq) is not None


def dismiss_toast(tx: Tx, notification_seq: int, notification_id: str, user_id: str, app: str) -> None:
    """Publish that this computer's toast must disappear, where one was or is being shown."""
    if _TOASTS_OF.one(tx.conn, notification=notification_seq) is not None:
        tx.events.append(Event("toast.dismissed", notification_id, user_id, app))


# --- claims and leases ------------------------------------------------------------------------------------------------


class Sendable(NamedTuple):
    """A due delivery: the columns of _Checked, and those of its message. ``actions`` is JSON."""

    seq: int
    status: str
    expires_at: int | None
    dealt_with: str | None
    channel: str
    has_device: bool
    has_address: bool
    chose: bool
    user_id: str
    notification_type: str
    category: str | None
    id: str
    notification_id: str
    route: str
    app: str
    title: str
    message: str
    priority: str
    data: dict[str, Any]
    actions: str | None
    collapse_key: str | None
    occurrences: int
    created_at: int
    critical: bool
    token: str | None
    platform: str | None
    registered_at: int | None
    email: str | None
    phone: str | None
    is_digest: bool


class BeforeClaim(NamedTuple):
    """The state of the delivery ``seq`` when it was claimed."""

    seq: int
    tries: int
    due_at: int
    tried_since: int | None
    previous_code: str | None


_OTHER_DUE = _D.alias("due")
_IN_DIGEST = _D.alias("in_digest")
_DUE = (
    _OTHER_DUE.select(_OTHER_DUE.seq)
    .where(
        _OTHER_DUE.status == "pending",
        _OTHER_DUE.next_attempt_at.is_null(False),
        _OTHER_DUE.route == slot("route"),
        _OTHER_DUE.next_attempt_at <= slot("now"),
    )
    .order_by(_OTHER_DUE.next_attempt_at)
    .limit(slot("limit"))
)
_SENDABLE = Statement(
    lambda: _with_recipient(
        *_CHECKS,
        _D.id, _N.id.alias("notification_id"), _D.route, _N.app, _N.title, _N.message, _N.priority, _N.data,
        _N.actions, _N.collapse_key, _N.count.alias("occurrences"), _N.created_at,
        fn.COALESCE(_K.critical, False).alias("critical"), _T.token, _T.platform, _T.updated_at.alias("registered_at"),
        _C.email, _C.phone,
        fn.EXISTS(_IN_DIGEST.select(SQL("1")).where(_IN_DIGEST.digest_seq == _D.seq)).alias("is_digest"),
    )
    .where(_D.seq.in_(_DUE))
    .order_by(_D.next_attempt_at),
    Sendable,
)  # fmt: skip
_CLAIM = Statement(
    lambda: (
        _D.update({_D.status: "sending", **slots(_D.lease_until, _D.updated_at), _D.tries: _D.tries + 1})
        .where(among(_D.seq, "seqs"))
        .returning(_D.seq, _D.tries, _D.next_attempt_at.alias("due_at"), _D.tried_since, _D.code.alias("previous_code"))
    ),
    BeforeClaim,
)
_GIVE_BACK = Statement(
    lambda: _D.update(
        {_D.status: "pending", _D.lease_until: None, _D.tries: _D.tries - 1, **slots(_D.updated_at)}
    ).where(_D.id == slot("id", _D.id), _D.status == "sending")
)


def claim(tx: Tx, route: str, count: int, lease_ms: int) -> list[tuple[BeforeClaim, Sendable]]:
    """Claim up to ``count`` due deliveries of a route, the first due first, and cancel obsolete ones on the way."""
    due = _sendable(tx, route, count)
    if not due:
        return []
    states = _CLAIM.each(tx.conn, lease_until=tx.now_ms + lease_ms, updated_at=tx.now_ms, seqs=[row.seq for row in due])
    before = {state.seq: state for state in states}
    return [(before[row.seq], row) for row in due]


def _sendable(tx: Tx, route: str, count: int) -> list[Sendable]:
    for limit in (count, AT_ONCE, AT_ONCE):
        rows = _SENDABLE.all(tx.conn, route=route, now=tx.now_ms, limit=limit)
        obsolete = _obsolete(tx, rows)
        if obsolete:
            _advance_and_settle(tx, _cancel(tx, obsolete))
        sendable = [row for row in rows if row.seq not in obsolete][:count]
        if sendable or not rows:
            return sendable
    return []


def give_back(tx: Tx, delivery_ids: Iterable[str]) -> None:
    """Queue claimed deliveries again that were not attempted."""
    for delivery_id in delivery_ids:
        _GIVE_BACK.run(tx.conn, id=delivery_id, updated_at=tx.now_ms)


_LOST = Outcome(
    outcome="transient",
    code=INTERRUPTED,
    text="FlashFlow stopped before the answer came; this try may have arrived.",
)


class _Leased(NamedTuple):
    """A delivery whose lease has ended; ``updated_at`` is the time of its claim."""

    seq: int
    notification_seq: int
    tries: int
    tried_since: int | None
    updated_at: int


_EXPIRED_LEASES = Statement(
    lambda: (
        _D.select(*columns(_D, _Leased))
        .where(_D.status == "sending", _D.lease_until <= slot("until"))
        .order_by(_D.lease_until, _D.seq)
        .limit(AT_ONCE)
    ),
    _Leased,
)
_INTERRUPTIONS = Statement(
    lambda: _A.select(fn.COUNT(_A.seq)).where(
        _A.delivery_seq == slot("seq"), _A.code == INTERRUPTED, _A.started_at >= fn.COALESCE(slot("since"), 0)
    )
)
_RECOVER = Statement(
    lambda: _D.update(
        {
            **slots(_D.status, _D.code, _D.reason),
            _D.lease_until: None,
            _D.updated_at: slot("now"),
            # The due time stays: the time until this start must not count towards the delivery's age.
            _D.next_attempt_at: Case(
                slot("status"), [("dead", None)], fn.MIN(fn.COALESCE(_D.next_attempt_at, slot("now")), slot("now"))
            ),
        }
    ).where(_THIS)
)


def recover_leases(tx: Tx, *, all_leases: bool) -> int:
    """Queue deliveries whose lease has expired, or all that are being sent; return how many."""
    rows = _EXPIRED_LEASES.all(tx.conn, until=2**62 if all_leases else tx.now_ms)
    queued: list[int] = []
    changed: dict[int, None] = {}
    for row in rows:
        before = _INTERRUPTIONS.value(tx.conn, seq=row.seq, since=row.tried_since)
        dead = min(row.tries, before + 1) >= INTERRUPTED_MOST
        lasted, next_try_at = max(0, tx.now_ms - row.updated_at), None if dead else tx.now_ms
        attempt = (row.seq, row.updated_at, lasted, _LOST.outcome, _LOST.code, _LOST.text, next_try_at)
        _ATTEMPT.many(tx.conn, [attempt])
        status = "dead" if dead else "pending"
        _RECOVER.run(tx.conn, seq=row.seq, status=status, code=_LOST.code, reason=_LOST.text, now=tx.now_ms)
        changed[row.notification_seq] = None
        if dead:
            changed |= dict.fromkeys(_resolve_bundled(tx, row.seq, _LOST))
        else:
            queued.append(row.seq)
    changed |= dict.fromkeys(_cancel(tx, _cancellations(tx, queued)))
    _advance_and_settle(tx, changed)
    return len(rows)


_UNCONFIGURED = Outcome(outcome="permanent", code="not_configured", text="This channel is not configured any more.")


class _Refused(NamedTuple):
    seq: int
    notification_seq: int


_QUEUED_SEQS = _OTHER_DUE.select(_OTHER_DUE.seq).where(
    _OTHER_DUE.status == "pending", _OTHER_DUE.next_attempt_at.is_null(False)
)
_REFUSE = Statement(
    lambda: (
        _D.update({_D.status: "failed", _D.next_attempt_at: None, **slots(_D.code, _D.reason, _D.updated_at)})
        .where(_D.seq.in_(_QUEUED_SEQS.where(~among(_OTHER_DUE.route, "routes")).limit(AT_ONCE)))
        .returning(*columns(_D, _Refused))
    ),
    _Refused,
)
_HASTEN = Statement(
    lambda: _D.update({_D.next_attempt_at: slot("now")}).where(
        _D.seq.in_(
            _QUEUED_SEQS.where(
                _OTHER_DUE.route == slot("route"),
                _OTHER_DUE.next_attempt_at > slot("now"),
                among(_OTHER_DUE.code, "codes"),
            ).limit(AT_ONCE)
        )
    )
)


def refuse_routes(tx: Tx, routes: Sequence[str]) -> int:
    """Fail queued deliveries whose route is not among ``routes``; return how many."""
    rows = _REFUSE.all(tx.conn, code=_UNCONFIGURED.code, reason=_UNCONFIGURED.text, updated_at=tx.now_ms, routes=routes)
    changed = {row.notification_seq for row in rows}
    for row in rows:
        changed.update(_resolve_bundled(tx, row.seq, _UNCONFIGURED))
    _advance_and_settle(tx, changed)
    return len(rows)


def hasten(tx: Tx, route: str, codes: Sequence[str]) -> int:
    """Make due now the deliveries of a route whose last attempt failed with one of ``codes``; return how many."""
    return _HASTEN.run(tx.conn, now=tx.now_ms, route=route, codes=codes).rowcount


# --- attempts ---------------------------------------------------------------------------------------------------------


class _Attempted(NamedTuple):
    """A delivery that was attempted, as it was before; the id as it is stored."""

    id: Any
    seq: int
    notification_seq: int
    device_seq: int | None
    status: str
    code: str | None
    is_digest: bool


_ATTEMPT = Statement(
    lambda: _A.insert(
        slots(_A.delivery_seq, _A.started_at, _A.duration_ms, _A.outcome, _A.code, _A.text, _A.next_try_at)
    )
)
_MOVE = TextStatement(
    "WITH v (status, code, reason, retry_at, retry_until, since, now, seq) "
    "AS (VALUES {rows:status, code, reason, retry_at, retry_until, since, now, seq}) "
    "UPDATE deliveries SET status = v.status, code = v.code, reason = v.reason, next_attempt_at = v.retry_at, "
    "retry_until = v.retry_until, tried_since = v.since, lease_until = NULL, updated_at = v.now "
    "FROM v WHERE deliveries.seq = v.seq",
    reason="UPDATE FROM VALUES",
)
_DEACTIVATE = Statement(
    lambda: _T.update({_T.is_active: False, **slots(_T.updated_at)}).where(
        _T.seq == slot("seq"), _T.updated_at <= slot("attempted_at")
    )
)
_NOTE_USE = Statement(lambda: _T.update(slots(_T.last_used_at)).where(_T.seq == slot("seq")))


_GROUPS = tuple(1 << power for power in range(12))
"""Deliveries looked up by one query; the writer's groups are not larger."""


@variants(_GROUPS)
def _attempted(count: int) -> Statement[_Attempted]:
    """Build the query for ``count`` deliveries by id."""
    return Statement(
        _D.select(
            as_stored(_D.id), _D.seq, _D.notification_seq, _D.device_seq, _D.status, _D.code,
            fn.EXISTS(_IN_DIGEST.select(SQL("1")).where(_IN_DIGEST.digest_seq == _D.seq)).alias("is_digest"),
        ).where(_D.id.in_([slot(f"id{place}") for place in range(count)])),
        _Attempted,
    )  # fmt: skip


def record_attempts(tx: Tx, attempts: Sequence[AttemptResult]) -> None:
    """Store attempts and their effect on delivery, digest, device and notification; skip erased deliveries.

    A delivery with a ``retry`` is queued again, one without is final.
    """
    by_id = {encode_id(attempt.delivery_id): attempt for attempt in attempts}
    if (
        len(by_id) < len(attempts) or len(attempts) > _GROUPS[-1]
    ):  # a lease expired too early and a second worker claimed the same delivery
        for attempt in attempts:
            record_attempts(tx, [attempt])
        return
    if not attempts:
        return
    # A fixed number of statements for the whole group: each one releases the interpreter to a dozen waiting workers.
    size = 1 << (len(by_id) - 1).bit_length()  # few statements; the ids left over are NULL
    ids = zip_longest(range(size), by_id)
    rows = _attempted(size).all(tx.conn, **{f"id{place}": id_ for place, id_ in ids})
    moves = _move_attempted(tx, [(row, by_id[row.id]) for row in rows])
    changed: dict[int, None] = {}
    queued = [seq for seq, status in moves.items() if status == "pending"]
    missed = dict.fromkeys(_cancel(tx, _cancellations(tx, queued)) if queued else ())
    for row in rows:
        attempt = by_id[row.id]
        touched = {row.notification_seq: None}
        if row.is_digest and row.seq in moves and attempt.retry is None:
            touched |= dict.fromkeys(_resolve_bundled(tx, row.seq, attempt.outcome))
        if row.device_seq is not None:
            _update_device(tx, row.device_seq, attempt)
        changed |= touched
        if attempt.outcome.outcome not in _ARRIVED:
            missed |= touched
    for notification_seq in missed:
        advance_failover(tx, notification_seq)
    settle_notifications(tx, changed | missed)


def _move_attempted(tx: Tx, rows: Sequence[tuple[_Attempted, AttemptResult]]) -> dict[int, str]:
    """Store attempts and move their deliveries; return ``seq`` -> new status of those that moved."""
    attempts, moves = [], {}
    for row, attempt in rows:
        outcome, retry = attempt.outcome, attempt.retry
        retry_at, until, since = (retry.at, retry.until, retry.since) if retry is not None else (None, None, None)
        attempts.append(
            (row.seq, attempt.started_at, attempt.duration_ms, outcome.outcome, outcome.code, outcome.text, retry_at)
        )
        # An interrupted delivery arrived after all.
        if row.status == "sending" or (row.code == INTERRUPTED and outcome.outcome in _ARRIVED):
            after = _STATUS.get(outcome.outcome) or ("dead" if retry is None else "pending")
            moves[row.seq] = (after, outcome.code, outcome.text, retry_at, until, since, tx.now_ms, row.seq)
    _ATTEMPT.many(tx.conn, attempts)
    _MOVE.many(tx.conn, list(moves.values()))
    return {seq: status for seq, (status, *_) in moves.items()}


def _update_device(tx: Tx, device_seq: int, attempt: AttemptResult) -> None:
    if attempt.outcome.outcome == "token_dead":  # unless it was registered again during the attempt
        _DEACTIVATE.run(tx.conn, seq=device_seq, updated_at=tx.now_ms, attempted_at=attempt.started_at)
    elif attempt.outcome.outcome in _ARRIVED:
        _NOTE_USE.run(tx.conn, seq=device_seq, last_used_at=tx.now_ms)


# --- retries ----------------------------------------------------------------------------------------------------------


class Retriable(NamedTuple):
    """A failed or dead delivery, or one that waits between two attempts (pending)."""

    seq: int
    id: str
    channel: str
    device_seq: int | None
    status: str


_RETRIABLE = Statement(
    lambda: _D.select(*columns(_D, Retriable)).where(
        _OF_NOTIFICATION,
        _D.channel != "in_app",
        _D.status.in_(("failed", "dead")) | (_PENDING & (_D.tries > 0)),
    ),
    Retriable,
)
_RETRY_NOW = Statement(lambda: _D.update(slots(_D.next_attempt_at)).where(_THIS, _D.digest_seq.is_null()))


def retriable(tx: Tx, notification_seq: int) -> list[Retriable]:
    """The deliveries of a notification that a retry applies to."""
    return _RETRIABLE.all(tx.conn, notification=notification_seq)


def retry_now(tx: Tx, seq: int) -> None:
    """End a pending delivery's wait between two attempts."""
    _RETRY_NOW.run(tx.conn, seq=seq, next_attempt_at=tx.now_ms)
