"""Tokens and the small parts every control here is made of.

Semantics: a part that can be pressed is one node, a button, whose name is what the caller says; what is drawn inside
it is kept out of the tree, so the name stays the same whatever the layout.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import flet as ft

from flashflow.views.controls.formatting import ago, exact, one_line, reads_rtl

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
FIGURE = 28

RADIUS = 12
GRID = 8
TARGET = 48

Handler = Callable[[Any], Awaitable[None]]


def silent(content: ft.Control) -> ft.Semantics:
    """What is seen but not read aloud."""
    return ft.Semantics(exclude_semantics=True, content=content)


def icon_button(icon: ft.IconData, name: str, on_click: Handler, *, key: str | None = None) -> ft.MergeSemantics:
    """A button of one icon, at least 48 by 48, named by its tooltip."""
    return ft.MergeSemantics(
        key=key,
        content=ft.IconButton(icon, tooltip=name, icon_size=20, width=TARGET, height=TARGET, on_click=on_click),
    )


def named_button(
    kind: Callable[..., ft.LayoutControl],
    words: str,
    name: str,
    on_click: Handler,
    *,
    disabled: bool = False,
    key: str | None = None,
) -> ft.MergeSemantics:
    """A button whose ``words`` say too little without what stands beside it; a screen reader hears ``name``."""
    button = kind(content=silent(ft.Text(words)), tooltip=name, height=TARGET, on_click=on_click, disabled=disabled)
    return ft.MergeSemantics(key=key, content=button)


def pressable(
    name: str, content: ft.Control, on_click: Handler, *, selected: bool = False, key: str | None = None
) -> ft.MergeSemantics:
    """A row that is a button named ``name``."""
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
    """A button that opens a menu; ``name`` is what a screen reader says, where the label alone would not do."""
    words = ft.Text(label, size=BODY, color=ACCENT if outlined else None)
    parts: list[ft.Control] = [words, ft.Icon(ft.Icons.ARROW_DROP_DOWN, size=20, color=MUTED)]
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
    """A choice among others that breaks into lines where there is no room beside them."""
    return ft.Chip(
        label,
        selected=selected,
        on_select=on_select,
        show_checkmark=checkmark,
        label_text_style=ft.TextStyle(size=BODY),
        padding=ft.Padding.symmetric(horizontal=GRID, vertical=14),
    )


def body(text: str, *, strong: bool = False, lines: int | None = None, color: ft.ColorValue | None = None) -> ft.Text:
    """Plain text at 14; ``lines`` cuts it with an ellipsis."""
    return _text(text, BODY, ft.FontWeight.W_600 if strong else ft.FontWeight.W_400, lines, color)


def small(text: str, *, lines: int | None = None, color: ft.ColorValue = MUTED) -> ft.Text:
    """Secondary text at 12."""
    return _text(text, SMALL, ft.FontWeight.W_400, lines, color)


def copyable(text: ft.Text) -> ft.Semantics:
    """Text that can be selected; Flutter alone would tell a screen reader of a field to type into."""
    text.selectable = True
    return ft.Semantics(label=text.value, exclude_semantics=True, content=text)


def caller_text(text: str, *, strong: bool = False, lines: int = 1) -> ft.Text:
    """A caller's words on one paragraph, in their own direction."""
    control = body(one_line(text), strong=strong, lines=lines)
    control.rtl, control.text_align = reads_rtl(text), ft.TextAlign.LEFT
    return control


def time_text(then: datetime, now: datetime) -> ft.Text:
    """A relative time with the exact one on hover."""
    control = small(ago(then, now))
    control.tooltip = hint(exact(then, now))
    return control


def hint(words: str, *, tap: bool = False) -> ft.Tooltip:
    """A tooltip for eyes only: what is read aloud says it in its own place."""
    trigger = ft.TooltipTriggerMode.TAP if tap else ft.TooltipTriggerMode.LONG_PRESS
    return ft.Tooltip(words, exclude_from_semantics=True, trigger_mode=trigger)  # type: ignore[arg-type]  # Flet's own: no enum, strings


def heading(text: str, *, size: int = BODY, level: int = 2) -> ft.Semantics:
    """A heading for eyes and for screen readers."""
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
    """Whether the control stands on a page, so that ``update()`` has somewhere to go."""
    try:
        return control.page is not None
    except RuntimeError:
        return False


def _text(text: str, size: int, weight: ft.FontWeight, lines: int | None, color: ft.ColorValue | None) -> ft.Text:
    overflow = ft.TextOverflow.ELLIPSIS if lines else ft.TextOverflow.VISIBLE
    return ft.Text(text, size=size, weight=weight, max_lines=lines, overflow=overflow, color=color)
