"""Design tokens (colours, sizes) and the basic parts of every control.

Accessibility: a part that can be pressed is one semantics node, a button with the name given by the caller. Its content
is excluded from the semantics tree, so that the name does not depend on the layout.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import flet as ft

from flashflow.views.controls.formatting import one_line, reads_rtl
from flashflow.views.controls.relative_time import ago, exact

ACCENT = ft.Colors.PRIMARY
HIGH = ft.Colors.TERTIARY
URGENT = ft.Colors.ERROR
GOOD = ft.Colors.TERTIARY_FIXED_DIM
MUTED = ft.Colors.ON_SURFACE_VARIANT
HAIRLINE = ft.Colors.OUTLINE_VARIANT
SURFACE = ft.Colors.SURFACE
CARD = ft.Colors.SURFACE_CONTAINER_LOWEST

BODY = 14
SMALL = 12
TITLE = 20
METRIC = 28

RADIUS = 12
GRID = 8
TARGET = 48

Handler = Callable[[Any], Awaitable[None]]
Grown = TypeVar("Grown", bound=ft.Control)


def on_press(action: Callable[..., Awaitable[None] | None], *given: Any) -> Handler:
    """Return an event handler that calls ``action(*given)``, and awaits it if it is asynchronous."""

    async def press(_: object) -> None:
        running = action(*given)
        if inspect.isawaitable(running):
            await running

    return press


def on_switch(action: Callable[..., Awaitable[None]], *given: Any) -> Handler:
    """Return a change handler that awaits ``action(*given, on)``, where ``on`` is the state of the switch."""

    async def switched(event: ft.Event[ft.Switch]) -> None:
        await action(*given, bool(event.control.value))

    return switched


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


def silent(content: ft.Control) -> ft.Semantics:
    """Hide content from screen readers."""
    return ft.Semantics(exclude_semantics=True, content=content)


def read_as(name: str, content: ft.Control, *, key: str | None = None, expand: bool | None = None) -> ft.Semantics:
    """Group content into one semantics node with the accessible name ``name``."""
    return ft.Semantics(key=key, label=name, container=True, exclude_semantics=True, expand=expand, content=content)


def icon_button(icon: ft.IconData, name: str, on_click: Handler, *, key: str | None = None) -> ft.MergeSemantics:
    """Return an icon button of TARGET by TARGET; its tooltip is its accessible name."""
    return ft.MergeSemantics(
        key=key,
        content=ft.IconButton(icon, tooltip=name, icon_size=20, width=TARGET, height=TARGET, on_click=on_click),
    )


def named_button(
    kind: Callable[..., ft.LayoutControl],
    text: str,
    name: str,
    on_click: Handler,
    *,
    disabled: bool = False,
    key: str | None = None,
) -> ft.MergeSemantics:
    """Return a button labelled ``text`` with the longer accessible name ``name``."""
    button = kind(content=silent(ft.Text(text)), tooltip=name, height=TARGET, on_click=on_click, disabled=disabled)
    return ft.MergeSemantics(key=key, content=button)


def pressable(
    name: str, content: ft.Control, on_click: Handler, *, selected: bool = False, key: str | None = None
) -> ft.MergeSemantics:
    """Return a row that is a button with the accessible name ``name``."""
    return ft.MergeSemantics(
        key=key,
        content=ft.Semantics(
            label=name,
            button=True,
            selected=selected or None,
            content=ft.Container(
                content=silent(content),
                on_click=on_click,
                ink=True,
                padding=ft.Padding.symmetric(vertical=12, horizontal=16),
                border_radius=RADIUS,
                bgcolor=ft.Colors.with_opacity(0.08, ACCENT) if selected else None,
            ),
        ),
    )


def menu_button(
    label: str,
    items: list[ft.PopupMenuItem],
    *,
    name: str | None = None,
    icon: ft.IconData | None = None,
    outlined: bool = True,
    key: str | None = None,
) -> ft.PopupMenuButton:
    """Return a button that opens a menu; ``name`` is its accessible name if the label is too short."""
    face_label = ft.Text(label, size=BODY, color=ACCENT if outlined else None)
    parts: list[ft.Control] = [face_label, ft.Icon(ft.Icons.ARROW_DROP_DOWN, size=20, color=MUTED)]
    if icon is not None:
        parts.insert(0, ft.Icon(icon, size=18, color=ACCENT))
    face = ft.Container(
        ft.Row(parts, spacing=GRID, tight=True),
        padding=ft.Padding.only(left=2 * GRID if outlined else GRID, right=GRID),
        height=TARGET,
        border_radius=TARGET / 2,
        border=ft.Border.all(1, ft.Colors.OUTLINE) if outlined else None,
    )
    return ft.PopupMenuButton(
        content=silent(face),
        items=items,
        tooltip=name or label,
        padding=0,
        menu_position=ft.PopupMenuPosition.UNDER,
        key=key,
    )


def choice(label: str, selected: bool, on_select: Handler, *, checkmark: bool = False) -> ft.Chip:
    """Return a chip for one option among several."""
    return ft.Chip(
        label,
        selected=selected,
        on_select=on_select,
        show_checkmark=checkmark,
        label_text_style=ft.TextStyle(size=BODY),
        padding=ft.Padding.symmetric(horizontal=GRID, vertical=14),
    )


def body(text: str, *, strong: bool = False, lines: int | None = None, color: ft.ColorValue | None = None) -> ft.Text:
    """Return text of size BODY; ``lines`` limits it with an ellipsis."""
    return _text(text, BODY, ft.FontWeight.W_600 if strong else ft.FontWeight.W_400, lines, color)


def small(text: str, *, lines: int | None = None, color: ft.ColorValue = MUTED) -> ft.Text:
    """Return secondary text of size SMALL."""
    return _text(text, SMALL, ft.FontWeight.W_400, lines, color)


def copyable(text: ft.Text) -> ft.Semantics:
    """Make text selectable."""
    # Without the label Flutter announces selectable text as an input field.
    text.selectable = True
    return ft.Semantics(label=text.value, exclude_semantics=True, content=text)


def caller_text(text: str, *, strong: bool = False, lines: int = 1) -> ft.Text:
    """Return text from a caller as one paragraph in its own writing direction."""
    control = body(one_line(text), strong=strong, lines=lines)
    control.rtl, control.text_align = reads_rtl(text), ft.TextAlign.LEFT
    return control


def time_text(then: datetime, now: datetime) -> ft.Text:
    """Return a relative time with the exact time as tooltip."""
    control = small(ago(then, now))
    control.tooltip = hint(exact(then, now))
    return control


def hint(text: str, *, tap: bool = False) -> ft.Tooltip:
    """Return a tooltip that screen readers skip; ``tap`` opens it by a tap instead of a long press."""
    trigger = ft.TooltipTriggerMode.TAP if tap else ft.TooltipTriggerMode.LONG_PRESS
    return ft.Tooltip(text, exclude_from_semantics=True, trigger_mode=trigger)  # type: ignore[arg-type]  # Flet's own: no enum, strings


def heading(text: str, *, size: int = BODY, level: int = 2) -> ft.Semantics:
    """Return a heading, marked as one for screen readers."""
    return ft.Semantics(
        label=text,
        header=True,
        heading_level=level,
        exclude_semantics=True,
        content=ft.Text(text, size=size, weight=ft.FontWeight.W_600),
    )


def hairline() -> ft.Divider:
    return ft.Divider(height=1, thickness=1, color=HAIRLINE)


def is_mounted(control: ft.BaseControl) -> bool:
    """Return whether the control is on a page, which ``update()`` requires."""
    try:
        return control.page is not None
    except RuntimeError:
        return False


def _text(text: str, size: int, weight: ft.FontWeight, lines: int | None, color: ft.ColorValue | None) -> ft.Text:
    overflow = ft.TextOverflow.ELLIPSIS if lines else ft.TextOverflow.VISIBLE
    return ft.Text(text, size=size, weight=weight, max_lines=lines, overflow=overflow, color=color)
