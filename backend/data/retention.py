"""Prune rows by age and by size in short transactions, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.clock import DAY_MS, to_datetime
from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.events import Event
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.schemas.records import Record
from flashflow.backend.settings.model import RetentionSettings
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import search
from flashflow.backend.store.privacy import retention
from flashflow.backend.store.privacy.retention import Pruned, Slice
from flashflow.backend.store.rollups import partitions

log = logging.getLogger(__name__)

MIB = 1024 * 1024
FEWEST, FIRST, MOST = 25, 100, 500
"""Rows in one transaction."""
QUICK_S, SLOW_S = 0.005, 0.010
"""After a slice that took less, the next one is larger; after one that took more, smaller. Bounds the wait of other
writes."""

Kind = Literal["all", "activities", "notifications"]


class PruneResult(Record, frozen=True, kw_only=True):
    """Rows that were pruned, or would be. ``more``: the time limit ended the run before all rows were pruned."""

    activities: int
    sessions: int
    notifications: int
    more: bool


class RetentionStatus(Record, frozen=True, kw_only=True):
    """Bytes in use in both files, and the time since which all activities are stored (None: nothing was pruned)."""

    activity_bytes: int
    notification_bytes: int
    pruned_before: datetime | None


class Retention:
    """Prunes both stores. ``settings`` may be replaced at any time."""

    def __init__(self, activity: UserActivityService, notifications: NotificationService) -> None:
        self._activity = activity
        self._notifications = notifications
        self._clock = activity.clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.settings = RetentionSettings()

    def status(self) -> RetentionStatus:
        """Return how much is stored."""
        before = self._activity.store.read(partitions.pruned_before)
        return RetentionStatus(
            activity_bytes=self._activity.store.read(retention.bytes_in_use),
            notification_bytes=self._notifications.store.read(retention.bytes_in_use),
            pruned_before=to_datetime(before) if before else None,
        )

    def prune(self, before_ms: int, what: Kind = "all", *, seconds: float | None = None) -> PruneResult:
        """Delete rows older than ``before_ms`` (milliseconds since 1970), for at most ``seconds`` (None: no limit)."""
        end = None if seconds is None else self._clock.monotonic() + seconds
        total, more = Pruned(), False
        steps = {"activities": self._activities_slice, "notifications": self._notifications_slice}
        for step in steps.values() if what == "all" else (steps[what],):
            for done in self._slices(step, before_ms):
                total = _sum(total, done)
                if end is not None and self._clock.monotonic() >= end:
                    more = True
                    break
        return self._publish(_result(total, more))

    def would_prune(self, before_ms: int, what: Kind = "all") -> PruneResult:
        """Count the rows that ``prune`` would delete."""
        activities = notifications = Pruned()
        if what != "notifications":
            activities = self._activity.store.read(lambda c: retention.would_prune_activities(c, before_ms))
        if what != "activities":
            notifications = self._notifications.store.read(lambda c: retention.would_prune_notifications(c, before_ms))
        return _result(_sum(activities, notifications), False)

    # --- background -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start ``enforce`` in a thread, unless one is running or nothing is configured."""
        rules = self.settings
        if rules == RetentionSettings() or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._run, name="flashflow-prune", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current slice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        try:
            self.enforce()
        except FlashFlowError as error:
            log.warning("pruning stopped; it continues within the hour: %s", error)
        except Exception:
            log.exception("pruning failed; it runs again within the hour")

    def enforce(self) -> PruneResult:
        """Prune by age, then by size, as configured."""
        rules, now_ms, total = self.settings, self._clock.now_ms(), Pruned()
        for days, step in (
            (rules.activities_days, self._activities_slice),
            (rules.notifications_days, self._notifications_slice),
        ):
            if days is not None:
                for done in self._slices(step, now_ms - days * DAY_MS):
                    total = _sum(total, done)
        if rules.max_mb is not None:
            total = _sum(total, self._by_size(rules.max_mb * MIB, now_ms))
        return self._publish(_result(total, False))

    def _publish(self, result: PruneResult) -> PruneResult:
        """Publish an event if rows were deleted, so that screens read again."""
        if result.notifications:
            search.sweep(self._notifications.store)
        if result.activities or result.sessions or result.notifications:
            self._activity.bus.publish([Event("pruning")])
        return result

    def _by_size(self, most: int, now_ms: int) -> Pruned:
        total, through = Pruned(), 0
        for step in (self._activities_slice, self._notifications_slice):
            if self._size() <= most:
                break
            for done in self._slices(step, now_ms):
                total, through = _sum(total, done), max(through, done.through)
                if self._size() <= most:
                    break
        if through:  # and the sessions of these activities
            for done in self._slices(self._activities_slice, through):
                total = _sum(total, done)
        return total

    def _size(self) -> int:
        status = self.status()
        return status.activity_bytes + status.notification_bytes

    def _slices(self, step: Callable[[Slice], Pruned], before_ms: int) -> Iterator[Pruned]:
        """Run ``step`` slice by slice until nothing is left or ``stop`` is called; adapt the slice to its duration."""
        rows = FIRST
        while not self._stopping.is_set():
            started = self._clock.monotonic()
            done = step(Slice(before_ms, rows))
            if not done:
                return
            took = self._clock.monotonic() - started
            rows = max(FEWEST, rows // 2) if took > SLOW_S else min(MOST, rows * 2) if took < QUICK_S else rows
            yield done

    def _activities_slice(self, which: Slice) -> Pruned:
        return self._activity.store.write(lambda tx: self._prune_activities(tx, which))

    def _notifications_slice(self, which: Slice) -> Pruned:
        return self._notifications.store.write(lambda tx: retention.prune_notifications(tx, which))

    def _prune_activities(self, tx: Tx, which: Slice) -> Pruned:
        done = retention.prune_activities(tx, which, self._activity.cache)
        self._activity.admission.update_pruned_before(tx)
        return done


def _sum(one: Pruned, other: Pruned) -> Pruned:
    return Pruned(
        activities=one.activities + other.activities,
        sessions=one.sessions + other.sessions,
        notifications=one.notifications + other.notifications,
    )


def _result(total: Pruned, more: bool) -> PruneResult:
    activities, sessions, notifications, _ = total
    return PruneResult(activities=activities, sessions=sessions, notifications=notifications, more=more)
