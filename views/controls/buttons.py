"""Buttons, menus and chips, and their event handlers.

Accessibility: a part that can be pressed is one semantics node, a button with the name given by the caller. Its content
is excluded from the semantics tree, so that the name does not depend on the layout.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import flet as ft

from flashflow.views.controls.texts import silent
from flashflow.views.controls.tokens import ACCENT, BODY, GRID, MUTED, RADIUS, TARGET

Handler = Callable[[Any], Awaitable[None]]


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
