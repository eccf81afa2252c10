"""One notification in full: what it says, what can be done, and why it came the way it did."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import flet as ft

from views.controls.look import (
    GOOD,
    GRID,
    HIGH,
    MUTED,
    TARGET,
    TITLE,
    URGENT,
    Handler,
    body,
    hairline,
    heading,
    hint,
    small,
)
from views.controls.notice_row import PRIORITIES
from views.words import ago, clock, exact, one_line, paragraphs, plural, reads_rtl, safe_link

if TYPE_CHECKING:
    from backend import Action, Attempt, Delivery, Notification, NotificationDetail

STATES: dict[str, tuple[str, ft.IconData, ft.ColorValue]] = {
    "pending": ("Waiting to be sent", ft.Icons.SCHEDULE, MUTED),
    "sending": ("Being sent", ft.Icons.SCHEDULE_SEND, MUTED),
    "sent": ("Sent", ft.Icons.CHECK, GOOD),
    "delivered": ("Delivered", ft.Icons.CHECK_CIRCLE_OUTLINE, GOOD),
    "held": ("Held for later", ft.Icons.PAUSE_CIRCLE_OUTLINE, HIGH),
    "suppressed": ("Not sent", ft.Icons.BLOCK, MUTED),
    "failed": ("Failed", ft.Icons.ERROR_OUTLINE, URGENT),
    "dead": ("Failed for good", ft.Icons.ERROR_OUTLINE, URGENT),
}
CHANNELS = {"in_app": "In app", "push": "Push", "email": "E-mail", "sms": "SMS"}
TARGETS = {"desktop": "This computer", "ios": "iPhone", "android": "Android phone", "web": "Browser"}


def detail_view(
    detail: NotificationDetail, now: datetime, *, toggle_read: Handler, toggle_archived: Handler
) -> ft.Column:
    """The whole notification as a column."""
    notification = detail.notification
    parts: list[ft.Control] = [
        _title(notification),
        _origin(notification, now),
        _toolbar(notification, toggle_read, toggle_archived),
        hairline(),
    ]
    if notification.message:
        words = body(paragraphs(notification.message))
        words.selectable = True
        words.rtl = reads_rtl(notification.message)
        parts.append(words)
    if notification.actions:
        parts.append(ft.Row([_action(a) for a in notification.actions], wrap=True, spacing=GRID, run_spacing=GRID))
    parts.append(_why(detail.deliveries, now))
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
    time = small(f"{clock(notification.created_at, now)} ({ago(notification.created_at, now)})")
    time.tooltip = hint(exact(notification.created_at, now))
    parts.append(time)
    return ft.Row(parts, wrap=True, spacing=GRID, run_spacing=4)


def _toolbar(notification: Notification, toggle_read: Handler, toggle_archived: Handler) -> ft.Row:
    archived = notification.inbox == "archived"
    buttons: list[ft.Control] = []
    if notification.inbox in ("unread", "read"):
        unread = notification.inbox == "unread"
        icon = ft.Icons.MARK_EMAIL_READ_OUTLINED if unread else ft.Icons.MARK_EMAIL_UNREAD_OUTLINED
        buttons.append(_button("Mark read" if unread else "Mark unread", icon, toggle_read))
    if notification.inbox is not None:
        icon = ft.Icons.UNARCHIVE_OUTLINED if archived else ft.Icons.ARCHIVE_OUTLINED
        buttons.append(_button("Back to the inbox" if archived else "Archive", icon, toggle_archived))
    return ft.Row(buttons, wrap=True, spacing=GRID, run_spacing=GRID)


def _button(label: str, icon: ft.IconData, on_click: Handler) -> ft.OutlinedButton:
    return ft.OutlinedButton(label, icon=icon, height=TARGET, on_click=on_click)


def _action(action: Action) -> ft.Control:
    """A link of the sender's; one that is no plain web address is shown and cannot be pressed."""
    label = one_line(action.label, 80)
    link = safe_link(action.url)
    if link is None:
        return ft.OutlinedButton(label, height=TARGET, disabled=True, tooltip=f"{label}: not a web address, not opened")
    return ft.FilledButton(
        label,
        height=TARGET,
        icon=ft.Icons.OPEN_IN_NEW,
        tooltip=f"Opens {one_line(link, 200)}",
        url=ft.Url(link, target=ft.UrlTarget.BLANK),
    )


def _why(deliveries: tuple[Delivery, ...], now: datetime) -> ft.Column:
    rows: list[ft.Control] = [heading("Why you got this")]
    rows += [_delivery(delivery, now) for delivery in deliveries]
    if not deliveries:
        rows.append(small("No channel was asked to carry it yet."))
    return ft.Column(rows, key="why", spacing=12, tight=True)


def _delivery(delivery: Delivery, now: datetime) -> ft.Row:
    word, icon, color = STATES.get(delivery.status, (delivery.status.capitalize(), ft.Icons.HELP_OUTLINE, MUTED))
    channel = CHANNELS.get(delivery.channel, delivery.channel)
    target = f" · {TARGETS.get(delivery.target, one_line(delivery.target, 80))}" if delivery.target else ""
    texts: list[ft.Control] = [
        body(f"{channel}{target}"),
        small(f"{word} · {clock(delivery.updated_at, now)}", color=color),
    ]
    if delivery.reason:
        texts.append(small(one_line(delivery.reason)))
    if delivery.next_attempt_at is not None and delivery.status in ("pending", "held"):
        texts.append(small(f"Next try {clock(delivery.next_attempt_at, now)}"))
    if len(delivery.attempts) > 1:
        texts.append(small(plural(len(delivery.attempts), "try", "tries")))
    told = len(delivery.attempts) == 1 and delivery.attempts[0].text == delivery.reason
    texts += [small(_attempt(attempt, now)) for attempt in delivery.attempts[-5:] if not told]
    return ft.Row(
        [ft.Icon(icon, size=20, color=color), ft.Column(texts, spacing=2, expand=True, tight=True)],
        key=f"delivery-{delivery.id}",
        spacing=12,
        vertical_alignment=ft.CrossAxisAlignment.START,
    )


def _attempt(attempt: Attempt, now: datetime) -> str:
    said = one_line(f"{attempt.code} {attempt.text}".strip() or attempt.outcome, 200)
    return f"{clock(attempt.started_at, now)} · {attempt.duration_ms:,} ms · {said}"
