"""Shared widgets: cards, sections, copyable commands, and empty, loading and error states."""

from __future__ import annotations

import flet as ft

from flashflow.views.controls.tokens import (
    CARD,
    GRID,
    HAIRLINE,
    HIGH,
    MUTED,
    RADIUS,
    SMALL,
    TARGET,
    URGENT,
    Handler,
    body,
    copyable,
    heading,
    icon_button,
    silent,
    small,
)

CONTENT_MAX = 1200


def card(content: ft.Control, *, key: str | None = None, padding: ft.PaddingValue = 2 * GRID) -> ft.Container:
    """Return a container with a border and rounded corners."""
    return ft.Container(
        key=key, content=content, padding=padding, border_radius=RADIUS, border=ft.Border.all(1, HAIRLINE), bgcolor=CARD
    )


def centred(content: ft.Control, *, stretch: bool = False) -> ft.Row:
    """Centre the content, at most CONTENT_MAX logical pixels wide."""
    middle = ft.Container(ft.Container(content, width=CONTENT_MAX), expand=True, expand_loose=True)
    cross = ft.CrossAxisAlignment.STRETCH if stretch else ft.CrossAxisAlignment.START
    return ft.Row([middle], alignment=ft.MainAxisAlignment.CENTER, vertical_alignment=cross)


def page_column(controls: list[ft.Control], *, wide: bool) -> ft.ListView:
    """Return a scrolling page of sections."""
    sections = ft.Column(controls, key="sections", spacing=3 * GRID, tight=True)
    return ft.ListView([centred(sections)], expand=True, padding=page_padding(wide=wide))


def page_padding(*, wide: bool) -> ft.Padding:
    """Return the padding around a page's sections."""
    side = 3 * GRID if wide else 2 * GRID
    return ft.Padding.only(left=side, right=side, top=GRID, bottom=3 * GRID)


def section(title: str, controls: list[ft.Control], *, subtitle: str = "", key: str | None = None) -> ft.Column:
    """Return a titled part of a page."""
    head: list[ft.Control] = [heading(title)]
    if subtitle:
        head.append(small(subtitle))
    return ft.Column([ft.Column(head, spacing=2, tight=True), *controls], key=key, spacing=12, tight=True)


def command(line: str, name: str) -> ft.Container:
    """Return a terminal command with a copy button; ``name`` describes it in the accessible name "Copy: …"."""

    async def copy(event: ft.Event[ft.IconButton]) -> None:
        await ft.Clipboard().set(line)
        event.page.show_dialog(ft.SnackBar("Copied", duration=ft.Duration(seconds=2)))

    text = ft.Text(line, size=SMALL, font_family="monospace", selectable=True, expand=True)
    return ft.Container(
        content=ft.Row(
            [text, icon_button(ft.Icons.CONTENT_COPY, f"Copy: {name}", copy)],
            spacing=GRID,
            vertical_alignment=ft.CrossAxisAlignment.CENTER,
        ),
        padding=ft.Padding.only(left=12, right=4, top=4, bottom=4),
        border_radius=GRID,
        bgcolor=ft.Colors.SURFACE_CONTAINER,
    )


def empty(icon: ft.IconData, title: str, text: str, line: str = "", name: str = "") -> ft.Container:
    """Return an empty state: a title, an explanation, and a command that creates the first entry."""
    parts: list[ft.Control] = [
        silent(ft.Icon(icon, size=32, color=MUTED)),
        body(title, strong=True),
        small(text),
    ]
    if line:
        parts.append(command(line, name))
    return ft.Container(key="empty", padding=2 * GRID, content=ft.Column(parts, spacing=GRID, tight=True))


def failure(text: str, retry: Handler) -> ft.Container:
    """Return an error state with a retry button."""
    return ft.Container(
        padding=3 * GRID,
        content=ft.Column(
            [
                ft.Icon(ft.Icons.ERROR_OUTLINE, size=32, color=URGENT),
                body("This could not be loaded", strong=True),
                small(f"{text} Nothing was changed."),
                ft.OutlinedButton("Retry", height=TARGET, on_click=retry),
            ],
            spacing=GRID,
            tight=True,
        ),
    )


def skeleton() -> ft.Container:
    """Return placeholder bars shown while a page loads."""
    bars: list[ft.Control] = [
        ft.Container(height=height, border_radius=RADIUS, bgcolor=ft.Colors.SURFACE_CONTAINER)
        for height in (96, 48, 48, 48, 48)
    ]
    outline = ft.Column(bars, spacing=2 * GRID, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
    return ft.Container(
        padding=3 * GRID, content=ft.Semantics(label="Loading", exclude_semantics=True, content=outline)
    )


def banner(text: str, dismiss: Handler) -> ft.Container:
    """Return a dismissible banner with a startup notice."""
    message = body(text)
    message.expand = True
    return ft.Container(
        content=ft.Row(
            [
                ft.Icon(ft.Icons.INFO_OUTLINE, size=20, color=HIGH),
                message,
                icon_button(ft.Icons.CLOSE, f"Dismiss: {text}", dismiss),
            ],
            spacing=12,
        ),
        padding=ft.Padding.only(left=16, right=4, top=4, bottom=4),
        border_radius=RADIUS,
        bgcolor=ft.Colors.TERTIARY_CONTAINER,
    )


def warning(text: str) -> ft.Container:
    """Return a warning that cannot be dismissed."""
    message = copyable(body(text))
    message.expand = True
    return ft.Container(
        ft.Row(
            [ft.Icon(ft.Icons.WARNING_AMBER, size=20, color=HIGH), message],
            spacing=12,
            vertical_alignment=ft.CrossAxisAlignment.START,
        ),
        padding=2 * GRID,
        border_radius=RADIUS,
        bgcolor=ft.Colors.TERTIARY_CONTAINER,
    )
