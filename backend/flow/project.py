"""A running project of ``.flow`` files: load and reload, data, actions, forms."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.clock import Clock, rfc3339
from flashflow.backend.core.errors import FlashFlowError, NotFound, StorageError
from flashflow.backend.core.events import Bus, Event
from flashflow.backend.flow import data_reader
from flashflow.backend.flow.actions import ActionResult, ActionRun, LoopGuard, Trigger
from flashflow.backend.flow.apply import NotApplied, apply
from flashflow.backend.flow.data_reader import SourceData, key_as_user
from flashflow.backend.flow.endpoints import alias_routes
from flashflow.backend.flow.file_watch import FileWatch
from flashflow.backend.flow.job_runner import JobRunner, Report
from flashflow.backend.flow.language.declarations import (
    Action,
    DataSource,
    Form,
    Group,
    Job,
    Project,
    Sort,
    Table,
)
from flashflow.backend.flow.language.errors import FlowError, Place
from flashflow.backend.flow.model_fields import check_metadata
from flashflow.backend.flow.model_rows import save_row
from flashflow.backend.flow.routes import built_in_routes
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.rules.service import Rules
from flashflow.backend.store.flow import rows as table
from flashflow.backend.store.flow.project_state import JobRun, job_runs
from flashflow.backend.store.flow.rows import USER_MODEL

if TYPE_CHECKING:
    from flashflow.backend.api.framework.aliases import AliasRoute

log = logging.getLogger(__name__)


def load_files(paths: Sequence[Path]) -> tuple[Project, tuple[FlowError, ...]]:
    """Read and check files and folders; endpoints are compared with the built-in routes."""
    from flashflow.backend.flow.language.loader import load  # loads lark

    return load(paths, built_in_routes)


Load = Callable[[Sequence[Path]], tuple[Project, tuple[FlowError, ...]]]
"""Read files into a project; a project with errors is not used."""
MOST_USERS = 50_000
"""Users that ``all_users`` reaches."""
REFRESH_S = 60.0
"""Seconds after which rules to groups are applied to the users of then."""
LOOP_ROWS = 200
"""Rows of a data source that a loop goes through."""


class FlowParts(Protocol):
    """The parts of the composition root (``Backend``) that a project runs on."""

    me: str
    clock: Clock
    bus: Bus
    activity: UserActivityService
    notifications: NotificationService
    rules: Rules
    alias_routes: Sequence[AliasRoute]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A saved row, and the outcome of the form's actions."""

    row: dict[str, Any]
    result: ActionResult


