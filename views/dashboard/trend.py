"""Trend chart: a metric over a period, with the period before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from typing import NamedTuple
from zoneinfo import ZoneInfo

import flet as ft
import flet.canvas as cv

from flashflow.backend import Trend
from flashflow.views.controls.buttons import choice, on_press
from flashflow.views.controls.formatting import grouped
from flashflow.views.controls.layout import flow
from flashflow.views.controls.tokens import ACCENT, MUTED
from flashflow.views.dashboard.date_range import METRICS
from flashflow.views.dashboard.metric_labels import trend_summary
from flashflow.views.shared.panel import Chart, no_data, titled_panel
from flashflow.views.shared.plot import (
    HEIGHT,
    area,
    axis,
    ceiling,
    grid_label,
    grid_line,
    height_at,
    path,
    places,
    stroke,
)
from flashflow.views.shared.values import point_text


class Curve(NamedTuple):
    """Data of the chart: points in time, values so far, and the values of the period before.

    ``running``: the last point is not over.
    """

    metric: str
    hourly: bool
    running: bool
    at: tuple[str, ...]
    now: tuple[int, ...]
    before: tuple[int, ...]


def curve(trend: Trend, metric: str) -> Curve:
    """Return one metric's values (by hour only activities); future hours are left out."""
    hourly = trend.interval == "hour"
    metric = "activities" if hourly else metric
    known = len(trend.points)
    if hourly and trend.period.until is not None:
        known = min(known, trend.period.until.astimezone(ZoneInfo(trend.timezone)).hour + 1)
    return Curve(
        metric,
        hourly,
        trend.period.until is not None,
        tuple(place.at for place in trend.points),
        tuple(getattr(place, metric) or 0 for place in trend.points[:known]),
        tuple(getattr(place, metric) or 0 for place in trend.previous_points),
    )


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class TrendPanel(Chart):
    """The chart with its axis and the choice of its metric."""

    choose: Callable[[str], Awaitable[None]] = field(metadata={"skip": True})

    def draw(self, of: Curve) -> ft.Control:
        label = METRICS[of.metric]
        content = [] if of.hourly else [_metrics(of.metric, self.choose)]
        if any(of.now) or any(of.before):
            text = trend_summary(label, of.at, of.now, of.before)
            drawing = f"{len(of.at)}-{len(of.now)}-{len(of.before)}"
            content.append(self.chart(shapes(of, self.room), HEIGHT, text, _legend(of), key=drawing, axis=_axis(of.at)))
        else:
            content.append(no_data(f"{label}: none in this period."))
        return titled_panel("Trend", content, subtitle="by hour" if of.hourly else "by day")

    def describe_at(self, x: float, y: float) -> str | None:
        if self._shown is None:
            return None
        of: Curve = self._shown[0]
        at, now, before = of.at, of.now, of.before
        n = round(x / self.room * (len(at) - 1))
        if not 0 <= n < len(at):
            return None
        value = grouped(now[n]) if n < len(now) else "not over yet"
        text = f"{point_text(at[n])}: {value}"
        return f"{text} · {grouped(before[n])} in the period before" if n < len(before) else text


def shapes(of: Curve, width: float) -> list[cv.Shape]:
    """Return the grid lines with labels, the period before as a dashed line, and this period as a filled line."""
    top = ceiling(max((*of.now, *of.before)))
    drawn: list[cv.Shape] = []
    for part in (1.0, 0.5, 0.0):
        y = height_at(part, 1) - (0.5 if part == 0 else 0)
        drawn.append(grid_line(y, width))
        if part and (top * part).is_integer():
            drawn.append(grid_label(grouped(int(top * part)), y))
    if of.before:
        drawn.append(path(places(of.before, len(of.at), top, width), stroke(MUTED, 1.5, [4, 4])))
    now = places(of.now, len(of.at), top, width)
    drawn += [area(now, ACCENT), path(now, stroke(ACCENT))]
    if len(now) == 1:
        drawn.append(cv.Circle(*now[0], 3, paint=ft.Paint(color=ACCENT)))
    return drawn


def _axis(at: Sequence[str]) -> ft.Control:
    return axis(point_text(at[0]), point_text(at[len(at) // 2]), point_text(at[-1]))


def _legend(of: Curve) -> str:
    line = f"this period, the last {'hour' if of.hourly else 'day'} so far" if of.running else "this period"
    return f"Line: {line} · dashed: the period before" if of.before else line.capitalize()


def _metrics(chosen: str, choose: Callable[[str], Awaitable[None]]) -> ft.Control:
    chips: list[ft.Control] = [choice(label, name == chosen, on_press(choose, name)) for name, label in METRICS.items()]
    return flow(chips, key="metrics", run_spacing=4)
