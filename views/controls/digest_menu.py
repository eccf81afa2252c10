"""Menu that sets a type's digest: each notification by itself, or an hourly or daily digest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import time
from typing import Any

import flet as ft

from flashflow.views.controls.buttons import Handler, menu_button, on_press
from flashflow.views.controls.protocols import DigestSetting
from flashflow.views.controls.translation import ENGLISH, Translation

MORNING = "08:00"
"""Default time of a daily digest."""
PER_TYPE = "Set per type"

Choose = Callable[[str | None, str | None], Awaitable[None]]
"""Called with the frequency (None: reset to the default) and, for "daily", the time."""


def digest_label(digest: DigestSetting | None, t: Translation = ENGLISH) -> str:
    """Return the label of a digest setting: "Every one", "Hourly", "Daily, 08:00"."""
    if digest is None:
        return t(PER_TYPE)
    if digest.frequency == "daily":
        return t("Daily, {time}", time=digest.at or MORNING)
    return t("Hourly") if digest.frequency == "hourly" else t("Every one")


def digest_menu(
    label: str, digest: DigestSetting | None, choose: Choose, t: Translation = ENGLISH
) -> ft.PopupMenuButton:
    """Return the menu for the type named ``label``; ``digest`` is None for all types while nothing is set for them."""
    at = (digest.at if digest is not None and digest.frequency == "daily" else None) or MORNING
    current = digest.frequency if digest is not None else None
    current_label = digest_label(digest, t)

    def item(text: str, frequency: str | None, time_of_day: str | None = None) -> ft.PopupMenuItem:
        chosen = on_press(choose, frequency, time_of_day)
        return ft.PopupMenuItem(text, checked=frequency == current, on_click=chosen)

    items = [
        item(t("Every one"), "off"),
        item(t("Digest, every hour"), "hourly"),
        item(t("Digest, daily at {time}", time=at), "daily", at),
        ft.PopupMenuItem(t("Digest, daily at another time…"), on_click=_time_picker(at, choose, t)),
    ]
    if digest is not None and digest.chosen:
        items.append(ft.PopupMenuItem(t("Reset to default"), on_click=on_press(choose, None, None)))
    return menu_button(
        current_label, items, name=t("{type}: {digest}", type=label, digest=current_label), outlined=False
    )


def _time_picker(at: str, choose: Choose, t: Translation) -> Handler:
    async def show(event: Any) -> None:
        async def picked(answer: ft.Event[ft.TimePicker]) -> None:
            if answer.control.value is not None:
                await choose("daily", f"{answer.control.value:%H:%M}")

        event.page.show_dialog(
            ft.TimePicker(
                value=time.fromisoformat(at),
                entry_mode=ft.TimePickerEntryMode.INPUT,
                hour_format=ft.TimePickerHourFormat.H24,
                help_text=t("Time of the daily digest"),
                confirm_text=t("Save"),
                on_change=picked,
            )
        )

    return show