class FlowProject:
    """The last valid version of the files at ``paths`` (files and folders), in force. Thread-safe.

    ``problem`` says in one sentence why the files as they are now are not in force; ``errors`` are the details.
    """

    def __init__(
        self,
        parts: FlowParts,
        paths: Sequence[Path],
        load: Load = load_files,
        report: Report = lambda name, error: None,
    ) -> None:
        self._parts = parts
        self._load = load
        self._watch = FileWatch(paths)
        self._lock = threading.Lock()
        self._guard = LoopGuard(parts.clock.monotonic)
        self._jobs = JobRunner(parts, self._run_job, report)
        self._retries = False
        self._refreshed_at = parts.clock.monotonic()
        self.paths = tuple(paths)
        self.project = Project()
        self.errors: tuple[FlowError, ...] = ()
        self.problem: str | None = None

    # --- files ----------------------------------------------------------------------------------------------------

    def load(self) -> tuple[FlowError, ...]:
        """Load the files at the start; return their errors, with nothing in force."""
        with self._lock:
            self._watch.changed()
            self._reload(self.paths)
            return self.errors

    def poll(self) -> bool:
        """Load the files again if they have changed; return whether that was so. Call it every second."""
        with self._lock:
            if not self._watch.changed() and not self._retries:
                self._refresh_groups_at_times()
                return False
            self._retries = False
            try:
                self._reload(self._watch.present())
            except StorageError as fault:  # such as a full disk, which may have room again
                self._retries = True
                self._note((), f"The .flow files could not be put in force; trying again: {fault}")
            return True

    def _reload(self, paths: Sequence[Path]) -> None:
        project, errors = Project(), tuple[FlowError, ...]()
        if paths:
            try:
                project, errors = self._load(paths)
            except Exception:
                log.exception("the .flow files could not be read")
                message = "an internal error stopped the reading of the files; the log has the details"
                errors = (FlowError(Place(str(paths[0]), 1, 1), message, ""),)
        if not errors:
            errors = self._put_in_force(project)
        if not errors:
            self._note((), None)
            return
        others = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        first = f"{errors[0].place}: {errors[0].message.rstrip('.')}{others}."
        self._note(errors, f"The .flow files have errors; the last valid version stays in force: {first}")

    def _note(self, errors: tuple[FlowError, ...], problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            log.warning("%s", problem)
        self.errors, self.problem = errors, problem
        self._parts.bus.publish([Event("flow")])

    def _put_in_force(self, project: Project) -> tuple[FlowError, ...]:
        try:
            apply(self._parts, project, lambda group: self._group(project, group))
        except NotApplied as refusal:
            return refusal.errors
        self.project = project
        self._parts.alias_routes = alias_routes(project)
        self._parts.activity.check_models(
            {model.name: lambda metadata, model=model: check_metadata(model, metadata) for model in project.models}  # type: ignore[misc]
        )
        return ()

    # --- data -----------------------------------------------------------------------------------------------------

    def scope_of(self, user_id: str) -> dict[str, Any]:
        """Return the scope of a page for its user: ``current_user`` with ``id``, ``name`` and the fields of the user's
        row of the model User, and ``now``."""
        return {"current_user": data_reader.user_row(self._parts, user_id), "now": self._now()}

    def _now(self) -> str:
        return rfc3339(self._parts.clock.now_ms())

    def read_source(
        self,
        source: DataSource,
        scope: Mapping[str, Any],
        *,
        limit: int = 50,
        cursor: str | None = None,
        sort: Sort | None = None,
        all_users: bool = False,
    ) -> SourceData:
        """Read a page of a data source, up to 200 rows. ``all_users``: whether it may have data of other users than
        ``current_user``, as on a page with ``auth: admin`` and in a job. Blocks: do not call it on the event loop.

        Raises ValidationError for a wrong argument, Forbidden for data of other users, NotFound for an unknown source.
        """
        return data_reader.read_source(
            self._parts, self.project, source, scope, limit=limit, cursor=cursor, sort=sort, all_users=all_users
        )

    # --- actions --------------------------------------------------------------------------------------------------

    def run_actions(
        self,
        actions: Sequence[Action],
        scope: Mapping[str, Any],
        *,
        trigger: Trigger = "page",
        is_over: Callable[[], bool] = lambda: False,
    ) -> ActionResult:
        """Run actions within the limits of the loop guard; errors of single actions stand in the result. Blocks."""
        project = self.project
        scope = {"now": self._now(), **scope}

        def read(source: DataSource, scope: Mapping[str, Any]) -> SourceData:
            return self.read_source(source, scope, limit=LOOP_ROWS, all_users=trigger == "job")

        run = ActionRun(self._parts, self._guard, lambda group: self._group(project, group), read, is_over)
        return run.run(actions, scope)

    def submit(self, form: Form, values: Mapping[str, Any], user_id: str) -> Submitted:
        """Save the values of a form, texts or typed, as a row of its model, then run its actions with the row as
        ``new_<model>``. Blocks. Raises ValidationError that names each wrong field, and Conflict."""
        model = self.project.model(form.model)
        if model is None:
            raise NotFound(f"There is no model {form.model}.")
        row = save_row(self._parts, self.project, model, form.fields, values, user_id)
        if model.name == USER_MODEL:
            with self._lock:
                self._refresh_groups()
        scope = {**self.scope_of(user_id), f"new_{model.singular}": row}
        return Submitted(row, self.run_actions(form.on_submit, scope))

    def click_row(self, clicked: Table, row: Mapping[str, Any], user_id: str) -> ActionResult:
        """Run the actions of a row of a table; the row is ``row``, and the model's name for rows of a model. Blocks."""
        scope: dict[str, Any] = {**self.scope_of(user_id), "row": dict(row)}
        model = None if clicked.data.model is None else self.project.model(clicked.data.model)
        if model is not None:
            scope[model.singular] = dict(row)
        return self.run_actions(clicked.on_row_click, scope)

    # --- jobs -----------------------------------------------------------------------------------------------------

    def run_due_jobs(self) -> list[str]:
        """Start the jobs that are due; return their names. Call it every second."""
        return self._jobs.run_due(self.project.jobs)

    def job_runs(self) -> dict[str, JobRun]:
        """Return the last run and error of each job, by its name."""
        return self._parts.notifications.store.read(job_runs)

    def stop(self) -> None:
        """Let running jobs end, and start no more."""
        self._jobs.stop()

    def _run_job(self, job: Job, is_over: Callable[[], bool]) -> ActionResult:
        return self.run_actions(job.actions, {}, trigger="job", is_over=is_over)

    # --- groups ---------------------------------------------------------------------------------------------------

    def _group(self, project: Project, group: Group) -> list[str]:
        """Return the users of a group. ``admin_users``: the owner, and users whose row has the role admin;
        ``all_users``: the owner, users with a row, and users with an activity."""
        parts, model = self._parts, project.model(USER_MODEL)
        store = parts.notifications.store
        if group == "admin_users":
            named = model is not None and model.field("role") is not None
            keys = store.read(lambda conn: table.keys_where(conn, USER_MODEL, "role", "admin")) if named else []
            return list(dict.fromkeys([parts.me, *map(key_as_user, keys)]))
        keys = store.read(lambda conn: table.keys_of(conn, USER_MODEL)) if model is not None else []
        known = parts.activity.analytics.known_users(MOST_USERS + 1)
        return list(dict.fromkeys([parts.me, *map(key_as_user, keys), *known]))

    def _refresh_groups_at_times(self) -> None:
        """Apply rules to groups again every REFRESH_S seconds. Requires the lock."""
        if self._parts.clock.monotonic() - self._refreshed_at >= REFRESH_S:
            self._refresh_groups()

    def _refresh_groups(self) -> None:
        """Apply rules to groups again, for users who have come. Requires the lock."""
        self._refreshed_at = self._parts.clock.monotonic()
        if any(rule.to in {"admin_users", "all_users"} for rule in self.project.rules):
            try:
                apply(self._parts, self.project, lambda group: self._group(self.project, group))
            except FlashFlowError as refusal:
                log.warning("rules could not be applied to the users of their groups; trying again: %s", refusal)
