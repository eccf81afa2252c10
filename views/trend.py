"""The course of a period on a canvas, over that of the one before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import flet as ft
import flet.canvas as cv

from views.controls.look import ACCENT, GRID, HAIRLINE, MUTED, SMALL, choice, small
from views.figure_words import course, point
from views.part import Chart, nothing, panel, pressing
from views.period import METRICS
from views.words import grouped

if TYPE_CHECKING:
    from backend import Trend

HEIGHT = 180.0
HEAD = 18.0
"""Room above the highest line for its figure."""
ROUND = (1, 2, 5)


class Curve(NamedTuple):
    """What is drawn: places, figures as far as they are known, and those of the period before."""

    at: tuple[str, ...]
    now: tuple[int, ...]
    before: tuple[int, ...]


def curve(trend: Trend, metric: str) -> Curve:
    """The figures of one metric; hours that have not come are left out."""
    known = len(trend.points)
    if trend.interval == "hour" and trend.period.until is not None:
        known = min(known, _hour(trend.period.until, trend.timezone) + 1)
    return Curve(
        tuple(place.at for place in trend.points),
        tuple(getattr(place, metric) or 0 for place in trend.points[:known]),
        tuple(getattr(place, metric) or 0 for place in trend.previous_points),
    )


def _hour(at: datetime, zone: str) -> int:
    return at.astimezone(ZoneInfo(zone)).hour


def ceiling(highest: int) -> int:
    """The round number (1, 2 or 5 with zeros) that the drawing reaches up to."""
    power = 1
    while True:
        for step in ROUND:
            if step * power >= highest:
                return step * power
        power *= 10


def places(values: Sequence[int], of: int, top: int, width: float) -> list[tuple[float, float]]:
    """Where the figures lie on the canvas, the first of ``of`` at its left edge."""
    step = width / max(1, of - 1)
    return [(n * step, HEAD + (HEIGHT - HEAD) * (1 - value / top)) for n, value in enumerate(values)]


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class TrendPart(Chart):
    """The line, the choice of what it shows, and its axis."""

    choose: Callable[[str], Awaitable[None]] = field(metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self._curve = Curve((), (), ())

    def draw(self, trend: Trend, metric: str) -> ft.Control:
        hourly = trend.interval == "hour"
        metric = "activities" if hourly else metric
        self._curve = curve(trend, metric)
        label = METRICS[metric]
        content = [] if hourly else [_metrics(metric, self.choose)]
        if any(self._curve.now) or any(self._curve.before):
            words = course(label, self._curve.at, self._curve.now, self._curve.before)
            content += [self.chart(shapes(self._curve, self.room), HEIGHT, words, _legend(self._curve)), self._axis()]
        else:
            content.append(nothing(f"{label}: none in this period."))
        return panel("Trend", content, words="by hour" if hourly else "by day")

    def _axis(self) -> ft.Control:
        at = self._curve.at
        marks = (at[0], at[len(at) // 2], at[-1])
        texts: list[ft.Control] = [small(point(mark)) for mark in marks]
        return ft.Semantics(exclude_semantics=True, content=ft.Row(texts, alignment=ft.MainAxisAlignment.SPACE_BETWEEN))

    def told(self, x: float, y: float) -> str | None:
        at, now, before = self._curve
        n = round(x / self.room * (len(at) - 1))
        if not 0 <= n < len(at):
            return None
        figure = grouped(now[n]) if n < len(now) else "not over yet"
        words = f"{point(at[n])}: {figure}"
        return f"{words} · {grouped(before[n])} in the period before" if n < len(before) else words


def shapes(of: Curve, width: float) -> list[cv.Shape]:
    """Two lines across with the figure they stand for, the period before as a pale dashed line, this one filled."""
    top = ceiling(max((*of.now, *of.before)))
    style = ft.TextStyle(size=SMALL, color=MUTED)
    drawn: list[cv.Shape] = []
    for part in (1.0, 0.5, 0.0):
        y = HEAD + (HEIGHT - HEAD) * (1 - part) - (0.5 if part == 0 else 0)
        drawn.append(cv.Line(0, y, width, y, paint=ft.Paint(color=HAIRLINE, stroke_width=1)))
        if part and (top * part).is_integer():
            drawn.append(cv.Text(0, y - HEAD, grouped(int(top * part)), style=style))
    if of.before:
        drawn.append(_line(places(of.before, len(of.at), top, width), ft.Paint(
            color=MUTED, stroke_width=1.5, style=ft.PaintingStyle.STROKE, stroke_dash_pattern=[4, 4]
        )))  # fmt: skip
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


def _legend(of: Curve) -> str:
    return "Line: this period · dashed: the period before" if of.before else "This period"


def _metrics(chosen: str, choose: Callable[[str], Awaitable[None]]) -> ft.Control:
    chips: list[ft.Control] = [choice(label, name == chosen, pressing(choose, name)) for name, label in METRICS.items()]
    return ft.Row(chips, wrap=True, spacing=GRID, run_spacing=4)
