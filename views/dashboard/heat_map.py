"""Heat map of activities by weekday and hour."""

from __future__ import annotations

import flet as ft
import flet.canvas as cv

from flashflow.views.controls.formatting import plural
from flashflow.views.controls.tokens import ACCENT, MUTED, SMALL
from flashflow.views.dashboard.metric_labels import WEEKDAYS, Hours, busiest, weekday_hour
from flashflow.views.shared.panel import Chart, no_data, titled_panel

LEFT = 34.0
TOP = 18.0
GAP = 2.0
STRENGTHS = (0.06, 0.22, 0.42, 0.68, 1.0)
"""Opacity of a cell without activities, and of each quarter of the maximum."""
MARKED_HOURS = (0, 6, 12, 18)


def strength(count: int, most: int) -> int:
    """Return a cell's index in STRENGTHS: 0 for no activity, 4 for the top quarter."""
    return 0 if count == 0 else min(4, 1 + 4 * (count - 1) // most)


def cells(hours: Hours) -> list[list[tuple[int, int]]]:
    """Return the (weekday, hour) of every cell, grouped by strength."""
    most = max(map(max, hours))
    found: list[list[tuple[int, int]]] = [[] for _ in STRENGTHS]
    for weekday, row in enumerate(hours):
        for hour, count in enumerate(row):
            found[strength(count, most)].append((weekday, hour))
    return found


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class HeatMapPanel(Chart):
    """Seven rows of 24 squares, drawn as one canvas shape per strength."""

    def draw(self, hours: Hours, zone: str, means: str) -> ft.Control:
        if not any(map(any, hours)):
            return titled_panel("When", [no_data("No activities in this period.")], means=means)
        text = busiest(hours)
        pitch = self._pitch
        drawn = self.chart(_shapes(hours, pitch), TOP + 7 * pitch, f"When: {text}", text, key="week")
        return titled_panel("When", [drawn], subtitle=zone, means=means)

    @property
    def _pitch(self) -> float:
        return max(8.0, (self.room - LEFT) / 24)

    def describe_at(self, x: float, y: float) -> str | None:
        weekday, hour = int((y - TOP) // self._pitch), int((x - LEFT) // self._pitch)
        if self._shown is None or not (0 <= weekday < 7 and 0 <= hour < 24):
            return None
        hours: Hours = self._shown[0]
        return f"{weekday_hour(weekday, hour)}: {plural(hours[weekday][hour], 'activity', 'activities')}"


def _shapes(hours: Hours, pitch: float) -> list[cv.Shape]:
    style = ft.TextStyle(size=SMALL, color=MUTED)
    drawn: list[cv.Shape] = [cv.Text(LEFT + h * pitch, 0, f"{h:02}", style=style) for h in MARKED_HOURS]
    middle = ft.Alignment(-1, 0)
    every = 1 if pitch > SMALL + GAP else 2  # label every other row when rows are lower than the text
    for weekday, name in tuple(enumerate(WEEKDAYS))[::every]:
        drawn.append(cv.Text(0, TOP + (weekday + 0.5) * pitch, name[:3], style=style, alignment=middle))
    for opacity, places in zip(STRENGTHS, cells(hours), strict=True):
        centres = [(LEFT + (hour + 0.5) * pitch, TOP + (weekday + 0.5) * pitch) for weekday, hour in places]
        paint = ft.Paint(
            color=ft.Colors.with_opacity(opacity, ACCENT), stroke_width=pitch - GAP, stroke_cap=ft.StrokeCap.SQUARE
        )
        if centres:
            drawn.append(cv.Points(list(centres), cv.PointMode.POINTS, paint=paint))
    return drawn
