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
from flashflow.views.controls.texts import small
from flashflow.views.controls.tokens import ACCENT, HAIRLINE, MUTED, SMALL
from flashflow.views.dashboard.date_range import METRICS
from flashflow.views.dashboard.metric_labels import point_text, trend_summary
from flashflow.views.shared.panel import Chart, no_data, titled_panel

HEIGHT = 180.0
HEAD = 18.0
"""Height above the top grid line for its label."""
ROUND = (1, 2, 3, 4, 5, 6, 8)


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


def ceiling(highest: int) -> int:
    """Return the chart's upper bound: the lowest ROUND step times a power of ten that is at least ``highest``."""
    power = 1
    while True:
        for step in ROUND:
            if step * power >= highest:
                return step * power
        power *= 10


def places(values: Sequence[int], of: int, top: int, width: float) -> list[tuple[float, float]]:
    """Return the canvas coordinates of values, the first of ``of`` points at the left edge."""
    step = width / max(1, of - 1)
    return [(n * step, HEAD + (HEIGHT - HEAD) * (1 - value / top)) for n, value in enumerate(values)]


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
    style = ft.TextStyle(size=SMALL, color=MUTED)
    drawn: list[cv.Shape] = []
    for part in (1.0, 0.5, 0.0):
        y = HEAD + (HEIGHT - HEAD) * (1 - part) - (0.5 if part == 0 else 0)
        drawn.append(cv.Line(0, y, width, y, paint=ft.Paint(color=HAIRLINE, stroke_width=1)))
        if part and (top * part).is_integer():
            drawn.append(cv.Text(0, y - HEAD, grouped(int(top * part)), style=style))
    if of.before:
        dashed = ft.Paint(color=MUTED, stroke_width=1.5, style=ft.PaintingStyle.STROKE, stroke_dash_pattern=[4, 4])
        drawn.append(_line(places(of.before, len(of.at), top, width), dashed))
    now = places(of.now, len(of.at), top, width)
    area = [(now[0][0], HEIGHT), *now, (now[-1][0], HEIGHT)]
    faint = ft.Colors.with_opacity(0.10, ACCENT)
    drawn.append(_line(area, ft.Paint(color=faint, style=ft.PaintingStyle.FILL)))
    drawn.append(_line(now, ft.Paint(color=ACCENT, stroke_width=2, style=ft.PaintingStyle.STROKE)))
    if len(now) == 1:
        drawn.append(cv.Circle(*now[0], 3, paint=ft.Paint(color=ACCENT)))
    return drawn


def _line(through: Sequence[tuple[float, float]], paint: ft.Paint) -> cv.Path:
    first, *rest = through
    elements: list[cv.Path.PathElement] = [cv.Path.MoveTo(*first), *(cv.Path.LineTo(x, y) for x, y in rest)]
    return cv.Path(elements, paint=paint)


def _axis(at: Sequence[str]) -> ft.Control:
    texts: list[ft.Control] = [small(point_text(mark)) for mark in (at[0], at[len(at) // 2], at[-1])]
    return ft.Row(texts, alignment=ft.MainAxisAlignment.SPACE_BETWEEN)


def _legend(of: Curve) -> str:
    line = f"this period, the last {'hour' if of.hourly else 'day'} so far" if of.running else "this period"
    return f"Line: {line} · dashed: the period before" if of.before else line.capitalize()


def _metrics(chosen: str, choose: Callable[[str], Awaitable[None]]) -> ft.Control:
    chips: list[ft.Control] = [choice(label, name == chosen, on_press(choose, name)) for name, label in METRICS.items()]
    return flow(chips, key="metrics", run_spacing=4)
