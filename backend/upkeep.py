"""What the two files need from time to time: backups, a check, and the end of what an earlier process left undone."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from backend.clock import rfc3339
from backend.erasing import Erasing
from backend.errors import FlashFlowError
from backend.events import Event
from backend.notification_service import NotificationService
from backend.store.opening import CHECK_AT_START_BYTES, mark_suspect
from backend.store.recovery import back_up, backups_folder, is_sound
from backend.store.writer import Tx, Write
from backend.user_activity_service import UserActivityService

log = logging.getLogger(__name__)

DAY_MS = 86_400_000


class Upkeep:
    """Over both services; ``tell`` takes what the person should know. Every call may be made from any thread."""

    def __init__(
        self, activity: UserActivityService, notifications: NotificationService, erasing: Erasing, *, tell: list[str]
    ) -> None:
        self._stores = (activity.store, notifications.store)
        self._paths = tuple(Path(str(store.database.database)) for store in self._stores)
        self._clock = activity.clock
        self._bus = activity.bus
        self._erasing = erasing
        self._tell = tell

    def finish_erasing(self) -> None:
        """Before anything is answered; what cannot be done now is tried again every minute."""
        try:
            self._erasing.finish()
        except FlashFlowError as error:
            log.warning("an erasure could not be finished at the start: %s", error)

    def forget_answers(self) -> None:
        """Drop answers under an Idempotency-Key after their 24 hours."""
        for store in self._stores:
            store.run(Write(_forget, None))

    def back_up_daily(self) -> None:
        """Unless today's backup is there."""
        today = rfc3339(self._clock.now_ms())[:10].replace("-", "")
        for path in self._paths:
            if not any(backups_folder(path).glob(f"{path.stem}.{today}*.daily.db")):
                # A backup is all from before an erasure, and goes with it, or all from after it.
                self._erasing.unless_erasing(lambda at=path: back_up(at, self._clock, "daily"))  # type: ignore[misc]

    def check_large_files(self) -> None:
        """Those that were too large to be looked through before the start, in a thread of its own."""
        large = [path for path in self._paths if path.stat().st_size > CHECK_AT_START_BYTES]
        if large:
            threading.Thread(target=self._check, args=(large,), name="flashflow-check", daemon=True).start()

    def _check(self, paths: list[Path]) -> None:
        for path in paths:
            try:
                sound = is_sound(path)
            except sqlite3.Error as error:
                log.warning("%s could not be checked: %s", path.name, error)
                continue
            if not sound:
                mark_suspect(path)
                sentence = (
                    f"{path.name} is damaged. Restart FlashFlow: it will set the file aside and restore a backup."
                )
                self._tell.append(sentence)
                log.error(sentence)
                self._bus.publish([Event("system", path.name)])


def _forget(tx: Tx, items: Sequence[None]) -> list[None]:
    tx.conn.execute("DELETE FROM idempotency_keys WHERE created_at < ?", (tx.now_ms - DAY_MS,))
    return [None] * len(items)
