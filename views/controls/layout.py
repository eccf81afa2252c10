"""Layout of controls: columns, rows, cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import flet as ft

from flashflow.views.controls.tokens import CARD, GRID, HAIRLINE, RADIUS

Grown = TypeVar("Grown", bound=ft.Control)


def column(
    controls: Sequence[ft.Control], spacing: float = 0, *, key: str | None = None, stretch: bool = False
) -> ft.Column:
    """Return a column as high as its content; ``stretch`` makes its content as wide as the column."""
    across = ft.CrossAxisAlignment.STRETCH if stretch else ft.CrossAxisAlignment.START
    return ft.Column(list(controls), key=key, spacing=spacing, tight=True, horizontal_alignment=across)


def flow(
    controls: Sequence[ft.Control], *, key: str | None = None, spacing: float = GRID, run_spacing: float = GRID
) -> ft.Row:
    """Return a row that continues in further lines where the page is narrow."""
    return ft.Row(list(controls), key=key, wrap=True, spacing=spacing, run_spacing=run_spacing)


def ends(left: ft.Control, right: ft.Control) -> ft.Row:
    """Return a row with one part at each end, below each other where the page is narrow."""
    row = flow([left, right], run_spacing=4)
    row.alignment = ft.MainAxisAlignment.SPACE_BETWEEN
    return row


def mark_row(
    mark: ft.Control, texts: Sequence[ft.Control], *, gap: float = 12, spacing: float = 0, key: str | None = None
) -> ft.Row:
    """Return texts beside an icon or a dot at their top."""
    lines = ft.Column(list(texts), spacing=spacing, expand=True, tight=True)
    return ft.Row([mark, lines], key=key, spacing=gap, vertical_alignment=ft.CrossAxisAlignment.START)


def card(content: ft.Control, *, key: str | None = None, padding: ft.PaddingValue = 2 * GRID) -> ft.Container:
    """Return a container with a border and rounded corners."""
    return ft.Container(
        key=key, content=content, padding=padding, border_radius=RADIUS, border=ft.Border.all(1, HAIRLINE), bgcolor=CARD
    )


def growing(control: Grown) -> Grown:
    """Let the control fill the free space of its row."""
    control.expand = True
    return control


def hairline() -> ft.Divider:
    return ft.Divider(height=1, thickness=1, color=HAIRLINE)
