"""Rollup maintenance: aggregation of new activities, change of time zone, verification, rebuild, key activities."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.schemas.analytics import ActivityType
from flashflow.backend.schemas.requests import ActivityTypeIn, build
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.analytics.key_activities import list_types, mark, recount, to_recount
from flashflow.backend.store.analytics.verify import Difference, rebuild, stored_zone, verify
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write, each_item
from flashflow.backend.store.rollups import packed_timestamps
from flashflow.backend.store.rollups.dimensions import feature, site

AGGREGATE_ON_OPEN = 256
"""Pending activities above which opening a file aggregates them: queries of open sessions read each of them."""


def sql_functions(local: LocalTime) -> Callable[[sqlite3.Connection], None]:
    """Return a function that registers the SQL functions of the rollup statements on a connection."""

    def prepare(conn: sqlite3.Connection) -> None:
        conn.create_function("local_hour", 1, local.hour, deterministic=True)
        conn.create_function("site", 1, site, deterministic=True)
        conn.create_function("feature", 1, feature, deterministic=True)
        packed_timestamps.register_functions(conn)

    return prepare


class RollupMaintenance:
    """Maintain the rollups of one ``user_activities.db``. All methods are thread-safe."""

    def __init__(self, store: Store, local: LocalTime, cache: SessionCache) -> None:
        self._store = store
        self._local = local
        self._cache = cache

    def aggregate_pending(self) -> None:
        """Aggregate all stored activities into the rollups. Raises StorageError if they cannot be written."""
        while self._store.read(user_index.tail_length) and self._store.write(self.catch_up):
            pass

    def catch_up(self, tx: Tx) -> bool:
        """Aggregate one batch of pending activities; return whether more are left."""
        return user_index.catch_up(tx, self._local)

    def count(self, tx: Tx) -> bool:
        """Do ``catch_up`` and update the counters of ``user_analytics``."""
        user_index.count_tail(tx)
        return self.catch_up(tx)

    # --- time zone ------------------------------------------------------------------------------------------------

    def apply_zone(self) -> None:
        """Rebuild the rollups if they are by another time zone than the workspace's, and aggregate the activities that
        an earlier process left pending."""
        zone = self._store.read(stored_zone)
        if zone != self._local.zone.key:
            self._store.write(self._rebuild)
        if self._store.read(user_index.tail_length) > AGGREGATE_ON_OPEN:
            self.aggregate_pending()

    # --- verification ---------------------------------------------------------------------------------------------

    def verify(self) -> tuple[Difference, ...]:
        """Recompute every rollup from the raw rows and return the differences. Reads the whole file."""
        self.aggregate_pending()
        return self._store.read(lambda conn: tuple(verify(conn)))

    def rebuild(self) -> None:
        """Recompute every rollup from the raw rows in one transaction."""

        def step(tx: Tx) -> None:
            self._rebuild(tx)
            tx.events.append(Event("rollups.rebuilt"))

        self._store.write(step)

    def _rebuild(self, tx: Tx) -> None:
        rebuild(tx, self._local)
        self._cache.invalidate()

    # --- key activities -------------------------------------------------------------------------------------------

    def activity_types(self) -> tuple[ActivityType, ...]:
        """List activity types with counts of their own, and which of them are key activities."""
        self.aggregate_pending()
        return self._store.read(list_types)

    def mark_key_activity(self, name: str, is_key: bool = True) -> ActivityType:
        """Mark a type as a key activity, or no longer, and recount the sessions in short transactions. A session with a
        key activity is engaged. Raises ValidationError."""
        marked = self._store.run(self.mark_key_activity_write(name, is_key))
        self.recount()
        return marked

    def recount(self, seconds: float | None = None) -> bool:
        """Recount sessions after a change of key activities for at most ``seconds``; return whether some are left."""
        until = None if seconds is None else time.monotonic() + seconds
        while self._store.read(to_recount):
            self._store.write(lambda tx: recount(tx, self._cache))
            if until is not None and time.monotonic() > until:
                break
        return self._store.read(to_recount)

    def mark_key_activity_write(self, name: str, is_key: bool) -> Write[tuple[str, bool], ActivityType]:
        """Build the write of ``mark_key_activity``; call ``recount`` after it."""
        return Write(self._mark, (build(ActivityTypeIn, name=name, key=is_key).name, is_key))

    @each_item
    def _mark(self, tx: Tx, item: tuple[str, bool]) -> ActivityType:
        marked = mark(tx, *item)
        self._cache.invalidate()
        if marked is None:
            raise ValidationError.of("name", "cannot have counts of its own: there are too many activity types")
        return marked
