"""Audience panel (daily, weekly and monthly active users) and retention grid."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import flet as ft

from flashflow.backend import Cohort, Filters, Metric
from flashflow.views.controls.formatting import grouped, plural
from flashflow.views.controls.layout import column, growing
from flashflow.views.controls.texts import body, read_as, small
from flashflow.views.controls.tokens import ACCENT, GRID, SMALL
from flashflow.views.dashboard.metric_labels import metric_text, retention_summary
from flashflow.views.shared.panel import Panel, about, no_data, titled_panel
from flashflow.views.shared.values import percent

COHORTS = 14
DAYS = 13
CELL = 40
LABEL = 104
STRONGEST = 0.5
"""Highest opacity of a cell, so that its text stays legible."""
AUDIENCE = (
    ("dau", "Daily active users"),
    ("wau", "Weekly active users"),
    ("mau", "Monthly active users"),
    ("stickiness", "Stickiness"),
)


def cohorts_of(today: date) -> Filters:
    """Return the filters for the grid: the last COHORTS days, independent of the selected period."""
    return Filters(first=today - timedelta(days=COHORTS - 1), last=today)


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Audience(Panel):
    """The metrics of AUDIENCE in a list."""

    def draw(self, metrics: Mapping[str, Metric], definitions: Mapping[str, str]) -> ft.Control:
        rows: list[ft.Control] = []
        for name, label in AUDIENCE:
            shown = metric_text(name, metrics[name].value)
            value = ft.Text(shown, size=20, weight=ft.FontWeight.W_500)
            read = read_as(f"{label}: {shown}", ft.Row([growing(body(label)), value]), expand=True)
            rows.append(ft.Row([read, about(label, definitions[name])], spacing=GRID))
        padding = ft.Padding.only(left=16, right=4, top=4, bottom=4)
        return titled_panel("Audience", [ft.Container(column(rows), padding=padding)], padded=False)


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class RetentionPanel(Panel):
    """A row per day with new users; a cell is the share that returned, empty until its day is over."""

    def draw(self, cohorts: tuple[Cohort, ...], average: tuple[float | None, ...], means: str) -> ft.Control:
        if not cohorts:
            content: ft.Control = no_data("No new users in the last 14 days.")
        else:
            newest = list(reversed(cohorts))[:COHORTS]
            rows: list[ft.Control] = [_head(), *(_row(cohort) for cohort in newest)]
            scrolling = ft.Row([column(rows, 2)], scroll=ft.ScrollMode.AUTO)
            content = read_as(f"Retention: {retention_summary(cohorts, average)}", scrolling)
        text = "new users of a day, and the percentage that returned on day N"
        return titled_panel("Retention", [content], subtitle=text, means=means)


def _head() -> ft.Row:
    marks: list[ft.Control] = [_cell(ft.Text(str(n), size=SMALL)) for n in range(DAYS + 1)]
    return ft.Row([ft.Container(small("Day"), width=LABEL), *marks], spacing=2)


def _row(cohort: Cohort) -> ft.Row:
    label = f"{cohort.day:%a} {cohort.day.day} {cohort.day:%b}"
    who = ft.Row([small(label), body(grouped(cohort.size))], alignment=ft.MainAxisAlignment.SPACE_BETWEEN)
    row = ft.Row([ft.Container(who, width=LABEL, padding=ft.Padding.only(right=GRID))], spacing=2, key=label)
    row.controls += [_share(cohort, n) for n in range(DAYS + 1)]
    return row


def _share(cohort: Cohort, n: int) -> ft.Container:
    users = cohort.users[n] if n < len(cohort.users) else None
    if users is None or not cohort.size:
        return _cell(None)
    part = users / cohort.size
    box = _cell(ft.Text(percent(part).removesuffix(" %") if part >= 0.001 else "0", size=SMALL))
    box.bgcolor = ft.Colors.with_opacity(0.04 + (STRONGEST - 0.04) * part, ACCENT)
    box.tooltip = f"{cohort.day.day} {cohort.day:%b}, day {n}: {users:,} of {plural(cohort.size, 'user')}"
    return box


def _cell(content: ft.Control | None) -> ft.Container:
    return ft.Container(content, width=CELL, height=28, border_radius=4, alignment=ft.Alignment.CENTER)
