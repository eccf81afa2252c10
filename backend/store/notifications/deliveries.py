"""Reads of the ``deliveries`` table; ``delivery_state`` has its transitions. Times are milliseconds since 1970."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_id, encode_id, to_json
from flashflow.backend.schemas.records import Attempt, Delivery, Record

_JOINED = "FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq"
_OF_USER = "n.user_id = ? AND (? IS NULL OR n.notification_type = ?)"


# --- of one notification ----------------------------------------------------------------------------------------------


def deliveries_of(conn: sqlite3.Connection, notification_seq: int) -> tuple[Delivery, ...]:
    """The deliveries of a notification with their attempts, oldest first."""
    attempts: dict[int, list[Attempt]] = {}
    for seq, started, duration, outcome, code, text, following in conn.execute(
        "SELECT a.delivery_seq, a.started_at, a.duration_ms, a.outcome, a.code, a.text, a.next_try_at "
        "FROM delivery_attempts a JOIN deliveries d ON d.seq = a.delivery_seq "
        "WHERE d.notification_seq = ? ORDER BY a.seq",
        (notification_seq,),
    ):
        attempts.setdefault(seq, []).append(
            Attempt(
                started_at=to_datetime(started),
                duration_ms=duration,
                outcome=outcome,
                code=code,
                text=text,
                next_try_at=_datetime(following),
            )
        )
    rows = conn.execute(
        "SELECT d.seq, d.id, d.channel, t.platform, d.status, d.code, d.reason, d.created_at, d.updated_at, "
        "d.next_attempt_at, d.release_at, d.tries, d.retry_until "
        "FROM deliveries d LEFT JOIN device_tokens t ON t.seq = d.device_seq "
        "WHERE d.notification_seq = ? ORDER BY d.seq",
        (notification_seq,),
    )
    return tuple(
        Delivery(
            id=decode_id(id_),
            channel=channel,
            target=platform,
            status=status,
            code=code,
            reason=reason,
            created_at=to_datetime(created),
            updated_at=to_datetime(updated),
            next_attempt_at=_datetime(following),
            attempts=tuple(attempts.get(seq, ())),
            release_at=_datetime(release) if status == "held" else None,
            tries=tries,
            retry_until=_datetime(until) if status in {"pending", "sending"} else None,
        )
        for (
            seq, id_, channel, platform, status, code, reason, created, updated, following, release, tries, until,
        ) in rows
    )  # fmt: skip


def deliveries_by_notification(
    conn: sqlite3.Connection, notification_ids: Sequence[str]
) -> dict[str, tuple[Delivery, ...]]:
    """``deliveries_of`` for each stored notification among the ids."""
    found = {}
    for id_ in notification_ids:
        row = conn.execute("SELECT seq FROM notifications WHERE id = ?", (encode_id(id_),)).fetchone()
        if row is not None:
            found[id_] = deliveries_of(conn, row[0])
    return found


def statuses_of(conn: sqlite3.Connection, notification_seq: int) -> dict[int | None, str]:
    """``seq`` -> status of a notification's deliveries."""
    return dict(
        conn.execute("SELECT seq, status FROM deliveries WHERE notification_seq = ?", (notification_seq,)).fetchall()
    )


class Latest(NamedTuple):
    """The newest delivery of a notification on one channel and device."""

    seq: int
    status: str
    code: str | None
    reason: str | None


def latest_delivery(
    conn: sqlite3.Connection, notification_seq: int, channel: str, device_seq: int | None
) -> Latest | None:
    """Find the newest delivery of a notification on this channel and device."""
    row = conn.execute(
        "SELECT seq, status, code, reason FROM deliveries WHERE notification_seq = ? AND channel = ? "
        "AND device_seq IS ? ORDER BY seq DESC LIMIT 1",
        (notification_seq, channel, device_seq),
    ).fetchone()
    return None if row is None else Latest(*row)


# --- held or stopped --------------------------------------------------------------------------------------------------


class Unreleased(Record, frozen=True, kw_only=True):
    """A delivery that is not sent now; ``code`` and ``reason`` say why, ``release_at`` until when it is held."""

    notification_id: str
    channel: str
    status: str
    code: str | None
    reason: str | None
    release_at: datetime | None


def still_held(
    conn: sqlite3.Connection, user_id: str, notification_type: str | None, most: int
) -> tuple[int, tuple[Unreleased, ...]]:
    """Count a user's held deliveries and describe the first ``most``."""
    values = (user_id, notification_type, notification_type)
    counted = f"SELECT COUNT(*) {_JOINED} WHERE d.status = 'held' AND {_OF_USER}"
    (count,) = conn.execute(counted, values).fetchone()
    return count, _unreleased(conn, f"d.status = 'held' AND {_OF_USER}", *values, most)


def unreleased_among(conn: sqlite3.Connection, seqs: Sequence[int], most: int) -> tuple[Unreleased, ...]:
    """Describe the first ``most`` of these deliveries."""
    return _unreleased(conn, "d.seq IN (SELECT value FROM json_each(?))", to_json(list(seqs)), most)


def _unreleased(conn: sqlite3.Connection, which: str, *values: object) -> tuple[Unreleased, ...]:
    rows = conn.execute(
        f"SELECT n.id, d.channel, d.status, d.code, d.reason, d.release_at {_JOINED} WHERE {which} "
        "ORDER BY d.seq LIMIT ?",
        values,
    )
    return tuple(
        Unreleased(
            notification_id=decode_id(id_),
            channel=channel,
            status=status,
            code=code,
            reason=reason,
            release_at=_datetime(release_at),
        )
        for id_, channel, status, code, reason, release_at in rows
    )


# --- a clock that was set back ----------------------------------------------------------------------------------------

_IN_FUTURE = "SELECT seq FROM deliveries WHERE updated_at > :now AND "
_CLOCK_SET_BACK = (
    f"SELECT EXISTS ({_IN_FUTURE} status = 'pending' AND next_attempt_at IS NOT NULL) "
    f"OR EXISTS ({_IN_FUTURE} status = 'held') OR EXISTS ({_IN_FUTURE} status = 'sending')"
)


def is_clock_set_back(conn: sqlite3.Connection, now_ms: int) -> bool:
    """Whether a waiting delivery was written after ``now_ms``."""
    return bool(conn.execute(_CLOCK_SET_BACK, {"now": now_ms}).fetchone()[0])


def _datetime(ms: int | None) -> Any:
    return None if ms is None else to_datetime(ms)
