"""Dismiss desktop toasts of read notifications in a background thread: the desktop may answer slowly."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from flashflow.backend.core.supervised_thread import SupervisedThread

MOST = 100
"""Most toasts dismissed for one call (an inbox marked read): no desktop shows more."""


class ToastDismissals:
    """Queue of toasts to dismiss and its thread, which starts with the first toast."""

    def __init__(self, dismiss: Callable[[str], object]) -> None:
        self._dismiss = dismiss
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.thread: SupervisedThread | None = None
        """The background thread; None before the first toast."""
        self._gate = threading.Lock()
        self._stopped = False

    def add(self, notification_ids: Sequence[str]) -> None:
        """Queue the toasts of these notifications for dismissal. Return at once."""
        with self._gate:
            if self._stopped:
                return
            if self.thread is None:
                self.thread = SupervisedThread("flashflow-dismiss", self._run, lambda: self._stopped)
                self.thread.start()
        for notification_id in notification_ids[-MOST:]:
            self._queue.put(notification_id)

    def stop(self, wait_s: float = 0.5) -> None:
        """Dismiss no more and wait up to ``wait_s`` seconds; a call that hangs stays in its daemon thread."""
        with self._gate:
            self._stopped = True
            thread = self.thread
        if thread is not None:
            self._queue.put(None)
            thread.join(wait_s)

    def _run(self) -> None:
        while (notification_id := self._queue.get()) is not None and not self._stopped:
            self._dismiss(notification_id)
