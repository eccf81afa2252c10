"""Detail view of a notification: its content, actions and delivery timeline."""

from __future__ import annotations

from datetime import datetime

import flet as ft

from flashflow.backend import Action, Notification, NotificationDetail
from flashflow.views.controls.buttons import Handler, menu_button
from flashflow.views.controls.formatting import one_line, paragraphs, reads_rtl, safe_link, times
from flashflow.views.controls.layout import flow, hairline
from flashflow.views.controls.notification_row import PRIORITIES
from flashflow.views.controls.relative_time import ago, clock, exact, upcoming
from flashflow.views.controls.texts import body, copyable, heading, hint, small
from flashflow.views.controls.tokens import ACCENT, HIGH, TARGET, TITLE
from flashflow.views.notifications.actions import NotificationActions
from flashflow.views.notifications.delivery_timeline import timeline


def detail_view(
    detail: NotificationDetail, now: datetime, do: NotificationActions, *, all_attempts: bool = False
) -> ft.Column:
    """Return the notification as a column; ``all_attempts``: with every attempt of its deliveries."""
    notification = detail.notification
    parts: list[ft.Control] = [
        _title(notification),
        _origin(notification, now),
        _toolbar(notification, do),
        hairline(),
    ]
    if notification.message:
        text = body(paragraphs(notification.message))
        text.rtl = reads_rtl(notification.message)
        parts.append(copyable(text))
    if notification.actions:
        parts.append(flow([_action(a) for a in notification.actions]))
    parts.append(timeline(notification, detail.deliveries, now, do, all_attempts=all_attempts))
    return ft.Column(
        parts, key=f"detail-{notification.id}", spacing=16, horizontal_alignment=ft.CrossAxisAlignment.STRETCH
    )


def _title(notification: Notification) -> ft.Control:
    title = one_line(notification.title)
    head = heading(title, size=TITLE)
    if isinstance(head.content, ft.Text):
        head.content.rtl = reads_rtl(title)
    return head


def _origin(notification: Notification, now: datetime) -> ft.Row:
    parts: list[ft.Control] = []
    if notification.priority in PRIORITIES:
        word, icon, color = PRIORITIES[notification.priority]
        parts += [ft.Icon(icon, size=16, color=color), small(word, color=color)]
    if notification.app:
        parts.append(small(f"from {one_line(notification.app, 60)}"))
    parts.append(small(one_line(notification.notification_type, 80)))
    came = small(f"{clock(notification.listed_at, now)} ({ago(notification.listed_at, now)})")
    came.tooltip = hint(exact(notification.listed_at, now))
    parts.append(came)
    if often := times(notification.count):
        count = small(often, color=ACCENT)
        count.tooltip = hint(f"Sent {notification.count:,} times and shown once")
        parts.append(count)
    if notification.inbox == "snoozed" and notification.snoozed_until is not None:
        parts.append(small(f"Snoozed until {upcoming(notification.snoozed_until, now)}", color=HIGH))
    return flow(parts, run_spacing=4)


def _toolbar(notification: Notification, do: NotificationActions) -> ft.Row:
    inbox = notification.inbox
    buttons: list[ft.Control] = []
    if inbox in ("unread", "read"):
        unread = inbox == "unread"
        icon = ft.Icons.MARK_EMAIL_READ_OUTLINED if unread else ft.Icons.MARK_EMAIL_UNREAD_OUTLINED
        buttons.append(_button("Mark read" if unread else "Mark unread", icon, do.toggle_read))
    if inbox == "snoozed":
        buttons.append(_button("Wake now", ft.Icons.ALARM_OFF, do.wake))
    if inbox in ("unread", "read", "snoozed"):
        buttons.append(_snooze(do))
    if inbox is not None:
        archived = inbox == "archived"
        icon = ft.Icons.UNARCHIVE_OUTLINED if archived else ft.Icons.ARCHIVE_OUTLINED
        buttons.append(_button("Move to inbox" if archived else "Archive", icon, do.toggle_archived))
    return flow(buttons)


def _snooze(do: NotificationActions) -> ft.Control:
    items = [
        ft.PopupMenuItem("For 1 hour", on_click=do.snooze_an_hour),
        ft.PopupMenuItem("Until tomorrow, 08:00", on_click=do.snooze_to_morning),
    ]
    return menu_button("Snooze", items, icon=ft.Icons.SNOOZE, key="snooze")


def _button(label: str, icon: ft.IconData, on_click: Handler) -> ft.OutlinedButton:
    return ft.OutlinedButton(label, icon=icon, height=TARGET, on_click=on_click)


def _action(action: Action) -> ft.Control:
    """Return a button for the sender's link, disabled unless ``safe_link`` accepts it."""
    label = one_line(action.label, 80)
    link = safe_link(action.url)
    if link is None:
        return ft.OutlinedButton(label, height=TARGET, disabled=True, tooltip=f"{label}: not a valid web address")
    return ft.FilledButton(
        label,
        height=TARGET,
        icon=ft.Icons.OPEN_IN_NEW,
        tooltip=f"Opens {one_line(link, 200)}",
        url=ft.Url(link, target=ft.UrlTarget.BLANK),
    )
