"""Everything that the parts of a page share: the runtime of ``.flow`` files, the user, and the page's live updates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from flashflow.backend import Backend, EventKind, FlowError, declarations
from flashflow.views.controls.formatting import one_line, plural
from flashflow.views.shared.live import NOTIFICATION_KINDS, ROLLUP_KINDS, Live

READS_AT_ONCE = 3
"""Sources that one page reads at the same time; the rest of the worker threads stays free for other screens."""


Row = Mapping[str, Any]


class SourceData(Protocol):
    """Rows of a source by column; ``next_cursor`` is None on the last page."""

    @property
    def columns(self) -> Sequence[tuple[str, str]]: ...
    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def next_cursor(self) -> str | None: ...


@dataclass(frozen=True)
class Rows:
    """Rows of one or more pages of a source, as ``SourceData``."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    next_cursor: str | None


class ActionResult(Protocol):
    """Outcome of actions: the number of activities and notifications stored, and the errors of the rest."""

    @property
    def tracked(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def errors(self) -> Sequence[str]: ...


class Submitted(Protocol):
    """Outcome of a form."""

    @property
    def result(self) -> ActionResult: ...


class FlowRuntime(Protocol):
    """The loaded ``.flow`` files. Its methods block."""

    @property
    def project(self) -> declarations.Project: ...
    @property
    def errors(self) -> Sequence[FlowError]: ...
    @property
    def problem(self) -> str | None: ...
    def scope_of(self, user_id: str) -> Mapping[str, Any]: ...
    def read_source(
        self,
        source: declarations.DataSource,
        scope: Mapping[str, Any],
        *,
        limit: int,
        cursor: str | None,
        sort: declarations.Sort | None,
        all_users: bool,
    ) -> SourceData: ...
    def click_row(self, clicked: declarations.Table, row: Row, user_id: str) -> ActionResult: ...
    def submit(self, form: declarations.Form, values: Mapping[str, Any], user_id: str) -> Submitted: ...


@dataclass(frozen=True)
class PageContext:
    """Context of one page. ``scope`` has the values of names in texts, such as ``current_user``; ``refresh_page`` reads
    every source of the page again, after an action has changed data."""

    backend: Backend
    flow: FlowRuntime
    page: declarations.Page
    scope: Mapping[str, Any]
    live: Live
    user_id: str
    wide: bool
    refresh_page: Callable[[], None]
    now: Callable[[], datetime]
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE))

    def now_minute(self) -> datetime:
        """Return the time as relative times show it."""
        return self.now().replace(second=0, microsecond=0)

    def read(self, source: declarations.DataSource, most: int, sort: declarations.Sort | None = None) -> Rows:
        """Read the first ``most`` rows of a source, with the names as they are now. Blocks."""
        scope = self.flow.scope_of(self.user_id)
        rows: list[Row] = []
        cursor: str | None = None
        while True:
            page = self.flow.read_source(
                source, scope, limit=most - len(rows), cursor=cursor, sort=sort,
                all_users=self.page.auth == "admin",
            )  # fmt: skip
            rows += page.rows
            cursor = page.next_cursor
            if cursor is None or len(rows) >= most or not page.rows:
                return Rows(page.columns, rows, cursor)


def unit_of(data: SourceData, column: str) -> str:
    """Return the unit of a column. Ids are texts: their digits are not grouped."""
    is_id = column == "id" or column.endswith("_id")
    return "text" if is_id else dict(data.columns).get(column, "text")


def result_text(result: ActionResult) -> str:
    """Say what actions have done; an empty text for nothing."""
    parts = [f"Recorded {plural(result.tracked, 'activity', 'activities')}."] if result.tracked else []
    if result.sent:
        parts.append(f"Sent {plural(result.sent, 'notification')}.")
    if result.errors:
        parts.append(f"{plural(len(result.errors), 'action')} failed: {one_line(result.errors[0])}")
    return " ".join(parts)


def kinds_of(data: declarations.DataSource) -> tuple[EventKind, ...]:
    """Return the kinds of events after which a source has other rows."""
    if data.model is not None:
        return ("flow",)
    if data.name.startswith("notification_"):
        return (*NOTIFICATION_KINDS, "pruning", "erasure")
    return ("activity", "session", *ROLLUP_KINDS)
