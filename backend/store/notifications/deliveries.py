"""Reads of the ``deliveries`` table; ``delivery_state`` has its transitions. Times are milliseconds since 1970."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from peewee import JOIN, SQL, Select, fn

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import Attempt, Delivery, DeliveryStatus, Record
from flashflow.backend.store.engine.statement import Statement, among, any_or_same, columns, same, slot
from flashflow.backend.store.notifications import models

_D, _N, _A, _T = models.Delivery, models.Notification, models.DeliveryAttempt, models.DeviceToken
_OF = _D.notification_seq == slot("notification")


# --- of one notification ----------------------------------------------------------------------------------------------


class _AttemptRow(NamedTuple):
    delivery_seq: int
    started_at: int
    duration_ms: int
    outcome: str
    code: str
    text: str
    next_try_at: int | None


class _DeliveryRow(NamedTuple):
    seq: int
    id: str
    channel: str
    target: str | None
    status: DeliveryStatus
    code: str | None
    reason: str | None
    created_at: int
    updated_at: int
    next_attempt_at: int | None
    release_at: int | None
    tries: int
    retry_until: int | None


_ATTEMPTS = Statement(
    lambda: _A.select(*columns(_A, _AttemptRow)).join(_D, on=_D.seq == _A.delivery_seq).where(_OF).order_by(_A.seq),
    _AttemptRow,
)
_DELIVERIES = Statement(
    lambda: _D.select(
        _D.seq, _D.id, _D.channel, _T.platform.alias("target"), _D.status, _D.code, _D.reason, _D.created_at,
        _D.updated_at, _D.next_attempt_at, _D.release_at, _D.tries, _D.retry_until,
    )
    .join(_T, JOIN.LEFT_OUTER, on=_T.seq == _D.device_seq)
    .where(_OF)
    .order_by(_D.seq),
    _DeliveryRow,
)  # fmt: skip


def deliveries_of(conn: sqlite3.Connection, notification_seq: int) -> tuple[Delivery, ...]:
    """The deliveries of a notification with their attempts, oldest first."""
    attempts: dict[int, list[Attempt]] = {}
    for row in _ATTEMPTS.each(conn, notification=notification_seq):
        attempts.setdefault(row.delivery_seq, []).append(
            Attempt(
                started_at=to_datetime(row.started_at),
                duration_ms=row.duration_ms,
                outcome=row.outcome,
                code=row.code,
                text=row.text,
                next_try_at=_datetime(row.next_try_at),
            )
        )
    return tuple(
        Delivery(
            id=row.id,
            channel=row.channel,
            target=row.target,
            status=row.status,
            code=row.code,
            reason=row.reason,
            created_at=to_datetime(row.created_at),
            updated_at=to_datetime(row.updated_at),
            next_attempt_at=_datetime(row.next_attempt_at),
            attempts=tuple(attempts.get(row.seq, ())),
            release_at=_datetime(row.release_at) if row.status == "held" else None,
            tries=row.tries,
            retry_until=_datetime(row.retry_until) if row.status in {"pending", "sending"} else None,
        )
        for row in _DELIVERIES.each(conn, notification=notification_seq)
    )


_SEQ_OF = Statement(lambda: _N.select(_N.seq).where(_N.id == slot("id", _N.id)))


def deliveries_by_notification(
    conn: sqlite3.Connection, notification_ids: Sequence[str]
) -> dict[str, tuple[Delivery, ...]]:
    """``deliveries_of`` for each stored notification among the ids."""
    seqs = {id_: _SEQ_OF.value(conn, id=id_) for id_ in notification_ids}
    return {id_: deliveries_of(conn, seq) for id_, seq in seqs.items() if seq is not None}


class Latest(NamedTuple):
    """The newest delivery of a notification on one channel and device."""

    seq: int
    status: str
    code: str | None
    reason: str | None


class _Status(NamedTuple):
    seq: int
    status: str


_STATUSES = Statement(lambda: _D.select(*columns(_D, _Status)).where(_OF), _Status)
_LATEST = Statement(
    lambda: (
        _D.select(*columns(_D, Latest))
        .where(_OF, _D.channel == slot("channel"), same(_D.device_seq, slot("device_seq")))
        .order_by(_D.seq.desc())
        .limit(1)
    ),
    Latest,
)


def statuses_of(conn: sqlite3.Connection, notification_seq: int) -> dict[int | None, str]:
    """``seq`` -> status of a notification's deliveries."""
    return {row.seq: row.status for row in _STATUSES.each(conn, notification=notification_seq)}


