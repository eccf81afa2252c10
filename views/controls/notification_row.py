"""One notification as a row, in the bell's panel and in the notification centre."""

from __future__ import annotations

from datetime import datetime

import flet as ft

from flashflow.views.controls.buttons import Handler, pressable
from flashflow.views.controls.formatting import one_line, times
from flashflow.views.controls.layout import flow, growing, mark_row
from flashflow.views.controls.protocols import InboxNotification
from flashflow.views.controls.texts import caller_text, small, time_text
from flashflow.views.controls.tokens import ACCENT, HIGH, MUTED, SMALL, URGENT
from flashflow.views.controls.translation import ENGLISH, Translation

PRIORITIES: dict[str, tuple[str, ft.IconData, ft.ColorValue]] = {
    "urgent": ("Urgent", ft.Icons.ERROR_OUTLINE, URGENT),
    "high": ("High", ft.Icons.PRIORITY_HIGH, HIGH),
}


def row_name(notification: InboxNotification, t: Translation = ENGLISH) -> str:
    """Return the row's accessible name: "Build finished, unread, from ci", "Disk full, 3 times, read"."""
    state = notification.inbox if notification.inbox in ("unread", "snoozed", "archived") else "read"
    title = one_line(notification.title)
    if notification.count > 1:
        title = t("{title}, {count:,} times", title=title, count=notification.count)
    if not notification.app:
        return t("{title}, {state}", title=title, state=t(state))
    return t("{title}, {state}, from {app}", title=title, state=t(state), app=one_line(notification.app))


def notification_row(
    notification: InboxNotification,
    now: datetime,
    on_click: Handler,
    *,
    selected: bool = False,
    lines: int = 2,
    t: Translation = ENGLISH,
) -> ft.MergeSemantics:
    """Return a row with title, time, message, app and priority; unread rows have a dot and a bold title."""
    unread = notification.inbox == "unread"
    title = growing(caller_text(notification.title, strong=unread, lines=2))
    head: list[ft.Control] = [title, time_text(notification.listed_at, now, t)]
    if often := times(notification.count):
        head.insert(1, small(often, color=ACCENT))
    texts: list[ft.Control] = [ft.Row(head, spacing=8, vertical_alignment=ft.CrossAxisAlignment.START)]
    if notification.message:
        message = caller_text(notification.message, lines=lines)
        message.color = MUTED
        texts.append(message)
    texts.append(origin(notification.app, notification.priority, t))
    content = mark_row(_mark(unread), texts, spacing=4)
    key = f"notification-{notification.id}"
    return pressable(row_name(notification, t), content, on_click, selected=selected, key=key)


def origin(app: str, priority: str, t: Translation = ENGLISH) -> ft.Row:
    """Return the app of a notification and its priority when it is above normal."""
    parts: list[ft.Control] = []
    if priority in PRIORITIES:
        word, icon, color = PRIORITIES[priority]
        text = ft.Text(t(word), size=SMALL, color=color)
        parts.append(ft.Row([ft.Icon(icon, size=16, color=color), text], spacing=4, tight=True))
    if app:
        parts.append(small(one_line(app, 60)))
    return flow(parts, run_spacing=4)


def _mark(unread: bool) -> ft.Container:
    """Return the unread dot, or its empty space so that titles stay aligned."""
    color = ACCENT if unread else None
    return ft.Container(width=8, height=8, margin=ft.Margin.only(top=6), border_radius=4, bgcolor=color)
