"""Settings: preferences, delivery settings, channels, devices, rules, key activities, data and API access."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import flet as ft

from flashflow.backend import SETTINGS_FILE, EventKind
from flashflow.views.controls.layout import card, column
from flashflow.views.controls.notification_settings import NotificationSettings
from flashflow.views.controls.texts import body, copyable, small
from flashflow.views.controls.tokens import GRID
from flashflow.views.settings.channels import ChannelList
from flashflow.views.settings.contacts import Contacts
from flashflow.views.settings.data import YourData
from flashflow.views.settings.devices import Devices
from flashflow.views.settings.key_activities import KeyActivities
from flashflow.views.settings.part import SettingsPart
from flashflow.views.settings.quiet_hours import QuietHoursPanel
from flashflow.views.settings.rules import RuleList
from flashflow.views.shared.cli_snippets import send_command
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.sources import UserPreferences
from flashflow.views.shared.widgets import command, page_column, page_padding, section, warning

DEVICES = "They receive push notifications."
RULES = "Send a notification when an activity happens or a metric changes."
KEY_WORDS = "A session with a key activity is engaged, and key activities count in the engagement score."


class SettingsData(NamedTuple):
    """The fault of the settings file, and the data of each part."""

    problem: str | None
    parts: list[Any]


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Settings(Screen):
    """The settings screen. Its parts live as long as the screen, so that a refresh keeps unsaved input."""

    kinds: ClassVar[tuple[EventKind, ...]] = (
        "settings", "device", "preference", "notification.updated",
        "key_activities", "rollups.rebuilt", "pruning", "erasure", "file.damaged",
    )  # fmt: skip
    rest: ClassVar[float] = 0.3

    def init(self) -> None:
        super().init()
        self._contacts = Contacts(self)
        self._channels = ChannelList(self)
        self._quiet = QuietHoursPanel(self, self._channels)
        self._devices = Devices(self)
        self._rules = RuleList(self)
        self._key_activities = KeyActivities(self)
        self._data = YourData(self)
        self._parts: Sequence[SettingsPart] = (
            self._contacts, self._channels, self._quiet, self._devices, self._rules, self._key_activities, self._data
        )  # fmt: skip
        self._matrix = NotificationSettings(source=UserPreferences(self.backend, self.live), wide=self.wide)
        self._problem = ft.Container(key="problem", visible=False)
        self._api = ft.Container()
        self._about = ft.Container()
        self._page: ft.ListView | None = None

    def subscribe(self) -> Callable[[], None]:
        unlisten = super().subscribe()
        unlisten_rules = self.live.listen(("rule",), self._rules.request_refresh)

        def end() -> None:
            unlisten()
            unlisten_rules()
            self._rules.cancel()

        return end

    def load(self) -> SettingsData:
        return SettingsData(self.backend.settings.problem, [part.load() for part in self._parts])

    def render(self, data: SettingsData) -> ft.Control:
        backend = self.backend
        for part, loaded in zip(self._parts, data.parts, strict=True):
            part.set_data(loaded)
        self._problem.visible = data.problem is not None
        self._problem.content = _problem(str(backend.data_dir / SETTINGS_FILE), data.problem)
        self._api.content = _api(backend.url, backend.me)
        self._about.content = copyable(small(f"FlashFlow {backend.version} · data in {backend.data_dir}"))
        if self._page is None:
            self._page = page_column(self._sections(), wide=self.wide)
        self._page.padding = page_padding(wide=self.wide)
        return self._page

    def _sections(self) -> list[ft.Control]:
        me = self.backend.me
        unused = "A notification that may use no channel is stored but not delivered."
        file = f"Stored in {SETTINGS_FILE} in the data folder, which you may also edit."
        return [
            self._problem,
            section("Notification preferences", [self._matrix], subtitle=f"For {me}. {unused}", key="preferences"),
            section(
                "Delivery settings",
                [self._contacts.control, self._quiet.control],
                subtitle=f"For {me}: contacts, quiet hours and do not disturb.",
                key="reach",
            ),
            section("Channels", [self._channels.control], subtitle=file, key="channels-section"),
            section("Your devices", [self._devices.control], subtitle=DEVICES, key="devices-section"),
            section("Rules", [self._rules.control], subtitle=RULES, key="rules-section"),
            section("Key activities", [self._key_activities.control], subtitle=KEY_WORDS, key="key-activities-section"),
            section("Your data", [self._data.control], subtitle="Stored only on this computer.", key="data-section"),
            self._api,
            self._about,
        ]


def _problem(path: str, problem: str | None) -> ft.Control | None:
    if problem is None:
        return None
    return warning(f"{path} is not valid, so the previous settings stay in effect: {problem}")


def _api(url: str | None, me: str) -> ft.Column:
    if url is None:
        off = body("The API is off. Other programs cannot send notifications or record activities through it.")
        return section("For your apps", [card(off)], key="api")
    steps: list[ft.Control] = [
        small("API address"),
        command(url, "the API address"),
        small("Print an API key. Create one for each app with: flashflow keys add NAME --scope send,track"),
        command("flashflow key", "print the key"),
        small("Try it: send yourself a notification"),
        command(send_command(url, me), "send a notification"),
    ]
    text = "Programs on this computer send notifications and record activities through this API."
    return section("For your apps", [card(column(steps, GRID))], subtitle=text, key="api")
