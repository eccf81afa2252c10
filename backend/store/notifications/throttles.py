"""The ``throttles`` table: the latest send times for each user, type and channel, as many as the throttle counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from flashflow.backend.schemas.records import NotificationType
from flashflow.backend.store.engine.statement import Statement, slot, upsert
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.models import ThrottleUse


def used_up(
    conn: sqlite3.Connection, user_id: str, kind: NotificationType, channels: Sequence[str], now_ms: int
) -> dict[str, str]:
    """Channel → the rule as text, for ``channels`` whose limit is used up within the window."""
    rule = kind.throttle
    if rule is None:
        return {}
    window_ms = rule.minutes * 60_000
    text = f"At most {rule.limit} of “{kind.name}” in {rule.minutes} minute{'' if rule.minutes == 1 else 's'}."
    return {
        channel: text
        for channel in channels
        # abs: after the clock was set back, a recorded time may lie ahead and must not count until then.
        if sum(abs(now_ms - at) < window_ms for at in _times(conn, user_id, kind.name, channel)) >= rule.limit
    }


def note_use(tx: Tx, user_id: str, kind: NotificationType, channels: Sequence[str]) -> None:
    """Record one use of each of ``channels`` now."""
    if kind.throttle is None:
        return
    for channel in channels:
        times = [*_times(tx.conn, user_id, kind.name, channel), tx.now_ms][-kind.throttle.limit :]
        _SAVE.run(tx.conn, user_id=user_id, notification_type=kind.name, channel=channel, times=times)


def _times(conn: sqlite3.Connection, user_id: str, name: str, channel: str) -> Sequence[int]:
    times: Sequence[int] | None = _TIMES.value(conn, user=user_id, type=name, channel=channel)
    return times or ()


_TIMES = Statement(
    lambda: ThrottleUse.select(ThrottleUse.times).where(
        ThrottleUse.user_id == slot("user"),
        ThrottleUse.notification_type == slot("type"),
        ThrottleUse.channel == slot("channel"),
    )
)
_SAVE = Statement(
    lambda: upsert([ThrottleUse.user_id, ThrottleUse.notification_type, ThrottleUse.channel], [ThrottleUse.times])
)
