"""The banner over broken ``.flow`` files."""

from __future__ import annotations

from collections.abc import Sequence

import flet as ft

from flashflow.backend import FlowError
from flashflow.views.controls.formatting import one_line, plural
from flashflow.views.controls.layout import column, growing
from flashflow.views.controls.texts import body, copyable, read_as, small
from flashflow.views.controls.tokens import GRID, HIGH, RADIUS, SMALL, URGENT

MOST_SHOWN = 3
"""Errors that the banner shows."""
AROUND = 60
"""Characters of a line that are shown before and after its mark."""


def problem_banner(problem: str, errors: Sequence[FlowError]) -> ft.Control:
    """Return the banner: the number of errors, and the first ones with their place, line and hint. Without errors, the
    sentence of the project."""
    head = one_line(problem, 500)
    if errors:
        head = f"{plural(len(errors), 'error')} in the .flow files. The last valid version stays in use."
    lines: list[ft.Control] = [copyable(body(head, strong=True)), *map(_error, errors[:MOST_SHOWN])]
    if len(errors) > MOST_SHOWN:
        lines.append(small("“flashflow check” lists all of them."))
    icon = ft.Icon(ft.Icons.WARNING_AMBER, size=20, color=HIGH)
    content = growing(column(lines, 12, stretch=True))
    row = ft.Row([icon, content], spacing=12, vertical_alignment=ft.CrossAxisAlignment.START)
    return ft.Container(row, padding=2 * GRID, border_radius=RADIUS, bgcolor=ft.Colors.TERTIARY_CONTAINER)


def _error(error: FlowError) -> ft.Control:
    parts: list[ft.Control] = [copyable(body(one_line(f"{error.place}: {error.message}", 400)))]
    if error.source_line.strip():
        parts.append(_source_line(error))
    if error.hint:
        parts.append(small(one_line(error.hint)))
    return column(parts, 2, stretch=True)


def _source_line(error: FlowError) -> ft.Control:
    """Return the line with its wrong part marked; a caret below needs a font of equal widths, which a page may lack."""
    line = "".join(one if one.isprintable() else " " for one in error.source_line)
    start = error.place.column - 1
    end = start + max(1, error.place.length)
    before = line[max(0, start - AROUND) : start].lstrip()
    marked, after = line[start:end] or "␣", line[end : end + AROUND].rstrip()
    mark = ft.TextStyle(color=URGENT, weight=ft.FontWeight.W_600, decoration=ft.TextDecoration.UNDERLINE)
    spans = [ft.TextSpan(f"{error.place.line} | {before}"), ft.TextSpan(marked, style=mark), ft.TextSpan(after)]
    text = ft.Text(spans=spans, size=SMALL, font_family="monospace", max_lines=3, overflow=ft.TextOverflow.ELLIPSIS)
    return read_as(f"Line {error.place.line}: {before}{marked}{after}", text)
