"""Run the jobs of a project on their schedules: each due time once, after a stop at most one that was missed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Protocol

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.clock import Clock
from flashflow.backend.core.deadline import run_in_thread
from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.flow.actions import ActionResult
from flashflow.backend.flow.language.declarations import Job
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.store.flow.project_state import JobRun, claim_run, job_runs, move_to_now, save_outcome

log = logging.getLogger(__name__)

LONGEST_S = 60.0
"""Seconds after which a job ends before its next action."""
AT_ONCE = 4
"""Jobs that run at the same time; further ones wait."""
STOP_S = 5.0
LONGEST_ERROR = 500
FAULT = "An internal error stopped the job; the log has the details."

RunActions = Callable[[Job, Callable[[], bool]], ActionResult]
"""Run the actions of a job until they are done or the given function returns True."""
Report = Callable[[str, str], None]
"""Called with the name and the error of a job that fails after a success."""


class Parts(Protocol):
    """The services that runs are recorded in."""

    clock: Clock
    activity: UserActivityService
    notifications: NotificationService


@dataclass(slots=True)
class _Running:
    future: Future[None]
    since: float
    is_overdue: bool = False


class JobRunner:
    """Runs due jobs, each in a thread. Thread-safe."""

    def __init__(self, parts: Parts, run_actions: RunActions, report: Report) -> None:
        self._parts = parts
        self._run_actions = run_actions
        self._report = report
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._next: dict[tuple[str, str, int, int], int] = {}
        self._stopping = False

    def run_due(self, jobs: tuple[Job, ...]) -> list[str]:
        """Start every due job; return their names. Call it every second."""
        with self._lock:
            for name, running in list(self._running.items()):
                if running.future.done():
                    del self._running[name]
                elif not running.is_overdue and time.monotonic() - running.since > LONGEST_S:
                    running.is_overdue = True
                    self._note(name, f"The job takes longer than {LONGEST_S:.0f} s.")
            if not jobs or self._stopping:
                return []
            now = self._parts.clock.now_ms()
            store = self._parts.notifications.store
            runs = store.read(job_runs)
            if any(max(run.since, run.last_at or 0) > now for run in runs.values()):  # else silent until that time
                store.write(move_to_now)
                runs = store.read(job_runs)
            return [job.name for job in jobs if (run := runs.get(job.name)) is not None and self._start(job, run, now)]

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the running jobs have ended."""
        wait_for([running.future for running in self._running.values()], seconds)

    def stop(self) -> None:
        """Let running jobs end before their next action, and start no more."""
        with self._lock:
            self._stopping = True
        self.wait(STOP_S)

    def _start(self, job: Job, run: JobRun, now: int) -> bool:
        if job.name in self._running or len(self._running) >= AT_ONCE or self._due(job, run) > now:
            return False
        # Recorded before the run: after a kill the job does not run twice.
        if not self._parts.notifications.store.write(lambda tx: claim_run(tx, job.name, run.last_at)):
            return False
        since = time.monotonic()
        is_over = lambda: self._stopping or time.monotonic() - since > LONGEST_S  # noqa: E731
        future = run_in_thread(f"flashflow-flow-{job.name}", lambda: self._run(job, run.last_error, is_over))
        self._running[job.name] = _Running(future, since)
        return True

    def _due(self, job: Job, run: JobRun) -> int:
        """Return the first due time after the last run."""
        last = run.since if run.last_at is None else run.last_at
        key = (job.name, job.schedule.text, run.since, last)
        if key not in self._next:
            self._next = {known: at for known, at in self._next.items() if known[0] != job.name}
            self._next[key] = job.schedule.next_after(last, self._parts.activity.analytics.zone, run.since)
        return self._next[key]

    def _run(self, job: Job, error_before: str | None, is_over: Callable[[], bool]) -> None:
        try:
            result = self._run_actions(job, is_over)
            error = "; ".join(result.errors) or None
        except FlashFlowError as refusal:
            error = str(refusal)
        except Exception:
            log.exception("the job %r failed", job.name)
            error = FAULT
        if self._stopping:  # it was cut off, which is no failure
            return
        if error is not None:
            error = error[:LONGEST_ERROR]
            log.warning("the job %r failed: %s", job.name, error)
        self._note(job.name, error)
        if error is not None and error_before is None:
            self._report(job.name, error)

    def _note(self, name: str, error: str | None) -> None:
        try:
            self._parts.notifications.store.write(lambda tx: save_outcome(tx, name, error))
        except FlashFlowError as fault:
            log.warning("the outcome of the job %r could not be stored: %s", name, fault)
