"""Periodic jobs, run by a private Scheduler of the package ``schedule``. A job's failure does not affect others."""

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
    """Threads that run periodic jobs: one for short jobs, one for each long job.

    Call ``every`` before ``start``. ``stop`` ends the threads within one tick, or after the job in progress.
    """

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._scheduler = schedule.Scheduler()
        self._stopping = threading.Event()
        self._tick_s = tick_s
        self.threads = [self._thread("flashflow-jobs", self._scheduler)]

    def every(self, seconds: int, job: Callable[[], object], *, long: bool = False) -> None:
        """Run ``job`` every ``seconds``; its exceptions are logged. A ``long`` job gets its own thread."""

        def run_safely() -> None:
            try:
                job()
            except FlashFlowError as refusal:
                log.warning("a job was refused; it runs again in %d s: %s", seconds, refusal)
            except Exception:
                log.exception("a job failed; it runs again in %d s", seconds)

        scheduler = self._scheduler
        if long:
            scheduler = schedule.Scheduler()
            self.threads.append(self._thread(f"flashflow-job-{len(self.threads)}", scheduler))
        scheduler.every(seconds).seconds.do(run_safely)

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
        clock_offset = time.time() - time.monotonic()
        while not self._stopping.wait(self._tick_s):
            new_offset = time.time() - time.monotonic()
            if abs(new_offset - clock_offset) > JUMP_S:
                # `schedule` reads the wall clock: set back an hour, it would pause for an hour. Running a job early is
                # harmless, because each job asks the database for due work.
                clock_offset = new_offset
                scheduler.run_all()
            scheduler.run_pending()
