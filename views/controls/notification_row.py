"""One notification as a row: in the bell's drop-down and in the centre."""

from __future__ import annotations

from datetime import datetime

import flet as ft

from flashflow.views.controls.formatting import one_line, times
from flashflow.views.controls.protocols import InboxNotification
from flashflow.views.controls.tokens import (
    ACCENT,
    HIGH,
    MUTED,
    SMALL,
    URGENT,
    Handler,
    caller_text,
    pressable,
    small,
    time_text,
)

PRIORITIES: dict[str, tuple[str, ft.IconData, ft.ColorValue]] = {
    "urgent": ("Urgent", ft.Icons.ERROR_OUTLINE, URGENT),
    "high": ("High", ft.Icons.PRIORITY_HIGH, HIGH),
}


def row_name(notice: InboxNotification) -> str:
    """What a screen reader says: "Build finished, unread, from ci", "Disk full, 3 times, read"."""
    state = notice.inbox if notice.inbox in ("unread", "snoozed", "archived") else "read"
    often = f", {notice.count:,} times" if notice.count > 1 else ""
    source = f", from {one_line(notice.app)}" if notice.app else ""
    return f"{one_line(notice.title)}{often}, {state}{source}"


def notification_row(
    notice: InboxNotification, now: datetime, on_click: Handler, *, selected: bool = False, lines: int = 2
) -> ft.MergeSemantics:
    """Title, time, message and where it came from; unread carries a mark and a heavier title."""
    unread = notice.inbox == "unread"
    title = caller_text(notice.title, strong=unread, lines=2)
    title.expand = True
    head: list[ft.Control] = [title, time_text(notice.listed_at, now)]
    if often := times(notice.count):
        head.insert(1, small(often, color=ACCENT))
    texts: list[ft.Control] = [ft.Row(head, spacing=8, vertical_alignment=ft.CrossAxisAlignment.START)]
    if notice.message:
        message = caller_text(notice.message, lines=lines)
        message.color = MUTED
        texts.append(message)
    texts.append(origin(notice.app, notice.priority))
    content = ft.Row(
        [_mark(unread), ft.Column(texts, spacing=4, expand=True, tight=True)],
        spacing=12,
        vertical_alignment=ft.CrossAxisAlignment.START,
    )
    return pressable(row_name(notice), content, on_click, selected=selected, key=f"notice-{notice.id}")


def origin(app: str, priority: str) -> ft.Row:
    """Where a notice came from, with its priority where that is more than normal."""
    parts: list[ft.Control] = []
    if priority in PRIORITIES:
        word, icon, color = PRIORITIES[priority]
        parts.append(
            ft.Row([ft.Icon(icon, size=16, color=color), ft.Text(word, size=SMALL, color=color)], spacing=4, tight=True)
        )
    if app:
        parts.append(small(one_line(app, 60)))
    return ft.Row(parts, spacing=8, run_spacing=4, wrap=True)


def _mark(unread: bool) -> ft.Container:
    """The unread mark: a dot in the accent, or its empty place, so that titles stay in line."""
    return ft.Container(
        width=8, height=8, margin=ft.Margin.only(top=6), border_radius=4, bgcolor=ACCENT if unread else None
    )