def latest_delivery(
    conn: sqlite3.Connection, notification_seq: int, channel: str, device_seq: int | None
) -> Latest | None:
    """Find the newest delivery of a notification on this channel and device."""
    return _LATEST.one(conn, notification=notification_seq, channel=channel, device_seq=device_seq)


# --- held or stopped --------------------------------------------------------------------------------------------------


class Unreleased(Record, frozen=True, kw_only=True):
    """A delivery that is not sent now; ``code`` and ``reason`` say why, ``release_at`` until when it is held."""

    notification_id: str
    channel: str
    status: str
    code: str | None
    reason: str | None
    release_at: datetime | None


class _UnreleasedRow(NamedTuple):
    notification_id: str
    channel: str
    status: str
    code: str | None
    reason: str | None
    release_at: int | None


_IS_HELD = (_D.status == "held") & (_N.user_id == slot("user_id")) & any_or_same(_N.notification_type)
_COUNT_HELD = Statement(lambda: _D.select(fn.COUNT(_D.seq)).join(_N, on=_N.seq == _D.notification_seq).where(_IS_HELD))
_UNRELEASED = (
    _D.select(_N.id.alias("notification_id"), _D.channel, _D.status, _D.code, _D.reason, _D.release_at)
    .join(_N, on=_N.seq == _D.notification_seq)
    .order_by(_D.seq)
    .limit(slot("most"))
)
_STILL_HELD = Statement(lambda: _UNRELEASED.where(_IS_HELD), _UnreleasedRow)
_AMONG = Statement(lambda: _UNRELEASED.where(among(_D.seq, "seqs")), _UnreleasedRow)


def still_held(
    conn: sqlite3.Connection, user_id: str, notification_type: str | None, most: int
) -> tuple[int, tuple[Unreleased, ...]]:
    """Count a user's held deliveries and describe the first ``most``."""
    which = {"user_id": user_id, "notification_type": notification_type}
    rows = _STILL_HELD.each(conn, most=most, **which)
    return _COUNT_HELD.value(conn, **which), tuple(map(_to_unreleased, rows))


def unreleased_among(conn: sqlite3.Connection, seqs: Sequence[int], most: int) -> tuple[Unreleased, ...]:
    """Describe the first ``most`` of these deliveries."""
    return tuple(map(_to_unreleased, _AMONG.each(conn, seqs=seqs, most=most)))


def _to_unreleased(row: _UnreleasedRow) -> Unreleased:
    return Unreleased(
        notification_id=row.notification_id,
        channel=row.channel,
        status=row.status,
        code=row.code,
        reason=row.reason,
        release_at=_datetime(row.release_at),
    )


# --- a clock that was set back ----------------------------------------------------------------------------------------

_IN_FUTURE = _D.select(SQL("1")).where(_D.updated_at > slot("now"))
_CLOCK_SET_BACK = Statement(
    lambda: Select(
        columns=[
            fn.EXISTS(_IN_FUTURE.where(_D.status == "pending", _D.next_attempt_at.is_null(False)))
            | fn.EXISTS(_IN_FUTURE.where(_D.status == "held"))
            | fn.EXISTS(_IN_FUTURE.where(_D.status == "sending"))
        ]
    )
)


def is_clock_set_back(conn: sqlite3.Connection, now_ms: int) -> bool:
    """Whether a waiting delivery was written after ``now_ms``."""
    return bool(_CLOCK_SET_BACK.value(conn, now=now_ms))


def _datetime(ms: int | None) -> Any:
    return None if ms is None else to_datetime(ms)
