"""Erase a user from both files for good, and readmit them.

Order: the tombstone with the work left to do, the rows in slices, then traces on disk (WAL, free pages, backups). The
next start continues an interrupted erasure.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.errors import NotFound
from flashflow.backend.core.events import Event
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.schemas.records import Record
from flashflow.backend.store.notifications import search
from flashflow.backend.store.privacy import erasure, secure_wipe, tombstones
from flashflow.backend.store.privacy.rollup_erasure import subtract_user
from flashflow.backend.store.privacy.tombstones import ROWS, TRACES, Tombstone

KINDS = (
    "activities", "sessions", "consents", "notifications", "deliveries", "attempts", "preferences", "contacts",
    "quiet_hours", "digests", "throttles", "devices", "schedules",
    "rules",
)  # fmt: skip


class ErasedUser(Record, frozen=True, kw_only=True):
    """Result of an erasure. ``swept``: no trace is left in free pages and WAL; ``remains``: damaged files that were set
    aside, which still hold the rows, and texts of apps and other users that name the user."""

    erased_at: datetime
    removed: dict[str, int]
    backups_removed: int
    swept: bool
    remains: tuple[str, ...]


class Erasure:
    """Erases users from both stores, one at a time."""

    def __init__(self, activity: UserActivityService, notifications: NotificationService) -> None:
        self._activity = activity
        self._stores = (activity.store, notifications.store)
        self._paths = [Path(str(store.database.database)) for store in self._stores]
        self._clock = activity.clock
        self.lock = threading.Lock()
        """Held by an erasure, and by work that must not see half of one."""

    def erase(self, user_id: str, *, even_if_unknown: bool = False) -> ErasedUser:
        """Erase the user and refuse later writes about them. A second call counts zeros.

        Raises NotFound, and changes nothing, for a user of whom nothing is stored, unless ``even_if_unknown``.
        """
        # A mistyped id must not cost the backups and the answers stored for Idempotency-Keys.
        with self.lock:
            earlier = self._stores[0].read(lambda conn: tombstones.find(conn, user_id))
            if earlier is None and not even_if_unknown and not self._knows(user_id):
                raise NotFound(f"Nothing is stored of {user_id!r}; nothing was changed.")
            stone = self._stores[0].write(lambda tx: tombstones.add_tombstone(tx, user_id, ROWS))
            return self._continue(stone, swept_before=earlier is not None and earlier.left_to_do is None)

    def finish(self) -> int:
        """Finish erasures that an earlier process began; return their number. Does nothing while one is running."""
        if not self.lock.acquire(blocking=False):
            return 0
        try:
            stones = self._stores[0].read(tombstones.unfinished)
            for stone in stones:
                self._continue(stone)
        finally:
            self.lock.release()
        return len(stones)

    def readmit(self, user_id: str) -> bool:
        """Remove the user's tombstones; return whether they had been erased. Erased rows do not come back."""
        with self.lock:
            lifted = [store.write(lambda tx: tombstones.remove_tombstone(tx, user_id)) for store in self._stores]
        return any(lifted)

    def _knows(self, user_id: str) -> bool:
        activity, notifications = self._stores
        return activity.read(lambda conn: erasure.knows_activities(conn, user_id)) or notifications.read(
            lambda conn: erasure.knows_notifications(conn, user_id)
        )

    def _continue(self, stone: Tombstone, *, swept_before: bool = False) -> ErasedUser:
        removed: Counter[str] = Counter()
        _, notifications = self._stores
        user_id = stone.user_id
        if stone.left_to_do == ROWS:
            assert user_id is not None
            notifications.write(lambda tx: tombstones.add_tombstone(tx, user_id, None))
            removed.update(self._erase_rows(user_id))
            self._activity.bus.publish([Event("erasure")])  # without the user id: nothing may name them any more
            if swept_before and not removed:
                self._note_left(stone, None)
                return _erased_user(stone, removed, 0, True, self._remains(user_id))
            for store in self._stores:
                store.write(erasure.erase_idempotency_answers)
            self._note_left(stone, TRACES)
        # From here on only the hash is stored: the id must be in no new backup.
        search.sweep(notifications)
        swept = sum(secure_wipe.sweep(path) for path in self._paths) == len(self._paths)
        backups = sum(secure_wipe.renew_backups(path, self._clock) for path in self._paths)
        if swept:  # else the next start tries again
            self._note_left(stone, None)
        return _erased_user(stone, removed, backups, swept, self._remains(user_id))

    def _note_left(self, stone: Tombstone, left_to_do: str | None) -> None:
        self._stores[0].write(lambda tx: tombstones.note_left(tx, stone.user_hash, left_to_do))

    def _remains(self, user_id: str | None) -> tuple[str, ...]:
        # ``user_id`` is None if an earlier process removed the rows: texts cannot be searched by the hash.
        files = tuple(name for path in self._paths for name in secure_wipe.set_aside(path))
        if user_id is None:
            return files
        return files + self._stores[1].read(lambda conn: erasure.mentions(conn, user_id))

    def _erase_rows(self, user_id: str) -> Counter[str]:
        removed: Counter[str] = Counter()
        activity, notifications = self._stores
        activity.write(lambda tx: subtract_user(tx, self._activity.local, user_id))
        if devices := notifications.read(lambda conn: erasure.devices_of(conn, user_id)):
            seqs = notifications.read(lambda conn: erasure.sent_to_devices(conn, devices))
            for start in range(0, len(seqs) or 1, erasure.SLICE):
                some = seqs[start : start + erasure.SLICE]
                notifications.write(partial(erasure.erase_tokens, seqs=some, devices=devices))
        while gone := activity.write(lambda tx: erasure.erase_activities(tx, user_id, self._activity.cache)):
            removed.update(gone)
        while gone := notifications.write(lambda tx: erasure.erase_notifications(tx, user_id)):
            removed.update(gone)
        return removed


def _erased_user(
    stone: Tombstone, removed: Counter[str], backups: int, swept: bool, remains: tuple[str, ...]
) -> ErasedUser:
    return ErasedUser(
        erased_at=to_datetime(stone.erased_at),
        removed={kind: removed[kind] for kind in KINDS},
        backups_removed=backups,
        swept=swept,
        remains=remains,
    )
