"""What happens every so often, by ``schedule``'s own Scheduler. Jobs fail alone.

``schedule`` reads the wall clock, which may jump: a clock set back an hour would silence it for an hour. So nothing
here decides by it *what* is due (each job asks the database), and when the two clocks part, every job runs and starts
anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import schedule

from backend.errors import FlashFlowError

log = logging.getLogger(__name__)

TICK_S = 0.5
JUMP_S = 2.0


class Jobs:
    """A thread that ticks a scheduler. ``every`` before ``start``; ``stop`` ends it within one tick."""

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._scheduler = schedule.Scheduler()
        self._stopping = threading.Event()
        self._tick_s = tick_s
        self._thread = threading.Thread(target=self._run, name="flashflow-jobs", daemon=True)

    def every(self, seconds: int, job: Callable[[], object]) -> None:
        """Run ``job`` every ``seconds``; what it raises is logged and stops no other job."""

        def alone() -> None:
            try:
                job()
            except FlashFlowError as refusal:
                log.warning("a job could not be done; it runs again in %d s: %s", seconds, refusal)
            except Exception:
                log.exception("a job failed; it runs again in %d s", seconds)

        self._scheduler.every(seconds).seconds.do(alone)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        self._scheduler.run_all()
        apart = time.time() - time.monotonic()
        while not self._stopping.wait(self._tick_s):
            now_apart = time.time() - time.monotonic()
            if abs(now_apart - apart) > JUMP_S:
                apart = now_apart
                self._scheduler.run_all()
            self._scheduler.run_pending()
