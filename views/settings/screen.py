"""Settings: how and when the person is reached, by which channels, on which devices, and where apps find the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import flet as ft

from flashflow.backend import SETTINGS_FILE, SendIn
from flashflow.views.controls.notification_settings import NotificationSettings
from flashflow.views.controls.tokens import GRID, body, copyable, small
from flashflow.views.settings.channels import ChannelList
from flashflow.views.settings.contacts import Contacts
from flashflow.views.settings.data import YourData
from flashflow.views.settings.devices import Devices
from flashflow.views.settings.key_activities import KeyActivities
from flashflow.views.settings.quiet_hours import QuietHoursPanel
from flashflow.views.settings.rules import RuleList
from flashflow.views.shared.cli_snippets import send_command
from flashflow.views.shared.delivery_labels import CHANNELS
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.sources import MyPreferences
from flashflow.views.shared.widgets import card, command, page_column, page_padding, section, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flashflow.backend import (
        ActivityType,
        ChannelState,
        Contact,
        Decided,
        Device,
        EventKind,
        QuietSetting,
        RetentionStatus,
        Rule,
    )

MOST_CHANNELS = 16
"""What one notice can ask for."""

RULES = "When something happens in an app, somebody is told."
KEY_WORDS = "What matters in your apps: one of them makes a session engaged, and using them counts in the score."


class SettingsData(NamedTuple):
    """What the screen shows beside the preferences."""

    contact: Contact
    quiet: QuietSetting
    decided: tuple[Decided, ...]
    channels: tuple[ChannelState, ...]
    tables: dict[str, Any]
    problem: str | None
    devices: tuple[Device, ...]
    rules: Sequence[Rule]
    types: tuple[ActivityType, ...]
    kept: RetentionStatus


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Settings(Screen):
    """The parts that are filled in stand for as long as the screen does, and take what is found; so nothing that is
    being typed is lost when something changes elsewhere."""

    kinds: ClassVar[tuple[EventKind, ...]] = (
        "settings", "device", "preference", "notification.updated",
        "key_activities", "rollups.rebuilt", "pruning", "erasure", "file.damaged",
    )  # fmt: skip
    rest: ClassVar[float] = 0.3

    def init(self) -> None:
        super().init()
        self._contacts = Contacts(self)
        self._quiet = QuietHoursPanel(self)
        self._channels = ChannelList(self)
        self._devices = Devices(self)
        self._rules = RuleList(self)
        self._unlisten_rules: Callable[[], None] | None = None
        self._key_activities = KeyActivities(self)
        self._data = YourData(self)
        self._matrix = NotificationSettings(
            source=MyPreferences(self.backend, self.live), labels=CHANNELS, wide=self.wide
        )
        self._problem = ft.Container(key="problem", visible=False)
        self._api = ft.Container()
        self._about = ft.Container()
        self._page: ft.ListView | None = None

    def did_mount(self) -> None:
        super().did_mount()
        self._unlisten_rules = self.live.listen(("rule",), self._rules.ask)

    def will_unmount(self) -> None:
        super().will_unmount()
        if self._unlisten_rules is not None:
            self._unlisten_rules()
            self._unlisten_rules = None
        self._rules.cancel()

    def load(self) -> SettingsData:
        backend, services, me = self.backend, self.backend.notifications, self.backend.me
        ordinary = SendIn(
            user_id=me, title="Now?", message="Now?", channels=list(services.channels.all[:MOST_CHANNELS])
        )
        return SettingsData(
            contact=services.delivery_settings.contact(me),
            quiet=services.delivery_settings.quiet_hours(me),
            decided=services.rehearse(ordinary)[0].deliveries,
            channels=backend.channel_states(),
            tables=backend.settings.shown(),
            problem=backend.settings.problem,
            devices=services.list_devices(me),
            rules=self._rules.load(),
            types=backend.activity.rollups.activity_types(),
            kept=backend.retention.kept(),
        )

    def render(self, found: SettingsData) -> ft.Control:
        backend = self.backend
        self._contacts.take(found.contact)
        broken = {state.name: state.detail for state in found.channels if not state.works}
        self._quiet.take(found.quiet, found.decided, broken, self.now())
        self._channels.take(found.channels, found.tables)
        self._problem.visible = found.problem is not None
        self._problem.content = _problem(str(backend.data_dir / SETTINGS_FILE), found.problem)
        self._devices.take(found.devices)
        self._rules.take(found.rules)
        self._key_activities.take(found.types)
        rules = backend.settings.settings
        self._data.take(found.kept, rules.privacy, rules.retention)
        self._api.content = _api(backend.url, backend.me)
        self._about.content = copyable(small(f"FlashFlow {backend.version} · data in {backend.data_dir}"))
        if self._page is None:
            self._page = page_column(self._sections(), wide=self.wide)
        self._page.padding = page_padding(wide=self.wide)
        return self._page

    def _sections(self) -> list[ft.Control]:
        me = self.backend.me
        unused = "A notification that may use no channel is kept, and not shown."
        file = f"Kept in {SETTINGS_FILE} in the data folder, which you may also write yourself."
        return [
            self._problem,
            section("What may reach you", [self._matrix], words=f"For {me}. {unused}", key="preferences"),
            section(
                "How to reach you",
                [self._contacts.control, self._quiet.control],
                words=f"For {me}, beyond this window.",
                key="reach",
            ),
            section("Channels", [self._channels.control], words=file, key="channels-section"),
            section("Your devices", [self._devices.control], words="What push reaches.", key="devices-section"),
            section("Rules", [self._rules.control], words=RULES, key="rules-section"),
            section("Key activities", [self._key_activities.control], words=KEY_WORDS, key="key-activities-section"),
            section("Your data", [self._data.control], words="On this computer, and nowhere else.", key="data-section"),
            self._api,
            self._about,
        ]


def _problem(path: str, problem: str | None) -> ft.Control | None:
    if problem is None:
        return None
    return warning(f"{path} cannot be used as it stands, so what was in force before stays: {problem}")


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
