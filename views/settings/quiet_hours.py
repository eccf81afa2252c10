"""Quiet hours and do not disturb, with their current effect on a normal notification."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

import flet as ft

from flashflow.backend import Decided, QuietHoursIn, QuietSetting, SendIn, given
from flashflow.views.controls.buttons import Handler, choice, named_button, on_press, on_switch
from flashflow.views.controls.layout import card, column, flow, growing, hairline, mark_row
from flashflow.views.controls.relative_time import upcoming
from flashflow.views.controls.texts import body, heading, silent, small
from flashflow.views.controls.tokens import GRID, HIGH, URGENT
from flashflow.views.settings.channels import ChannelList
from flashflow.views.settings.part import SettingsPart
from flashflow.views.shared.delivery_labels import channel_name, current_outcome
from flashflow.views.shared.form import QUARTER, Field, as_time, grid, submit
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.sources import set_do_not_disturb

DAYS = {"mon": "Mon", "tue": "Tue", "wed": "Wed", "thu": "Thu", "fri": "Fri", "sat": "Sat", "sun": "Sun"}
MOST_CHANNELS = 16
"""Largest number of channels in one notification."""
PLAIN = "During these hours all but critical notifications are held, except in the app, and then sent as one digest."


class QuietHoursPanel(SettingsPart):
    """Quiet hours form. The switch and the days are saved at once, times and zone when their field loses focus."""

    def __init__(self, screen: Screen, channels: ChannelList) -> None:
        """``channels`` must get its data first."""
        super().__init__(screen)
        self._channels = channels
        self._one_write = asyncio.Lock()
        self._enabled = False
        self._days: tuple[str, ...] = tuple(DAYS)
        self._fields = {
            "start": Field("From", col=QUARTER, on_done=on_press(self._leave, "start")),
            "end": Field("To", col=QUARTER, on_done=on_press(self._leave, "end")),
            "timezone": Field(
                "Time zone",
                helper="For example Europe/Berlin; empty: this computer's time zone",
                on_done=on_press(self._leave, "timezone"),
            ),
        }
        self._switch = ft.Switch(tooltip="Quiet hours", on_change=on_switch(self._turn))
        self._chips = {day: choice(label, False, self._picker(day), checkmark=True) for day, label in DAYS.items()}
        self._error = small("", color=URGENT)
        self._error.visible = False
        self._disturb, self._now = column([]), column([])
        title = column([silent(body("Quiet hours", strong=True)), small(PLAIN)], 2)
        parts = [
            ft.Row([growing(title), self._switch], spacing=12),
            grid([field.control for field in self._fields.values()]),
            flow([silent(small("Starting on")), *self._chips.values()]),
            self._error,
            hairline(),
            self._disturb,
            hairline(),
            self._now,
        ]
        self.control = card(column(parts, 2 * GRID), key="quiet")

    def load(self) -> tuple[QuietSetting, Sequence[Decided]]:
        """Query the setting, and what would happen to a normal notification now."""
        services, me = self.backend.notifications, self.backend.me
        channels = list(services.channels.all[:MOST_CHANNELS])
        normal = SendIn(user_id=me, title="Now?", message="Now?", channels=channels)
        return services.delivery_settings.quiet_hours(me), services.dry_run(normal)[0].deliveries

    def set_data(self, data: tuple[QuietSetting, Sequence[Decided]]) -> None:
        setting, decided = data
        self._enabled, self._days = setting.enabled, setting.days
        self._switch.value = setting.enabled
        for name, field in self._fields.items():
            field.set_data(getattr(setting, name))
        for day, chip in self._chips.items():
            chip.selected = day in setting.days
        self._disturb.controls = [self._disturb_row(setting.do_not_disturb_until, self.screen.now())]
        self._now.controls = [now_lines(decided, self._channels.broken)]

    def _disturb_row(self, until: datetime | None, now: datetime) -> ft.Row:
        text = body("Do not disturb", strong=True)
        minutes: int | None = 60
        label, name = "For 1 hour", "Do not disturb for 1 hour"
        if until is not None:
            text = body(f"Do not disturb until {upcoming(until, now)}", strong=True, color=HIGH)
            label, name, minutes = "End", "End do not disturb", None
        button = named_button(ft.OutlinedButton, label, name, on_press(self._set_do_not_disturb, minutes))
        return ft.Row([growing(text), button], key="disturb", spacing=12)

    async def _set_do_not_disturb(self, minutes: int | None) -> None:
        await self.screen.act(lambda: set_do_not_disturb(self.backend, minutes))

    async def _turn(self, on: bool) -> None:
        self._enabled = on
        await self._keep()

    def _show_error(self, text: str | None) -> None:
        self._error.value, self._error.visible = text or "", bool(text)

    async def _leave(self, name: str) -> None:
        async with self._one_write:
            field = self._fields[name]
            if not field.is_changed:
                field.show_error(None)
                self.screen.redraw()
                return
        await self._keep(name)

    def _picker(self, day: str) -> Handler:
        async def pick(event: ft.Event[ft.Chip]) -> None:
            chosen = set(self._days) | {day} if event.control.selected else set(self._days) - {day}
            if not chosen:
                event.control.selected = True
                self._show_error("Select at least one day, or turn quiet hours off.")
                self.screen.redraw()
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
            services, me = self.backend.notifications, self.backend.me
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
            self.screen.redraw()


def now_lines(decided: Sequence[Decided], broken: Mapping[str, str]) -> ft.Column:
    """Return how each channel would treat a normal notification sent now."""
    lines: list[ft.Control] = [heading("Now: delivery of a normal notification", level=3)]
    for channel, state, why in dict.fromkeys((d.channel, *current_outcome(d, broken)) for d in decided):
        texts = [body(f"{channel_name(channel)} {state.word}"), *([small(why)] if why else [])]
        lines.append(mark_row(ft.Icon(state.icon, size=20, color=state.color), texts))
    return column(lines, GRID, key="now")
