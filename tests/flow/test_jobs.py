"""Jobs: each due time once, one missed run at most, failures reported, time-outs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flashflow.backend.core.errors import Conflict
from flashflow.backend.flow import job_runner
from flashflow.backend.flow.actions import ActionResult
from flashflow.backend.flow.apply import apply
from flashflow.backend.flow.job_runner import JobRunner
from flashflow.backend.flow.language.declarations import Job, Project
from flashflow.backend.flow.language.schedule import Schedule, parse_schedule
from flashflow.backend.store.flow.project_state import job_runs
from tests.support.flow_parts import HERE, Parts, parts_in


def job(schedule: Schedule, name: str = "report") -> Job:
    return Job(name, schedule, "", (), HERE)


HOURLY = job(parse_schedule("every_hour"))
EVERY_10 = job(Schedule("every 10 minutes", every_minutes=10))


class Runs:
    """A runner of ``jobs`` that counts runs; ``act`` is done in each."""

    def __init__(self, parts: Parts, *jobs: Job) -> None:
        self.parts = parts
        self.jobs = jobs
        self.ran: list[str] = []
        self.reports: list[tuple[str, str]] = []
        self.act: Callable[[Callable[[], bool]], ActionResult] = lambda is_over: ActionResult()
        apply(parts, Project(jobs=jobs), lambda group: [])
        self.runner = JobRunner(parts, self._run, lambda name, error: self.reports.append((name, error)))

    def _run(self, job: Job, is_over: Callable[[], bool]) -> ActionResult:
        self.ran.append(job.name)
        return self.act(is_over)

    def tick(self) -> list[str]:
        started = self.runner.run_due(self.jobs)
        self.runner.wait(10)
        return started

    def error(self, name: str = "report") -> str | None:
        return self.parts.notifications.store.read(job_runs)[name].last_error


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with parts_in(tmp_path) as parts:
        yield parts


def test_a_job_runs_once_at_each_time_of_its_schedule(parts: Parts) -> None:
    runs = Runs(parts, HOURLY)
    assert runs.tick() == []  # declared at noon: the next hour is 13:00
    parts.clock.go(minutes=59, seconds=59)
    assert runs.tick() == []
    parts.clock.go(seconds=1)
    assert [runs.tick(), runs.tick()] == [["report"], []]
    parts.clock.go(hours=1)
    assert runs.tick() == ["report"]


def test_an_interval_counts_from_its_declaration(parts: Parts) -> None:
    runs = Runs(parts, EVERY_10)
    starts = 0
    for _ in range(60):
        parts.clock.go(minutes=1)
        starts += len(runs.tick())
    assert starts == 6


def test_after_a_stop_a_job_runs_once_however_many_times_it_missed(parts: Parts) -> None:
    Runs(parts, HOURLY)
    parts.clock.go(hours=30, minutes=5)
    after = Runs(parts, HOURLY)  # as a new start has it
    assert [after.tick(), after.tick()] == [["report"], []]
    parts.clock.go(minutes=54)
    assert after.tick() == []
    parts.clock.go(minutes=1)
    assert after.tick() == ["report"]


def test_a_restart_does_not_run_a_job_again(parts: Parts) -> None:
    runs = Runs(parts, HOURLY)
    parts.clock.go(hours=1)
    assert runs.tick() == ["report"]
    assert Runs(parts, HOURLY).tick() == []


def test_a_changed_schedule_counts_from_the_change(parts: Parts) -> None:
    Runs(parts, EVERY_10)
    parts.clock.go(minutes=9)
    runs = Runs(parts, job(Schedule("every 5 minutes", every_minutes=5)))
    parts.clock.go(minutes=4)
    assert runs.tick() == []
    parts.clock.go(minutes=1)
    assert runs.tick() == ["report"]


def test_a_clock_set_back_does_not_silence_a_job(parts: Parts) -> None:
    runs = Runs(parts, HOURLY)
    right, parts.clock.now = parts.clock.now, datetime(2040, 1, 1, tzinfo=UTC)
    assert runs.tick() == ["report"]
    parts.clock.now = right
    assert runs.tick() == []
    parts.clock.go(hours=1)
    assert runs.tick() == ["report"]


def test_a_failure_is_stored_and_reported_once_until_the_job_works_again(parts: Parts) -> None:
    runs = Runs(parts, HOURLY)

    def fail(is_over: Callable[[], bool]) -> ActionResult:
        raise Conflict("The shop is closed.")

    ok, runs.act = runs.act, fail
    for _ in range(2):
        parts.clock.go(hours=1)
        runs.tick()
    assert runs.error() == "The shop is closed."
    assert runs.reports == [("report", "The shop is closed.")]
    runs.act = ok
    parts.clock.go(hours=1)
    runs.tick()
    assert runs.error() is None
    runs.act = lambda is_over: ActionResult(errors=("first", "second"))
    parts.clock.go(hours=1)
    runs.tick()
    assert runs.reports[-1] == ("report", "first; second")


def test_an_unexpected_error_stops_neither_the_runner_nor_other_jobs(parts: Parts) -> None:
    runs = Runs(parts, HOURLY, job(parse_schedule("every_hour"), "other"))
    runs.act = lambda is_over: 1 / 0  # type: ignore[return-value]
    parts.clock.go(hours=1)
    assert runs.tick() == ["report", "other"]
    assert runs.error() == runs.error("other") == job_runner.FAULT


def test_an_overdue_job_ends_and_does_not_run_twice_at_once(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "LONGEST_S", 0.0)
    runs = Runs(parts, HOURLY)
    go, saw = threading.Event(), threading.Event()

    def slow(is_over: Callable[[], bool]) -> ActionResult:
        if is_over():
            saw.set()
        go.wait(10)
        return ActionResult()

    runs.act = slow
    parts.clock.go(hours=1)
    assert runs.runner.run_due(runs.jobs) == ["report"]
    assert saw.wait(10)
    parts.clock.go(hours=1)
    assert runs.runner.run_due(runs.jobs) == []
    assert runs.error() == "The job takes longer than 0 s."
    go.set()
    runs.runner.wait(10)
    assert runs.tick() == ["report"]


def test_a_job_that_a_stop_cuts_off_has_not_failed(parts: Parts) -> None:
    runs = Runs(parts, HOURLY)
    began = threading.Event()

    def cut_off(is_over: Callable[[], bool]) -> ActionResult:
        began.set()
        while not is_over():
            pass
        return ActionResult(errors=("These actions took too long; the rest was left out.",))

    runs.act = cut_off
    parts.clock.go(hours=1)
    assert runs.runner.run_due(runs.jobs) == ["report"]
    assert began.wait(10)
    runs.runner.stop()
    assert (runs.error(), runs.reports) == (None, [])


def test_a_stopped_runner_starts_nothing(parts: Parts) -> None:
    runs = Runs(parts, HOURLY)
    parts.clock.go(hours=1)
    runs.runner.stop()
    assert runs.tick() == []
