"""Maintenance of the two files: backups, integrity checks, text repair, unfinished erasures."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.clock import file_stamp
from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.events import Event
from flashflow.backend.data.erasure import Erasure
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.store.engine import damaged_text
from flashflow.backend.store.engine.backup import back_up, backups_folder, is_sound
from flashflow.backend.store.engine.database import Store, mark_suspect
from flashflow.backend.store.engine.idempotency import delete_expired_responses
from flashflow.backend.store.engine.open import CHECK_AT_START_BYTES
from flashflow.backend.store.engine.writer import Write

log = logging.getLogger(__name__)


class Maintenance:
    """Maintenance over both services. Thread-safe.

    ``notices`` collects messages for the owner; ``notify`` sends one to their inbox, with title and text.
    """

    def __init__(
        self,
        activity: UserActivityService,
        notifications: NotificationService,
        erasing: Erasure,
        *,
        notices: list[str],
        notify: Callable[[str, str], None],
    ) -> None:
        self._stores = (activity.store, notifications.store)
        self._paths = tuple(Path(str(store.database.database)) for store in self._stores)
        self._clock = activity.clock
        self._bus = activity.bus
        self._erasing = erasing
        self._notices = notices
        self._notify = notify
        self._replacing: threading.Thread | None = None
        self._replaced: set[tuple[str, str]] = set()

    def finish_erasing(self) -> None:
        """Finish erasures that an earlier process left, before the first request. Failures are retried every minute."""
        try:
            self._erasing.finish()
        except FlashFlowError as error:
            log.warning("an erasure could not be finished at the start: %s", error)

    def delete_old_responses(self) -> None:
        """Delete responses stored under an Idempotency-Key after 24 hours."""
        for store in self._stores:
            store.write(delete_expired_responses)

    def back_up_daily(self) -> None:
        """Back up each file once a day, after a running erasure. Raises the failure of one after trying the other."""
        today = file_stamp(self._clock.now_ms())[:8]
        failure: FlashFlowError | None = None
        for path in self._paths:
            # Not during an erasure: a backup must be entirely from before it (and is deleted by it) or after it.
            with self._erasing.lock:
                if not any(backups_folder(path).glob(f"{path.stem}.{today}*.daily.db")):
                    try:
                        back_up(path, self._clock, "daily")
                    except FlashFlowError as error:
                        failure = error
        if failure is not None:
            raise failure

    def check_large_files(self) -> None:
        """Check files that were too large for the check at start, in a separate thread."""
        large = [path for path in self._paths if path.stat().st_size > CHECK_AT_START_BYTES]
        if large:
            threading.Thread(target=self._check, args=(large,), name="flashflow-check", daemon=True).start()

    def replace_damaged_text(self) -> None:
        """Replace and mark text that is not UTF-8, after a read has found some; in a separate thread."""
        damaged = [store for store in self._stores if store.database.tolerant]
        if damaged and not (self._replacing is not None and self._replacing.is_alive()):
            self._replacing = threading.Thread(
                target=self._replace, args=(damaged,), name="flashflow-repair", daemon=True
            )
            self._replacing.start()

    def _replace(self, stores: list[Store]) -> None:
        for store in stores:
            path = Path(str(store.database.database))
            try:
                found = list(damaged_text.scan(path))
                left = 0
                for start in range(0, len(found), damaged_text.AT_ONCE):
                    left += store.run(Write(damaged_text.replace, found[start : start + damaged_text.AT_ONCE]))
            except (sqlite3.Error, FlashFlowError) as error:
                log.warning("damaged text in %s could not be replaced yet: %s", path.name, error)
                continue
            if left == 0:
                store.database.tolerate(False)
            if new := {(damage.table, str(damage.key)) for damage in found} - self._replaced:
                self._replaced |= new
                tables = ", ".join(sorted({table for table, _ in new}))
                rows = f"{len(new):,} row{'s' if len(new) > 1 else ''} of {tables}"
                self._report(
                    path,
                    f"{path.name} had text that is not UTF-8 in {rows}. Each unreadable byte was replaced by “�”; "
                    "a backup may still hold the original.",
                )

    def _report(self, path: Path, sentence: str) -> None:
        self._notices.append(sentence)
        self._notify("Your data is damaged", sentence)
        log.error(sentence)
        self._bus.publish([Event("file.damaged", path.name)])

    def damaged_rows(self) -> int:
        """Return the number of rows in both files whose text was not UTF-8."""
        return sum(store.read(damaged_text.count_rows) for store in self._stores)

    def _check(self, paths: list[Path]) -> None:
        for path in paths:
            try:
                sound = is_sound(path)
            except sqlite3.Error as error:
                log.warning("%s could not be checked: %s", path.name, error)
                continue
            if not sound:
                mark_suspect(path)
                self._report(
                    path, f"{path.name} is damaged. Restart FlashFlow: it will set the file aside and restore a backup."
                )
