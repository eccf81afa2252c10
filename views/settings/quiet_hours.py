"""Quiet hours and do not disturb, and what they mean for an ordinary notice right now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import flet as ft

from flashflow.backend import QuietHoursIn, given
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
from flashflow.views.shared.delivery_labels import channel_name, would
from flashflow.views.shared.form import HALF, QUARTER, Field, attempt, grid
from flashflow.views.shared.formatting import as_time, upcoming
from flashflow.views.shared.sources import disturb_not
from flashflow.views.shared.widgets import card

if TYPE_CHECKING:
    from flashflow.backend import Decided, QuietSetting
    from flashflow.views.shared.screen_base import Screen

DAYS = {"mon": "Mon", "tue": "Tue", "wed": "Wed", "thu": "Thu", "fri": "Fri", "sat": "Sat", "sun": "Sun"}
PLAIN = "For these hours everything but critical notices is held outside the app, and then told as one summary."


class QuietHoursPanel:
    """The switch and the days are kept at once; a time and the zone when the person leaves the field."""

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
                helper="As in Europe/Berlin; empty: this computer's own",
                col=HALF,
                on_done=self._leaver("timezone"),
            ),
        }
        self._switch = ft.Switch(tooltip="Quiet hours", on_change=self._switched)
        self._chips = {day: choice(label, False, self._picker(day), checkmark=True) for day, label in DAYS.items()}
        self._told = small("", color=URGENT)
        self._told.visible = False
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
                        [silent(small("Beginning on")), *self._chips.values()],
                        wrap=True,
                        spacing=GRID,
                        run_spacing=GRID,
                    ),
                    self._told,
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

    def take(self, setting: QuietSetting, decided: Sequence[Decided], broken: Mapping[str, str], now: datetime) -> None:
        """What is stored now, and what it leads to; ``broken``: channels that cannot work, and why."""
        self._enabled, self._days = setting.enabled, setting.days
        self._switch.value = setting.enabled
        for name, field in self._fields.items():
            field.take(getattr(setting, name))
        for day, chip in self._chips.items():
            chip.selected = day in setting.days
        self._disturb.controls = [self._disturb_row(setting.do_not_disturb_until, now)]
        self._now.controls = [now_lines(decided, broken)]

    def _disturb_row(self, until: datetime | None, now: datetime) -> ft.Row:
        words = body("Do not disturb", strong=True)
        minutes: int | None = 60
        label, name = "For 1 hour", "Do not disturb for 1 hour"
        if until is not None:
            words = body(f"Do not disturb until {upcoming(until, now)}", strong=True, color=HIGH)
            label, name, minutes = "End", "End do not disturb", None
        button = named_button(ft.OutlinedButton, label, name, self._disturber(minutes))
        words.expand = True
        return ft.Row([words, button], key="disturb", spacing=12)

    def _disturber(self, minutes: int | None) -> Handler:
        async def press(_: object) -> None:
            await self._screen.act(lambda: disturb_not(self._screen.backend, minutes))

        return press

    async def _switched(self, event: ft.Event[ft.Switch]) -> None:
        self._enabled = bool(event.control.value)
        await self._keep()

    def _tell(self, words: str | None) -> None:
        self._told.value, self._told.visible = words or "", bool(words)

    def _leaver(self, name: str) -> Handler:
        async def leave(_: object) -> None:
            async with self._one_write:
                field = self._fields[name]
                if not field.is_changed:
                    field.complain(None)
                    self._screen.redraw()
                    return
            await self._keep(name)

        return leave

    def _picker(self, day: str) -> Handler:
        async def pick(event: ft.Event[ft.Chip]) -> None:
            chosen = set(self._days) | {day} if event.control.selected else set(self._days) - {day}
            if not chosen:
                event.control.selected = True
                self._tell("One day must stay; turn quiet hours off instead.")
                self._screen.redraw()
                return
            self._days = tuple(d for d in DAYS if d in chosen)
            await self._keep("days")

        return pick

    async def _keep(self, name: str | None = None) -> None:
        """Send one change, one after another: each carries the switch as the person left it."""
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
            refusal = await attempt(write, mentioned)
            if refusal is None and name in self._fields:
                self._fields[name].reset(getattr(stored[0], name))
            elif refusal == "" and name in {"start", "end"}:
                self._fields[name].complain("Write a time of day, like 22:00.")
            self._tell(refusal)
            self._screen.redraw()


def now_lines(decided: Sequence[Decided], broken: Mapping[str, str]) -> ft.Column:
    """What an ordinary notice would do this moment, channel by channel."""
    lines: list[ft.Control] = [heading("Now: what an ordinary notice would do", level=3)]
    for channel, state, why in dict.fromkeys((d.channel, *would(d, broken)) for d in decided):
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
