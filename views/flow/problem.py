"""The banner over broken ``.flow`` files."""

from __future__ import annotations

from collections.abc import Sequence

import flet as ft

from flashflow.backend import FlowError
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import column, growing
from flashflow.views.controls.texts import body, copyable, small
from flashflow.views.controls.tokens import GRID, HIGH, RADIUS, SMALL

MOST_SHOWN = 3
"""Errors that the banner shows in full."""
LINES_LONGEST = 1_000
"""Characters of one error."""


def problem_banner(problem: str, errors: Sequence[FlowError]) -> ft.Control:
    """Return the banner: the sentence of the project, and the first errors with their lines."""
    icon = ft.Icon(ft.Icons.WARNING_AMBER, size=20, color=HIGH)
    lines: list[ft.Control] = [copyable(body(one_line(problem, 500)))]
    for error in errors[:MOST_SHOWN]:
        text = ft.Text(error.render()[:LINES_LONGEST], size=SMALL, font_family="monospace")
        lines.append(ft.Container(copyable(text), clip_behavior=ft.ClipBehavior.HARD_EDGE))
    if len(errors) > MOST_SHOWN:
        lines.append(small("“flashflow check” lists all errors."))
    content = growing(column(lines, GRID, stretch=True))
    row = ft.Row([icon, content], spacing=12, vertical_alignment=ft.CrossAxisAlignment.START)
    return ft.Container(row, padding=2 * GRID, border_radius=RADIUS, bgcolor=ft.Colors.TERTIARY_CONTAINER)
