"""Charts of pages: lines, areas and bars over the columns of a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from datetime import datetime
from typing import ClassVar, NamedTuple

import flet as ft
import flet.canvas as cv

from flashflow.backend import declarations
from flashflow.views.controls.formatting import one_line, plural
from flashflow.views.controls.layout import column, flow, growing
from flashflow.views.controls.texts import body, caller_text, read_as, silent, small
from flashflow.views.controls.tokens import ACCENT, GOOD, GRID, HIGH, MUTED, URGENT
from flashflow.views.flow.cells import as_number, cell, title_of, value_text
from flashflow.views.flow.context import Rows, unit_of
from flashflow.views.flow.data_part import DataPart
from flashflow.views.shared import plot
from flashflow.views.shared.panel import Chart
from flashflow.views.shared.values import Number

MOST_POINTS = 400
"""Points that a chart draws: the first rows of its source."""
DOT = 3.0
"""Radius of a value without neighbours."""
MOST_BARS = 12
"""Names in a list of bars."""
COLORS = (ACCENT, HIGH, GOOD, MUTED, URGENT)
DASHES: tuple[list[float] | None, ...] = (None, [8, 4], [2, 3], [12, 4, 2, 4], [5, 5])
"""Colours and dashes of the series in their order, so that colour alone tells no series from another."""


class Series(NamedTuple):
    """Values of one column; None where a row has no number."""

    title: str
    unit: str
    values: tuple[Number | None, ...]


class Drawing(NamedTuple):
    """Data of a chart: its kind, the labels of its points, and its series."""

    title: str
    kind: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]

    @property
    def is_empty(self) -> bool:
        return all(value is None for series in self.series for value in series.values)


def drawing_of(declared: declarations.Chart, title: str, data: Rows, now: datetime) -> Drawing:
    """Return the columns that a chart draws."""
    rows, x_unit = data.rows, unit_of(data, declared.x)
    if x_unit in {"day", "time"}:  # rows of models come newest first
        rows = sorted(rows, key=lambda row: str(row.get(declared.x) or ""))
    labels = tuple(one_line(cell(row.get(declared.x), x_unit, now).text, 120) for row in rows)
    series = tuple(
        Series(title_of(name), unit_of(data, name), tuple(as_number(row.get(name)) for row in rows))
        for name in declared.y
    )
    return Drawing(title, declared.type, labels, series)


def summary(of: Drawing) -> str:
    """Describe a chart for screen readers: each series with its first, last and highest value."""
    head = f"{of.title}: {of.kind} chart from {of.labels[0]} to {of.labels[-1]}"
    parts = []
    for series in of.series:
        known = [(value, label) for value, label in zip(series.values, of.labels, strict=True) if value is not None]
        if known:
            top, at = max(known, key=lambda pair: pair[0])
            first, last, high = (value_text(value, series.unit) for value in (known[0][0], known[-1][0], top))
            parts.append(f"{series.title} first {first}, last {last}, highest {high} ({at})")
    return f"{head}. {'; '.join(parts)}"


class Scale(NamedTuple):
    """Lower and upper bound of the series of one unit."""

    bottom: Number
    top: Number


def scales(of: Drawing) -> dict[str, Scale]:
    """Return the scale of each unit, in the order of the series."""
    found: dict[str, Scale] = {}
    for unit in dict.fromkeys(series.unit for series in of.series):
        values = [value for series in of.series if series.unit == unit for value in series.values if value is not None]
        whole = unit != "share" and all(float(value).is_integer() for value in values)
        lowest, highest = min(values, default=0), max(values, default=0)
        top = plot.ceiling(highest, whole=whole) if highest > 0 or lowest >= 0 else 0
        found[unit] = Scale(-plot.ceiling(-lowest, whole=whole) if lowest < 0 else 0, top)
    return found


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class SeriesChart(Chart):
    """Canvas of a chart, with a legend, an axis and a caption for the point under the pointer."""

    around: ClassVar[float] = 0  # its card belongs to the part

    room: float = field(default=320, metadata={"skip": True})

    def draw(self, of: Drawing) -> ft.Control:
        key = "-".join((of.kind, str(len(of.labels)), *(str(len(series.values)) for series in of.series)))
        first, middle, last = of.labels[0], of.labels[len(of.labels) // 2], of.labels[-1]
        axis = plot.axis(first, middle, last) if len(of.labels) > 2 else plot.axis(first, "", last)
        if len(of.labels) == 1:
            axis = plot.axis("", first, "")
        parts: list[ft.Control] = [_legend(of)] if len(of.series) > 1 else []
        parts.append(
            self.chart(
                shapes(of, self.room), plot.HEIGHT, summary(of), point_text(of, len(of.labels) - 1), key=key, axis=axis
            )
        )
        return column(parts, GRID, stretch=True)

    def describe_at(self, x: float, y: float) -> str | None:
        if self._shown is None:
            return None
        of: Drawing = self._shown[0]
        count = len(of.labels)
        n = int(x / self.room * count) if of.kind == "bar" else round(x / self.room * (count - 1))
        if not 0 <= n < count:
            return None
        return point_text(of, n)


def shapes(of: Drawing, width: float) -> list[cv.Shape]:
    """Return the grid with its labels (the first unit on the left, the second on the right) and the series."""
    found = scales(of)
    drawn = _grid(found, width)
    for n, series in enumerate(of.series):
        scale, color = found[series.unit], COLORS[n % len(COLORS)]
        if of.kind == "bar":
            drawn += _bars(series, n, len(of.series), scale, width, color)
        else:
            drawn += _lines(series, scale, width, color, DASHES[n % len(DASHES)], filled=of.kind == "area")
    return drawn


def _grid(found: dict[str, Scale], width: float) -> list[cv.Shape]:
    drawn: list[cv.Shape] = []
    for part in (1.0, 0.5, 0.0):
        y = plot.height_at(part, 1) - (0.5 if part == 0 else 0)
        drawn.append(plot.grid_line(y, width))
        for place, (unit, scale) in enumerate(list(found.items())[:2]):
            value = scale.bottom + (scale.top - scale.bottom) * part
            if value and (unit == "share" or float(value).is_integer() or scale.top < 10):
                side = ft.Alignment.TOP_RIGHT if place else ft.Alignment.TOP_LEFT
                drawn.append(plot.grid_label(value_text(value, unit), y, width if place else 0, side))
    return drawn


def _lines(
    series: Series, scale: Scale, width: float, color: ft.ColorValue, dashes: list[float] | None, *, filled: bool
) -> list[cv.Shape]:
    drawn: list[cv.Shape] = []
    floor = plot.height_at(max(scale.bottom, min(0, scale.top)), scale.top, scale.bottom)
    for run in _runs(series.values):
        step = width / max(1, len(series.values) - 1)
        points = [(n * step, plot.height_at(value, scale.top, scale.bottom)) for n, value in run]
        if len(points) == 1:
            ((x, y),) = points
            drawn.append(cv.Circle(min(max(x, DOT), width - DOT), y, DOT, paint=ft.Paint(color=color)))
            continue
        if filled:
            drawn.append(plot.area(points, color, floor))
        drawn.append(plot.path(points, plot.stroke(color, 2, dashes)))
    return drawn


def _runs(values: Sequence[Number | None]) -> list[list[tuple[int, Number]]]:
    """Split values at the gaps; each value with its position."""
    runs: list[list[tuple[int, Number]]] = [[]]
    for n, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((n, value))
    return [run for run in runs if run]


def _bars(series: Series, n: int, of: int, scale: Scale, width: float, color: ft.ColorValue) -> list[cv.Shape]:
    band = width / len(series.values)
    gap = min(GRID, band * 0.2)
    each = max(1.0, (band - gap) / of)
    zero = plot.height_at(max(scale.bottom, min(0, scale.top)), scale.top, scale.bottom)
    paint = ft.Paint(color=color)
    drawn: list[cv.Shape] = []
    for place, value in enumerate(series.values):
        if value:
            y = plot.height_at(value, scale.top, scale.bottom)
            left = place * band + gap / 2 + n * each
            drawn.append(cv.Rect(left, min(y, zero), max(1.0, each - 1), abs(zero - y), border_radius=2, paint=paint))
    return drawn


def _legend(of: Drawing) -> ft.Control:
    """Return the names of the series beside their look; the summary of the chart reads them to screen readers."""
    parts: list[ft.Control] = []
    for n, series in enumerate(of.series):
        color = COLORS[n % len(COLORS)]
        if of.kind == "bar":
            look: ft.Control = ft.Container(width=10, height=10, border_radius=2, bgcolor=color)
        else:
            line = plot.path([(0, 5), (24, 5)], plot.stroke(color, 2, DASHES[n % len(DASHES)]))
            look = ft.Container(cv.Canvas([line], width=24, height=10), width=24, height=10)
        parts.append(ft.Row([look, small(series.title)], spacing=GRID, tight=True))
    return silent(flow(parts, spacing=2 * GRID, run_spacing=4))


def point_text(of: Drawing, n: int) -> str:
    """Describe one point; the last one is the caption while the pointer is elsewhere."""
    values = " · ".join(f"{series.title} {value_text(series.values[n], series.unit)}" for series in of.series)
    return f"{of.labels[n]}: {values}"


def bar_list(of: Drawing) -> ft.Control:
    """Return bars with their names and values, one below another: names do not fit below upright bars."""
    found = scales(of)
    rows: list[ft.Control] = [_legend(of)] if len(of.series) > 1 else []
    for n, label in enumerate(of.labels[:MOST_BARS]):
        lines: list[ft.Control] = []
        words = []
        for place, series in enumerate(of.series):
            value, scale = series.values[n], found[series.unit]
            text = value_text(value, series.unit)
            words.append(f"{series.title} {text}")
            color, none = COLORS[place % len(COLORS)], ft.Colors.TRANSPARENT
            length = max(0.0, (value or 0) / scale.top) if scale.top else 0.0
            bar = ft.ProgressBar(length, bar_height=6, border_radius=3, color=color, bgcolor=none)
            lines.append(ft.Row([growing(bar), *([body(text)] if len(of.series) > 1 else [])], spacing=GRID))
        head: list[ft.Control] = [growing(caller_text(label))]
        if len(of.series) == 1:
            head.append(body(value_text(of.series[0].values[n], of.series[0].unit)))
        rows.append(read_as(f"{label}: {', '.join(words)}", column([ft.Row(head, spacing=GRID), *lines], 2)))
    if (more := len(of.labels) - MOST_BARS) > 0:
        rows.append(small(f"and {plural(more, 'more row')}"))
    return column(rows, 12, stretch=True)


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class ChartPart(DataPart):
    """A chart of a page."""

    declared: declarations.Chart = field(metadata={"skip": True})

    def init(self) -> None:
        self._chart = SeriesChart(room=560 if self.context.wide else 300)
        self._drawn = ft.Container(self._chart, padding=2 * GRID)
        super().init()

    @property
    def height_loading(self) -> float:
        return plot.HEIGHT + 64

    def load(self) -> Rows:
        return self.context.read(self.declared.data, MOST_POINTS)

    def draw(self, data: Rows) -> ft.Control:
        of = drawing_of(self.declared, self.title, data, self.context.now_minute())
        if of.is_empty:
            picture: ft.Control = small("No data yet. The chart appears with the first rows.")
        elif of.kind == "bar" and unit_of(data, self.declared.x) == "text":
            picture = bar_list(of)
        else:
            self._chart.set_data(of)
            return self._drawn
        return ft.Container(picture, padding=2 * GRID)
