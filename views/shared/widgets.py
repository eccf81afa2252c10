"""Shared widgets: pages, sections, copyable commands, and empty, loading and error states."""

from __future__ import annotations

from collections.abc import Sequence

import flet as ft

from flashflow.views.controls.buttons import Handler, icon_button
from flashflow.views.controls.layout import column, growing
from flashflow.views.controls.texts import body, copyable, heading, silent, small
from flashflow.views.controls.tokens import GRID, HIGH, MUTED, RADIUS, SMALL, TARGET, URGENT
from flashflow.views.shared.cli_snippets import send_command, track_command

CONTENT_MAX = 1200


def centred(content: ft.Control, *, stretch: bool = False) -> ft.Row:
    """Centre the content, at most CONTENT_MAX logical pixels wide."""
    middle = ft.Container(ft.Container(content, width=CONTENT_MAX), expand=True, expand_loose=True)
    cross = ft.CrossAxisAlignment.STRETCH if stretch else ft.CrossAxisAlignment.START
    return ft.Row([middle], alignment=ft.MainAxisAlignment.CENTER, vertical_alignment=cross)


def page_column(controls: list[ft.Control], *, wide: bool) -> ft.ListView:
    """Return a scrolling page of sections."""
    sections = column(controls, 3 * GRID, key="sections")
    return ft.ListView([centred(sections)], expand=True, padding=page_padding(wide=wide))


def page_padding(*, wide: bool) -> ft.Padding:
    """Return the padding around a page's sections."""
    side = 3 * GRID if wide else 2 * GRID
    return ft.Padding.only(left=side, right=side, top=GRID, bottom=3 * GRID)


def section(title: str, controls: Sequence[ft.Control], *, subtitle: str = "", key: str | None = None) -> ft.Column:
    """Return a titled part of a page."""
    head = [heading(title), *([small(subtitle)] if subtitle else [])]
    return column([column(head, 2), *controls], 12, key=key)


def command(line: str, name: str) -> ft.Container:
    """Return a terminal command with a copy button; ``name`` describes it in the accessible name "Copy: …"."""

    async def copy(event: ft.Event[ft.IconButton]) -> None:
        await ft.Clipboard().set(line)
        event.page.show_dialog(ft.SnackBar("Copied", duration=ft.Duration(seconds=2)))

    text = ft.Text(line, size=SMALL, font_family="monospace", selectable=True, expand=True)
    return ft.Container(
        content=ft.Row([text, icon_button(ft.Icons.CONTENT_COPY, f"Copy: {name}", copy)], spacing=GRID),
        padding=ft.Padding.only(left=12, right=4, top=4, bottom=4),
        border_radius=GRID,
        bgcolor=ft.Colors.SURFACE_CONTAINER,
    )


def empty(icon: ft.IconData, title: str, text: str, line: str = "", name: str = "") -> ft.Container:
    """Return an empty state: a title, an explanation, and a command that creates the first entry."""
    parts = [silent(ft.Icon(icon, size=32, color=MUTED)), body(title, strong=True), small(text)]
    return ft.Container(column([*parts, *([command(line, name)] if line else [])], GRID), key="empty", padding=2 * GRID)


def no_activities(
    title: str, text: str, url: str | None, user_id: str, icon: ft.IconData = ft.Icons.TIMELINE
) -> ft.Container:
    """Return the empty state of a list of activities or users, with a command that records an activity."""
    return empty(icon, title, text, track_command(url, user_id), "record an activity")


def nothing_unread(url: str | None, me: str) -> ft.Container:
    """Return the empty state of unread notifications, with a command that sends one."""
    text = "Notifications stay here until you open them. Send yourself one:"
    return empty(ft.Icons.DONE_ALL, "You are all caught up", text, send_command(url, me), "send a notification")


def failure(text: str, retry: Handler) -> ft.Container:
    """Return an error state with a retry button."""
    parts = [
        ft.Icon(ft.Icons.ERROR_OUTLINE, size=32, color=URGENT),
        body("This could not be loaded", strong=True),
        small(f"{text} Nothing was changed."),
        ft.OutlinedButton("Retry", height=TARGET, on_click=retry),
    ]
    return ft.Container(column(parts, GRID), padding=3 * GRID)


def skeleton() -> ft.Container:
    """Return placeholder bars shown while a page loads."""
    bars: list[ft.Control] = [
        ft.Container(height=height, border_radius=RADIUS, bgcolor=ft.Colors.SURFACE_CONTAINER)
        for height in (96, 48, 48, 48, 48)
    ]
    outline = ft.Column(bars, spacing=2 * GRID, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
    return ft.Container(ft.Semantics(content=outline, label="Loading", exclude_semantics=True), padding=3 * GRID)


def banner(text: str, dismiss: Handler) -> ft.Container:
    """Return a dismissible banner with a startup notice."""
    icon = ft.Icon(ft.Icons.INFO_OUTLINE, size=20, color=HIGH)
    close = icon_button(ft.Icons.CLOSE, f"Dismiss: {text}", dismiss)
    row = ft.Row([icon, growing(body(text)), close], spacing=12)
    return _highlighted(row, ft.Padding.only(left=16, right=4, top=4, bottom=4))


def warning(text: str) -> ft.Container:
    """Return a warning that cannot be dismissed."""
    icon = ft.Icon(ft.Icons.WARNING_AMBER, size=20, color=HIGH)
    row = ft.Row([icon, growing(copyable(body(text)))], spacing=12, vertical_alignment=ft.CrossAxisAlignment.START)
    return _highlighted(row, 2 * GRID)


def _highlighted(content: ft.Control, padding: ft.PaddingValue) -> ft.Container:
    return ft.Container(content, padding=padding, border_radius=RADIUS, bgcolor=ft.Colors.TERTIARY_CONTAINER)
