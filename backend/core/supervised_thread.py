"""Long-lived threads that restart their work after a failure and report it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

REST_S = 1.0
SHOWN_S = 60.0
"""Seconds after a failure for which a restarted thread counts as failing."""


class SupervisedThread(threading.Thread):
    """Daemon thread that runs ``work`` until ``stopping`` returns True.

    When ``work`` raises or returns before that, it is called again after ``rest_s`` seconds.
    """

    def __init__(
        self, name: str, work: Callable[[], None], stopping: Callable[[], bool], rest_s: float = REST_S
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._stopping = stopping
        self._rest_s = rest_s
        self._failed_at: float | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the thread failed within SHOWN_S seconds, or ended before ``stopping``."""
        if self.ident is None or self._stopping():
            return False
        return not self.is_alive() or (self._failed_at is not None and time.monotonic() - self._failed_at < SHOWN_S)

    def run(self) -> None:
        while True:
            try:
                self._work()
            except BaseException:  # any exception: the work must continue
                log.exception("the thread %s failed; it starts again", self.name)
            else:
                if self._stopping():
                    return
                log.error("the thread %s ended by itself; it starts again", self.name)
            if self._stopping():
                return
            self._failed_at = time.monotonic()
            time.sleep(self._rest_s)
