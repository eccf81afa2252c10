"""Stored state of a project: its applied declarations, and the runs of its jobs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.statement import Statement, among, columns, slot, slots, upsert
from flashflow.backend.store.engine.write_command import Tx
from flashflow.backend.store.flow.models import FlowDeclaration, FlowJob


class Declared(NamedTuple):
    """A declaration that was applied: ``type``, ``template`` or ``rule``, and its name."""

    kind: str
    name: str


class JobRun(NamedTuple):
    """A job's schedule as the file says it, since when it is declared, its last run and that run's error."""

    name: str
    schedule: str
    since: int
    last_at: int | None
    last_error: str | None


def declared(conn: sqlite3.Connection) -> set[Declared]:
    """Return the declarations applied last."""
    return set(_DECLARED.each(conn))


def has_project(conn: sqlite3.Connection) -> bool:
    """Whether declarations or jobs of a project are stored."""
    return bool(_HAS_DECLARATION.value(conn) or _HAS_JOB.value(conn))


def save_declared(tx: Tx, declarations: Iterable[Declared]) -> None:
    """Replace the applied declarations."""
    _FORGET.run(tx.conn)
    _DECLARE.many(tx.conn, sorted(declarations))


def job_runs(conn: sqlite3.Connection) -> dict[str, JobRun]:
    """Return the runs of every job by its name."""
    return {run.name: run for run in _JOBS.each(conn)}


def keep_jobs(tx: Tx, schedules: dict[str, str]) -> None:
    """Keep the runs of these jobs, given with their schedules; a new or changed schedule counts from now."""
    known = job_runs(tx.conn)
    _DELETE_JOBS.run(tx.conn, names=[name for name in known if name not in schedules])
    for name, schedule in schedules.items():
        if name not in known or known[name].schedule != schedule:
            _SAVE_JOB.run(tx.conn, name=name, schedule=schedule, since=tx.now_ms, last_at=None, last_error=None)


def claim_run(tx: Tx, name: str, last_at: int | None) -> bool:
    """Record that the job runs now, unless it has run since ``last_at``; return whether it was recorded."""
    return _CLAIM.run(tx.conn, name=name, last_at=last_at, now=tx.now_ms).rowcount == 1


def move_to_now(tx: Tx) -> None:
    """Move runs and declarations in the future, which a wrong clock recorded, to now."""
    _MOVE_RUNS.run(tx.conn, now=tx.now_ms)
    _MOVE_SINCE.run(tx.conn, now=tx.now_ms)


def save_outcome(tx: Tx, name: str, error: str | None) -> None:
    """Record the error of the job's last run; None for a success."""
    _SAVE_OUTCOME.run(tx.conn, name=name, last_error=error)


_D, _J = FlowDeclaration, FlowJob
_DECLARED = Statement(lambda: _D.select(*columns(_D, Declared)), Declared)
_FORGET = Statement(_D.delete)
_DECLARE = Statement(lambda: _D.insert(slots(_D.kind, _D.name)))
_JOBS = Statement(lambda: _J.select(*columns(_J, JobRun)), JobRun)
_DELETE_JOBS = Statement(lambda: _J.delete().where(among(_J.name, "names")))
_SAVE_JOB = Statement(lambda: upsert([_J.name], [_J.schedule, _J.since, _J.last_at, _J.last_error]))
_CLAIM = Statement(
    lambda: _J.update({_J.last_at: slot("now")}).where(
        _J.name == slot("name"), (_J.last_at == slot("last_at")) | (_J.last_at.is_null() & slot("last_at").is_null())
    )
)
_SAVE_OUTCOME = Statement(lambda: _J.update(slots(_J.last_error)).where(_J.name == slot("name")))
_MOVE_RUNS = Statement(lambda: _J.update({_J.last_at: slot("now")}).where(_J.last_at > slot("now")))
_MOVE_SINCE = Statement(lambda: _J.update({_J.since: slot("now")}).where(_J.since > slot("now")))
_HAS_DECLARATION = Statement(lambda: _D.select(_D.name).limit(1))
_HAS_JOB = Statement(lambda: _J.select(_J.name).limit(1))
