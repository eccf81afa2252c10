"""Shapes of charts on a canvas: the scale, grid lines, lines and filled areas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import flet as ft
import flet.canvas as cv

from flashflow.views.controls.texts import small
from flashflow.views.controls.tokens import HAIRLINE, MUTED, SMALL
from flashflow.views.shared.values import Number

HEIGHT = 180.0
HEAD = 18.0
"""Height above the top grid line for its label."""
ROUND = (1, 2, 3, 4, 5, 6, 8)

Point = tuple[float, float]


def ceiling(highest: Number, *, whole: bool = True) -> Number:
    """Return a chart's upper bound: the lowest ROUND step times a power of ten that is at least ``highest``.

    ``whole``: at least 1. Otherwise 0 and values that are not finite give 1.
    """
    if not whole and 0 < highest < 1:
        power = 10.0 ** math.floor(math.log10(highest))
        return next((step * power for step in ROUND if step * power >= highest), 10 * power)
    scale = 1
    while highest < math.inf:
        for step in ROUND:
            if step * scale >= highest:
                return step * scale
        scale *= 10
    return 1


def height_at(value: Number, top: Number, bottom: Number = 0) -> float:
    """Return the canvas's y coordinate of a value."""
    return HEAD + (HEIGHT - HEAD) * (1 - (value - bottom) / (top - bottom))


def places(values: Sequence[Number], of: int, top: Number, width: float, bottom: Number = 0) -> list[Point]:
    """Return the canvas coordinates of values, the first of ``of`` points at the left edge."""
    step = width / max(1, of - 1)
    return [(n * step, height_at(value, top, bottom)) for n, value in enumerate(values)]


def grid_line(y: float, width: float) -> cv.Line:
    return cv.Line(0, y, width, y, paint=ft.Paint(color=HAIRLINE, stroke_width=1))


def grid_label(text: str, y: float, x: float = 0, alignment: ft.Alignment | None = None) -> cv.Text:
    """Return the label above the grid line at ``y``."""
    style = ft.TextStyle(size=SMALL, color=MUTED)
    return cv.Text(x, y - HEAD, text, style=style, alignment=alignment or ft.Alignment.TOP_LEFT)


def path(through: Sequence[Point], paint: ft.Paint) -> cv.Path:
    first, *rest = through
    elements: list[cv.Path.PathElement] = [cv.Path.MoveTo(*first), *(cv.Path.LineTo(x, y) for x, y in rest)]
    return cv.Path(elements, paint=paint)


def stroke(color: ft.ColorValue, width: float = 2, dashes: list[float] | None = None) -> ft.Paint:
    return ft.Paint(color=color, stroke_width=width, style=ft.PaintingStyle.STROKE, stroke_dash_pattern=dashes)


def area(through: Sequence[Point], color: ft.ColorValue, floor: float = HEIGHT) -> cv.Path:
    """Return the faint area between a line and ``floor``."""
    outline = [(through[0][0], floor), *through, (through[-1][0], floor)]
    return path(outline, ft.Paint(color=ft.Colors.with_opacity(0.10, color), style=ft.PaintingStyle.FILL))


def axis(first: str, middle: str, last: str) -> ft.Row:
    """Return the labels below a chart."""
    return ft.Row([small(text) for text in (first, middle, last)], alignment=ft.MainAxisAlignment.SPACE_BETWEEN)
