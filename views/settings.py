"""Settings: what may reach the person and how, where apps find the API, and what works on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import flet as ft

from views.commands import send_command
from views.controls.look import GOOD, GRID, MUTED, body, hairline, small
from views.controls.notification_settings import NotificationSettings
from views.parts import card, command, page_column, section
from views.screen import Screen
from views.sources import MyPreferences

if TYPE_CHECKING:
    from backend import ChannelState

LABELS: Mapping[str, str] = {"in_app": "In app", "push": "Push", "email": "E-mail", "sms": "SMS"}


class Found(NamedTuple):
    """What the screen shows beside the preferences."""

    url: str | None
    channels: tuple[ChannelState, ...]
    data_dir: str
    version: str


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Settings(Screen):
    """The preference matrix stands for as long as the screen does; the rest is drawn anew when the system changes."""

    kinds: ClassVar[tuple[str, ...]] = ("system", "device")

    def init(self) -> None:
        super().init()
        source = MyPreferences(self.backend, self.live)
        self._matrix = NotificationSettings(source=source, labels=LABELS, wide=self.wide)
        self._api = ft.Container()
        self._machine = ft.Container()
        words = f"For {self.backend.me}. A notification that may use no channel is kept, and not shown."
        self._preferences = section("What may reach you", [self._matrix], words=words)

    def load(self) -> Found:
        return Found(self.backend.url, self.backend.channel_states(), str(self.backend.data_dir), self.backend.version)

    def render(self, found: Found) -> ft.Control:
        self._api.content = _api(found.url, self.backend.me)
        self._machine.content = _machine(found)
        if isinstance(self.content, ft.ListView):
            return self.content
        return page_column([self._preferences, self._api, self._machine], wide=self.wide)


def _api(url: str | None, me: str) -> ft.Column:
    if url is None:
        off = body("The API is off. Other programs cannot send notifications or record activities through it.")
        return section("For your apps", [card(off)], key="api")
    steps: list[ft.Control] = [
        small("The address"),
        command(url, "the API address"),
        small("A key, printed in a terminal. Give each app its own with: flashflow keys add NAME --scope send,track"),
        command("flashflow key", "print the key"),
        small("Try it: this sends you a notification"),
        command(send_command(url, me), "send a notification"),
    ]
    words = "Programs on this computer send notifications and record activities here."
    return section("For your apps", [card(ft.Column(steps, spacing=GRID, tight=True))], words=words, key="api")


def _machine(found: Found) -> ft.Column:
    rows: list[ft.Control] = []
    for state in found.channels:
        if rows:
            rows.append(hairline())
        rows.append(_channel(state))
    about = small(f"FlashFlow {found.version} · data in {found.data_dir}")
    about.selectable = True
    return section("What works on this machine", [card(ft.Column(rows, spacing=12, tight=True)), about], key="machine")


def _channel(state: ChannelState) -> ft.Row:
    icon = ft.Icons.CHECK_CIRCLE_OUTLINE if state.works else ft.Icons.REMOVE_CIRCLE_OUTLINE
    color = GOOD if state.works else MUTED
    word = "works" if state.works else "not available"
    texts: list[ft.Control] = [body(f"{state.label}: {word}")]
    if state.detail:
        texts.append(small(state.detail))
    return ft.Row(
        [ft.Icon(icon, size=20, color=color), ft.Column(texts, spacing=2, expand=True, tight=True)],
        key=f"channel-{state.name}",
        spacing=12,
        vertical_alignment=ft.CrossAxisAlignment.START,
    )
