"""Delivery timeline of a notification: its deliveries, their attempts and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import flet as ft

from flashflow.backend import Attempt, Delivery, Notification
from flashflow.views.controls.formatting import elapsed_text, one_line, plural
from flashflow.views.controls.layout import column, flow, mark_row
from flashflow.views.controls.relative_time import clock, exact, upcoming
from flashflow.views.controls.texts import body, copyable, heading, hint, small
from flashflow.views.controls.tokens import GRID, HIGH, TARGET
from flashflow.views.notifications.actions import NotificationActions
from flashflow.views.shared.delivery_labels import (
    FIXABLE_IN_SETTINGS,
    PLATFORMS,
    can_be_retried,
    channel_name,
    outcome_of,
    provider_text,
    reason_of,
    state_of,
)

SHOWN = 10
OVER = frozenset({"scheduled", "cancelled", "expired"})
"""Statuses in which nothing is being sent."""


def timeline(
    notification: Notification,
    deliveries: Sequence[Delivery],
    now: datetime,
    do: NotificationActions,
    *,
    all_attempts: bool = False,
) -> ft.Column:
    """Return every delivery with its latest SHOWN attempts, or with all of them."""
    rows: list[ft.Control] = [heading("Why you got this")]
    rows += [_delivery(delivery, now, do, all_attempts) for delivery in deliveries]
    if not deliveries:
        rows.append(small(_no_deliveries_text(notification, now)))
    if buttons := _buttons(notification, deliveries, do):
        rows.append(flow(buttons, key="mending"))
    return column(rows, 2 * GRID, key="why")


def _no_deliveries_text(notification: Notification, now: datetime) -> str:
    if notification.status == "scheduled" and notification.scheduled_at is not None:
        return f"Scheduled for {upcoming(notification.scheduled_at, now)}. Its channels will be chosen then."
    if notification.status in {"scheduled", "pending"}:
        return "It has not been handed to a channel yet."
    return "It was imported without its deliveries."


def _buttons(notification: Notification, deliveries: Sequence[Delivery], do: NotificationActions) -> list[ft.Control]:
    buttons: list[ft.Control] = []
    if notification.status not in OVER and any(map(can_be_retried, deliveries)):
        buttons.append(ft.FilledTonalButton("Retry now", icon=ft.Icons.REFRESH, height=TARGET, on_click=do.retry))
    if any(d.status == "held" and d.code == "digest" for d in deliveries):
        text = "Send the digest now"
        buttons.append(ft.OutlinedButton(text, icon=ft.Icons.SEND_OUTLINED, height=TARGET, on_click=do.send_digest))
    if any(d.status == "failed" and d.code in FIXABLE_IN_SETTINGS for d in deliveries):
        text = "Set up in Settings"
        buttons.append(ft.TextButton(text, icon=ft.Icons.SETTINGS_OUTLINED, height=TARGET, on_click=do.settings))
    return buttons


def _delivery(delivery: Delivery, now: datetime, do: NotificationActions, all_attempts: bool) -> ft.Row:
    state = state_of(delivery)
    target = f" · {PLATFORMS.get(delivery.target, one_line(delivery.target, 80))}" if delivery.target else ""
    stood = small(f"{state.word} · {clock(delivery.updated_at, now)}", color=state.color)
    stood.tooltip = hint(exact(delivery.updated_at, now))
    texts: list[ft.Control] = [body(f"{channel_name(delivery.channel)}{target}"), stood]
    last = delivery.attempts[-1].text if delivery.attempts else None
    if (why := reason_of(delivery.code, delivery.reason)) and delivery.reason != last:
        texts.append(small(why))
    if comes := _next_step(delivery, now):
        texts.append(small(comes, color=HIGH))
    if delivery.attempts:
        texts.append(_attempts(delivery, now, do, all_attempts))
    icon = ft.Icon(state.icon, size=20, color=state.color)
    return mark_row(icon, texts, spacing=2, key=f"delivery-{delivery.id}")


def _next_step(delivery: Delivery, now: datetime) -> str:
    """Return when the delivery is sent or tried next; "" if neither."""
    if delivery.status == "held" and delivery.release_at is not None:
        return f"Will be sent {_at(delivery.release_at, now)}"
    if delivery.status == "pending" and delivery.next_attempt_at is not None:
        if not delivery.attempts:
            return f"Will be sent {_at(delivery.next_attempt_at, now)}" if delivery.next_attempt_at > now else ""
        comes = "now" if delivery.next_attempt_at <= now else _at(delivery.next_attempt_at, now)
        until = delivery.retry_until
        ends = f", repeated until {upcoming(until, now)}" if until is not None and until > now else ""
        return f"Next attempt {comes}{ends}"
    return ""


def _at(then: datetime, now: datetime) -> str:
    """Format a time today, with seconds within the next hour, or a later date."""
    if then.astimezone(now.tzinfo).date() != now.date():
        return upcoming(then, now)
    soon = (then - now).total_seconds() < 3600
    return f"at {clock(then, now) if soon else upcoming(then, now)}"


def _attempts(delivery: Delivery, now: datetime, do: NotificationActions, all_attempts: bool) -> ft.Container:
    attempts = delivery.attempts
    shown = attempts if all_attempts else attempts[-SHOWN:]
    lines: list[ft.Control] = []
    if len(attempts) > 1:
        lines.append(small(plural(len(attempts), "attempt")))
    if len(shown) < len(attempts):
        text = f"Show all {len(attempts):,} attempts"
        lines.append(ft.Row([ft.TextButton(text, height=TARGET, on_click=do.show_all)]))
    lines += [_attempt(attempt, now) for attempt in shown]
    return ft.Container(column(lines, 4), key=f"attempts-{delivery.id}", padding=ft.Padding.only(top=4))


def _attempt(attempt: Attempt, now: datetime) -> ft.Row:
    state = outcome_of(attempt)
    head = small(f"{clock(attempt.started_at, now)} · {elapsed_text(attempt.duration_ms)} · {state.word}")
    head.tooltip = hint(exact(attempt.started_at, now))
    texts: list[ft.Control] = [head]
    if said := provider_text(attempt.code, attempt.text):
        texts.append(copyable(small(said)))
    return mark_row(ft.Icon(state.icon, size=16, color=state.color), texts, gap=GRID)
