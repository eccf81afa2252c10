"""Quiet hours and do not disturb, with their current effect on a normal notification."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import flet as ft

from flashflow.backend import QuietHoursIn, given
from flashflow.views.controls.formatting import upcoming
from flashflow.views.controls.tokens import (
    GRID,
    HIGH,
    URGENT,
    Handler,
    body,
    choice,
    hairline,
    heading,
    named_button,
    silent,
    small,
)
from flashflow.views.shared.delivery_labels import channel_name, current_outcome
from flashflow.views.shared.form import HALF, QUARTER, Field, as_time, grid, submit
from flashflow.views.shared.sources import set_do_not_disturb
from flashflow.views.shared.widgets import card

if TYPE_CHECKING:
    from flashflow.backend import Decided, QuietSetting
    from flashflow.views.shared.screen_base import Screen

DAYS = {"mon": "Mon", "tue": "Tue", "wed": "Wed", "thu": "Thu", "fri": "Fri", "sat": "Sat", "sun": "Sun"}
PLAIN = "During these hours all but critical notifications are held, except in the app, and then sent as one digest."


class QuietHoursPanel:
    """Quiet hours form. The switch and the days are saved at once, times and zone when their field loses focus."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._one_write = asyncio.Lock()
        self._enabled = False
        self._days: tuple[str, ...] = tuple(DAYS)
        self._fields = {
            "start": Field("From", col=QUARTER, on_done=self._leaver("start")),
            "end": Field("To", col=QUARTER, on_done=self._leaver("end")),
            "timezone": Field(
                "Time zone",
                helper="For example Europe/Berlin; empty: this computer's time zone",
                col=HALF,
                on_done=self._leaver("timezone"),
            ),
        }
        self._switch = ft.Switch(tooltip="Quiet hours", on_change=self._switched)
        self._chips = {day: choice(label, False, self._picker(day), checkmark=True) for day, label in DAYS.items()}
        self._error = small("", color=URGENT)
        self._error.visible = False
        self._disturb = ft.Column(spacing=0, tight=True)
        self._now = ft.Column(spacing=0, tight=True)
        self.control = card(
            ft.Column(
                [
                    ft.Row(
                        [
                            ft.Column(
                                [silent(body("Quiet hours", strong=True)), small(PLAIN)],
                                spacing=2,
                                expand=True,
                                tight=True,
                            ),
                            self._switch,
                        ],
                        spacing=12,
                    ),
                    grid([field.control for field in self._fields.values()]),
                    ft.Row(
                        [silent(small("Starting on")), *self._chips.values()],
                        wrap=True,
                        spacing=GRID,
                        run_spacing=GRID,
                    ),
                    self._error,
                    hairline(),
                    self._disturb,
                    hairline(),
                    self._now,
                ],
                spacing=2 * GRID,
                tight=True,
            ),
            key="quiet",
        )

    def set_data(
        self, setting: QuietSetting, decided: Sequence[Decided], broken: Mapping[str, str], now: datetime
    ) -> None:
        """Set the stored setting and its effect; ``broken``: reason by channel that cannot work."""
        self._enabled, self._days = setting.enabled, setting.days
        self._switch.value = setting.enabled
        for name, field in self._fields.items():
            field.set_data(getattr(setting, name))
        for day, chip in self._chips.items():
            chip.selected = day in setting.days
        self._disturb.controls = [self._disturb_row(setting.do_not_disturb_until, now)]
        self._now.controls = [now_lines(decided, broken)]

    def _disturb_row(self, until: datetime | None, now: datetime) -> ft.Row:
        text = body("Do not disturb", strong=True)
        minutes: int | None = 60
        label, name = "For 1 hour", "Do not disturb for 1 hour"
        if until is not None:
            text = body(f"Do not disturb until {upcoming(until, now)}", strong=True, color=HIGH)
            label, name, minutes = "End", "End do not disturb", None
        button = named_button(ft.OutlinedButton, label, name, self._disturber(minutes))
        text.expand = True
        return ft.Row([text, button], key="disturb", spacing=12)

    def _disturber(self, minutes: int | None) -> Handler:
        async def press(_: object) -> None:
            await self._screen.act(lambda: set_do_not_disturb(self._screen.backend, minutes))

        return press

    async def _switched(self, event: ft.Event[ft.Switch]) -> None:
        self._enabled = bool(event.control.value)
        await self._keep()

    def _show_error(self, text: str | None) -> None:
        self._error.value, self._error.visible = text or "", bool(text)

    def _leaver(self, name: str) -> Handler:
        async def leave(_: object) -> None:
            async with self._one_write:
                field = self._fields[name]
                if not field.is_changed:
                    field.show_error(None)
                    self._screen.redraw()
                    return
            await self._keep(name)

        return leave

    def _picker(self, day: str) -> Handler:
        async def pick(event: ft.Event[ft.Chip]) -> None:
            chosen = set(self._days) | {day} if event.control.selected else set(self._days) - {day}
            if not chosen:
                event.control.selected = True
                self._show_error("Select at least one day, or turn quiet hours off.")
                self._screen.redraw()
                return
            self._days = tuple(d for d in DAYS if d in chosen)
            await self._keep("days")

        return pick

    async def _keep(self, name: str | None = None) -> None:
        """Save one change. Saves run one at a time, each with the current state of the switch."""
        async with self._one_write:
            changes: dict[str, object] = {}
            if name == "days":
                changes["days"] = list(self._days)
            elif name is not None:
                text = self._fields[name].text
                changes[name] = (text or None) if name == "timezone" else as_time(text)
            services, me = self._screen.backend.notifications, self._screen.backend.me
            stored: list[QuietSetting] = []

            def write() -> None:
                change = given(QuietHoursIn, enabled=self._enabled, **changes)
                stored.append(services.store.run(services.delivery_settings.quiet_hours_write(me, change)))

            mentioned = {name: self._fields[name]} if name in self._fields else {}
            refusal = await submit(write, mentioned)
            if refusal is None and name in self._fields:
                self._fields[name].reset(getattr(stored[0], name))
            elif refusal == "" and name in {"start", "end"}:
                self._fields[name].show_error("Enter a time of day, for example 22:00.")
            self._show_error(refusal)
            self._screen.redraw()


def now_lines(decided: Sequence[Decided], broken: Mapping[str, str]) -> ft.Column:
    """Return how each channel would treat a normal notification sent now."""
    lines: list[ft.Control] = [heading("Now: delivery of a normal notification", level=3)]
    for channel, state, why in dict.fromkeys((d.channel, *current_outcome(d, broken)) for d in decided):
        texts: list[ft.Control] = [body(f"{channel_name(channel)} {state.word}")]
        if why:
            texts.append(small(why))
        lines.append(
            ft.Row(
                [ft.Icon(state.icon, size=20, color=state.color), ft.Column(texts, spacing=0, expand=True, tight=True)],
                spacing=12,
                vertical_alignment=ft.CrossAxisAlignment.START,
            )
        )
    return ft.Column(lines, key="now", spacing=GRID, tight=True)
