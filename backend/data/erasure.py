"""Erasing a person from both files for good, and letting them back in.

The tombstone comes first, with what is left to do; the rows after it, a few hundred at a time; then what the disk still
holds of them. Whatever ends the process in between, the next start goes on from there.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.errors import NotFound
from flashflow.backend.core.events import Event
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.schemas.records import Record
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications import search
from flashflow.backend.store.privacy import erasure, secure_wipe, tombstones
from flashflow.backend.store.privacy.rollup_erasure import subtract_user
from flashflow.backend.store.privacy.tombstones import ROWS, TRACES, Tombstone

"""The event that tells of an erasure, once the rows are gone."""
KINDS = (
    "activities", "sessions", "consents", "notifications", "deliveries", "attempts", "preferences", "contacts",
    "quiet_hours", "digests", "throttles", "devices", "schedules",
    "rules",
)  # fmt: skip


class ErasedPerson(Record, frozen=True, kw_only=True):
    """What an erasure removed. ``swept``: whether the files' free pages hold nothing of it any more; ``remains``: files
    that were set aside as damaged and still hold what they held, and texts of others that still name the person."""

    erased_at: datetime
    removed: dict[str, int]
    backups_removed: int
    swept: bool
    remains: tuple[str, ...]


class _Marked(NamedTuple):
    user_id: str
    left_to_do: str | None


class Erasure:
    """Over both services; one erasure at a time."""

    def __init__(self, activity: UserActivityService, notifications: NotificationService) -> None:
        self._activity = activity
        self._stores = (activity.store, notifications.store)
        self._paths = [Path(str(store.database.database)) for store in self._stores]
        self._clock = activity.clock
        self._one = threading.Lock()

    def erase(self, user_id: str, *, even_if_unknown: bool = False) -> ErasedPerson:
        """Erase the user, and refuse whatever would bring them back. Erased before: what little there is, zeros.

        Raises NotFound, and changes nothing, for a user of whom nothing is stored, unless ``even_if_unknown``: a
        mistyped id must cost neither the earlier backups nor the answers kept under Idempotency-Keys.
        """
        with self._one:
            earlier = self._stores[0].read(lambda conn: tombstones.find(conn, user_id))
            if earlier is None and not even_if_unknown and not self._knows(user_id):
                raise NotFound(f"Nothing is stored of {user_id!r}; nothing was changed.")
            stone = self._stores[0].run(Write(_mark, _Marked(user_id, ROWS)))
            return self._go_on(stone, swept_before=earlier is not None and earlier.left_to_do is None)

    def finish(self) -> int:
        """Finish what an earlier process began; how many erasures that were. While one is under way: nothing."""
        stones: list[Tombstone] = []

        def work() -> None:
            stones.extend(self._stores[0].read(tombstones.unfinished))
            for stone in stones:
                self._go_on(stone)

        self.unless_erasing(work)
        return len(stones)

    def readmit(self, user_id: str) -> bool:
        """Let the user be stored again; whether they had been erased. What was erased stays erased."""
        with self._one:
            lifted = [store.run(Write(_readmit, user_id)) for store in self._stores]
        return any(lifted)

    def unless_erasing(self, work: Callable[[], object]) -> bool:
        """Do ``work``, and erase nothing meanwhile; False: an erasure is under way, and it was not done."""
        if not self._one.acquire(blocking=False):
            return False
        try:
            work()
        finally:
            self._one.release()
        return True

    def _knows(self, user_id: str) -> bool:
        activity, notifications = self._stores
        return activity.read(lambda conn: erasure.knows_activities(conn, user_id)) or notifications.read(
            lambda conn: erasure.knows_notifications(conn, user_id)
        )

    def _go_on(self, stone: Tombstone, *, swept_before: bool = False) -> ErasedPerson:
        removed: Counter[str] = Counter()
        activity, notifications = self._stores
        if stone.left_to_do == ROWS:
            assert stone.user_id is not None
            notifications.run(Write(_mark, _Marked(stone.user_id, None)))
            removed.update(self._rows(stone.user_id))
            self._activity.bus.publish([Event("erasure")])  # without the user: nothing may name them any more
            if swept_before and not removed:
                activity.run(Write(_note, (stone.user_hash, None)))
                return _told(stone, removed, 0, True, self._remains(stone.user_id))
            for store in self._stores:
                store.run(Write(_forget_answers, None))
            activity.run(Write(_note, (stone.user_hash, TRACES)))
        # The id went with the rows; from here on there is only the hash, in the files as in the backups made of them.
        search.sweep(notifications)
        swept = sum(secure_wipe.sweep(path) for path in self._paths) == len(self._paths)
        backups = sum(secure_wipe.renew_backups(path, self._clock) for path in self._paths)
        if swept:  # else the next start tries again
            activity.run(Write(_note, (stone.user_hash, None)))
        return _told(stone, removed, backups, swept, self._remains(stone.user_id))

    def _remains(self, user_id: str | None) -> tuple[str, ...]:
        """``user_id`` is None where an earlier process removed the rows: then only its hash is left to look for."""
        files = tuple(name for path in self._paths for name in secure_wipe.set_aside(path))
        if user_id is None:
            return files
        return files + self._stores[1].read(lambda conn: erasure.mentions(conn, user_id))

    def _rows(self, user_id: str) -> Counter[str]:
        removed: Counter[str] = Counter()
        activity, notifications = self._stores
        activity.run(Write(self._forget_figures, user_id))
        if devices := notifications.read(lambda conn: erasure.devices_of(conn, user_id)):
            named = notifications.read(lambda conn: erasure.naming_devices(conn, devices))
            for start in range(0, len(named) or 1, erasure.SLICE):
                notifications.run(Write(_forget_tokens, (named[start : start + erasure.SLICE], devices)))
        for store, step in ((activity, self._forget_activities), (notifications, _forget_notifications)):
            while gone := store.run(Write(step, user_id)):
                removed.update(gone)
        return removed

    def _forget_figures(self, tx: Tx, items: Sequence[str]) -> list[None]:
        for user_id in items:
            subtract_user(tx, self._activity.local, user_id)
        return [None] * len(items)

    def _forget_activities(self, tx: Tx, items: Sequence[str]) -> list[dict[str, int]]:
        return [erasure.erase_activities(tx, user_id, self._activity.cache) for user_id in items]


def _forget_notifications(tx: Tx, items: Sequence[str]) -> list[dict[str, int]]:
    return [erasure.erase_notifications(tx, user_id) for user_id in items]


def _forget_tokens(tx: Tx, items: Sequence[tuple[list[int], frozenset[str]]]) -> list[None]:
    for seqs, devices in items:
        erasure.erase_tokens(tx, seqs, devices)
    return [None] * len(items)


def _forget_answers(tx: Tx, items: Sequence[None]) -> list[None]:
    erasure.erase_idempotency_answers(tx)
    return [None] * len(items)


def _mark(tx: Tx, items: Sequence[_Marked]) -> list[Tombstone]:
    return [tombstones.add_tombstone(tx, user_id, left_to_do) for user_id, left_to_do in items]


def _note(tx: Tx, items: Sequence[tuple[bytes, str | None]]) -> list[None]:
    for user_hash, left_to_do in items:
        tombstones.note_left(tx, user_hash, left_to_do)
    return [None] * len(items)


def _readmit(tx: Tx, items: Sequence[str]) -> list[bool]:
    return [tombstones.remove_tombstone(tx, user_id) for user_id in items]


def _told(stone: Tombstone, removed: Counter[str], backups: int, swept: bool, remains: tuple[str, ...]) -> ErasedPerson:
    return ErasedPerson(
        erased_at=to_datetime(stone.erased_at),
        removed={kind: removed[kind] for kind in KINDS},
        backups_removed=backups,
        swept=swept,
        remains=remains,
    )
