"""Every one by itself, or collected and told at once: the menu that chooses for one type of notice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import time
from typing import Any

import flet as ft

from flashflow.views.controls.protocols import DigestSetting
from flashflow.views.controls.tokens import Handler, menu_button

MORNING = "08:00"
"""When a daily summary goes out that nobody gave a time."""
EACH_ITS_OWN = "As each type says"

Choose = Callable[[str | None, str | None], Awaitable[None]]
"""Takes the frequency (None: the choice is taken back) and for "daily" the time."""


def digest_label(rhythm: DigestSetting | None) -> str:
    """What a rhythm is called: "Every one", "Hourly", "Daily, 08:00"."""
    if rhythm is None:
        return EACH_ITS_OWN
    if rhythm.frequency == "daily":
        return f"Daily, {rhythm.at or MORNING}"
    return "Hourly" if rhythm.frequency == "hourly" else "Every one"


def digest_menu(label: str, rhythm: DigestSetting | None, choose: Choose) -> ft.PopupMenuButton:
    """The menu for the type called ``label``; ``rhythm`` None where nothing was chosen for every type at once."""
    at = (rhythm.at if rhythm is not None and rhythm.frequency == "daily" else None) or MORNING
    frequency = rhythm.frequency if rhythm is not None else None
    words = digest_label(rhythm)

    def item(text: str, wanted: str | None, moment: str | None = None) -> ft.PopupMenuItem:
        async def chosen(_: object) -> None:
            await choose(wanted, moment)

        return ft.PopupMenuItem(text, checked=wanted == frequency, on_click=chosen)

    items = [
        item("Every one", "off"),
        item("Collected, every hour", "hourly"),
        item(f"Collected, daily at {at}", "daily", at),
        ft.PopupMenuItem("Collected, daily at another time…", on_click=_ask(at, choose)),
    ]
    if rhythm is not None and rhythm.chosen:
        items.append(ft.PopupMenuItem("Take my choice back", on_click=_take_back(choose)))
    return menu_button(words, items, name=f"{label}: {words}", outlined=False)


def _take_back(choose: Choose) -> Handler:
    async def take_back(_: object) -> None:
        await choose(None, None)

    return take_back


def _ask(at: str, choose: Choose) -> Handler:
    async def ask(event: Any) -> None:
        async def picked(answer: ft.Event[ft.TimePicker]) -> None:
            if answer.control.value is not None:
                await choose("daily", f"{answer.control.value:%H:%M}")

        event.page.show_dialog(
            ft.TimePicker(
                value=time.fromisoformat(at),
                entry_mode=ft.TimePickerEntryMode.INPUT,
                hour_format=ft.TimePickerHourFormat.H24,
                help_text="When the daily summary goes out",
                confirm_text="Save",
                on_change=picked,
            )
        )

    return ask
