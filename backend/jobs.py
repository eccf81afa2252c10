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

from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.supervised_thread import SupervisedThread

log = logging.getLogger(__name__)

TICK_S = 0.5
JUMP_S = 2.0
STOP_S = 5.0


class Jobs:
    """A thread that ticks a scheduler, and one more for each job that may take long. ``every`` before ``start``;
    ``stop`` ends them within one tick, or after the job that is under way."""

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._scheduler = schedule.Scheduler()
        self._stopping = threading.Event()
        self._tick_s = tick_s
        self.threads = [self._thread("flashflow-jobs", self._scheduler)]

    def every(self, seconds: int, job: Callable[[], object], *, long: bool = False) -> None:
        """Run ``job`` every ``seconds``; what it raises is logged and stops no other job. A ``long`` one has a thread
        of its own, so that no other waits for it."""

        def alone() -> None:
            try:
                job()
            except FlashFlowError as refusal:
                log.warning("a job could not be done; it runs again in %d s: %s", seconds, refusal)
            except Exception:
                log.exception("a job failed; it runs again in %d s", seconds)

        scheduler = self._scheduler
        if long:
            scheduler = schedule.Scheduler()
            self.threads.append(self._thread(f"flashflow-job-{len(self.threads)}", scheduler))
        scheduler.every(seconds).seconds.do(alone)

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        end = time.monotonic() + STOP_S
        for thread in self.threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _thread(self, name: str, scheduler: schedule.Scheduler) -> SupervisedThread:
        return SupervisedThread(name, lambda: self._run(scheduler), self._stopping.is_set, self._tick_s)

    def _run(self, scheduler: schedule.Scheduler) -> None:
        scheduler.run_all()
        apart = time.time() - time.monotonic()
        while not self._stopping.wait(self._tick_s):
            now_apart = time.time() - time.monotonic()
            if abs(now_apart - apart) > JUMP_S:
                apart = now_apart
                scheduler.run_all()
            scheduler.run_pending()
