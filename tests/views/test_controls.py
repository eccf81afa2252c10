"""Formatting, ``Live``, ``Refresher`` and the reusable controls, built without a page."""

from __future__ import annotations

import ast
import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flet as ft
import msgspec
import pytest

from flashflow.backend import Bus, Event, Notification, NotificationDetail
from flashflow.views.controls.badge import badge_text, bell_name
from flashflow.views.controls.formatting import (
    elapsed_text,
    grouped,
    one_line,
    paragraphs,
    plural,
    reads_rtl,
    safe_link,
    share,
)
from flashflow.views.controls.notification_bell import NotificationBell
from flashflow.views.controls.notification_row import notification_row, row_name
from flashflow.views.controls.notification_settings import NotificationSettings, reason
from flashflow.views.controls.protocols import Inbox
from flashflow.views.controls.refresher import Refresher
from flashflow.views.controls.relative_time import ago, clock, day_heading, exact, upcoming
from flashflow.views.notifications.screen import _with_open_notification
from flashflow.views.shared.cli_snippets import send_command, track_command
from flashflow.views.shared.form import as_time, error_sentence
from flashflow.views.shared.live import Live
from flashflow.views.shared.sources import UserInbox
from tests.support.control_tree import NOW, named, sample_notification, texts, walk


async def _nothing(_: object) -> None: ...


VIEWS = Path(__file__).parent.parent.parent / "views"

pytestmark = pytest.mark.anyio


# --- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (59, "just now"),
        (-30, "just now"),
        (60, "1 min ago"),
        (59 * 60 + 59, "59 min ago"),
        (3600, "1 h ago"),
        (11 * 3600, "11 h ago"),
        (13 * 3600, "yesterday"),
        (3 * 86400, "3 days ago"),
        (8 * 86400, "14 Nov"),
        (400 * 86400, "18 Oct 2025"),
        (-7200, "22 Nov, 14:00"),
    ],
)
def test_relative_times_are_rounded(seconds: int, words: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words


def test_a_few_hours_across_midnight_stay_hours() -> None:
    early = NOW.replace(hour=1)
    assert ago(early - timedelta(hours=3), early) == "3 h ago"


def test_times_are_shown_in_the_readers_zone() -> None:
    then = datetime(2026, 11, 21, 23, 30, 5, tzinfo=UTC)
    assert exact(then, NOW) == "Sunday 22 November 2026, 00:30:05"
    assert clock(then, NOW) == "00:30:05"
    assert clock(then - timedelta(days=1), NOW) == "21 Nov, 00:30:05"
    assert [day_heading(then - timedelta(days=d), NOW) for d in (0, 1, 2, 9)] == [
        "Today",
        "Yesterday",
        "Friday",
        "13 Nov",
    ]


def test_future_times_are_short() -> None:
    ahead = [timedelta(hours=2), timedelta(hours=20), timedelta(days=3), timedelta(days=9), timedelta(days=60)]
    assert [upcoming(NOW + t, NOW) for t in ahead] == [
        "14:00",
        "tomorrow, 08:00",
        "Wednesday, 12:00",
        "1 Dec, 12:00",
        "21 Jan 2027, 12:00",
    ]


@pytest.mark.parametrize(
    ("typed", "time"),
    [("7", "07:00"), (" 7.30 ", "07:30"), ("0730", "07:30"), ("22:15", "22:15"), ("25", "25:00"), ("noon", "noon")],
)
def test_typed_times_of_day_are_normalised(typed: str, time: str) -> None:
    assert as_time(typed) == time


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("is required", "This is required."),
        ("must be one of a, b", "This must be one of a, b."),
        ("the environment variable X is not set", "The environment variable X is not set."),
        ("Expected 'str' of length <= 254", "This is longer than 254 characters."),
        ("is not a setting here; did you mean host?", "This is not a setting here; did you mean host?"),
    ],
)
def test_a_validation_message_becomes_a_sentence(message: str, words: str) -> None:
    assert error_sentence(message) == words


def test_numbers_are_grouped_and_have_plurals() -> None:
    assert grouped(1234567) == "1,234,567"
    assert plural(1, "activity", "activities") == "1 activity"
    assert plural(1204, "notification") == "1,204 notifications"
    assert [elapsed_text(0), elapsed_text(999), elapsed_text(1000), elapsed_text(1449), elapsed_text(15_000)] == [
        "0 ms",
        "999 ms",
        "1 s",
        "1.4 s",
        "15 s",
    ]
    assert [share(0, 0), share(1, 3), share(1, 2), share(5, 5)] == [None, "33.3 %", "50 %", "100 %"]


def test_the_badge_is_empty_at_zero_and_stops_at_99() -> None:
    assert [badge_text(n) for n in (-1, 0, 5, 99, 100, 5000)] == [None, None, "5", "99", "99+", "99+"]
    assert bell_name(0) == "Notifications, none unread"
    assert bell_name(3) == "Notifications, 3 unread"


def test_callers_text_loses_control_characters_and_keeps_its_letters() -> None:
    assert one_line("a\nb\t\u202ec\x00 d") == "a b c d"
    assert one_line("👩\u200d👩\u200d👧") == "👩\u200d👩\u200d👧"
    assert one_line("x" * 400) == "x" * 299 + "…"
    assert paragraphs("one  \n\ntwo\u202e\n") == "one\n\ntwo"
    assert reads_rtl("123 مرحبا")
    assert not reads_rtl("hello مرحبا")
    assert not reads_rtl("42")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:text/html,x",
        "//no.scheme",
        "http://",
        "https://good.example@evil.example/",
        "https://a b",
        "http://[",
        "https://x\n.example",
        "",
    ],
)
def test_only_plain_web_addresses_are_links(url: str) -> None:
    assert safe_link(url) is None


def test_a_web_address_is_a_link() -> None:
    assert safe_link("https://ci.example/run/1?x=y#z") == "https://ci.example/run/1?x=y#z"
    assert safe_link("HTTP://LOCALHOST:80/") == "HTTP://LOCALHOST:80/"


def test_the_command_on_an_empty_screen_can_be_pasted() -> None:
    line = send_command("http://127.0.0.1:8750", 'o\'hara "x"; rm -rf ~')
    assert line.startswith("curl http://127.0.0.1:8750/api/notifications/send ")
    assert '"Authorization: Bearer $(flashflow key)"' in line
    assert "'\"'\"'" in line
    assert track_command(None, "o'hara") == "flashflow track 'o'\"'\"'hara' page_view"


# --- live ----------------------------------------------------------------------------------------------------------


class HeldLoop:
    """An event loop whose calls a test runs by hand."""

    def __init__(self) -> None:
        self.soon: list[Callable[..., object]] = []
        self.later: list[tuple[float, Callable[..., object]]] = []

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, context: Any = None) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        self.later.append((delay, callback))

    def run_soon(self) -> None:
        calls, self.soon = self.soon, []
        for call in calls:
            call()

    def run_later(self) -> None:
        calls, self.later = self.later, []
        for _, call in calls:
            call()


def live_on(bus: Bus) -> tuple[Live, HeldLoop]:
    loop = HeldLoop()
    live = Live(bus, "me", loop)
    live.start()
    return live, loop


def test_a_burst_from_many_threads_costs_one_refresh_an_interval() -> None:
    bus = Bus()
    live, loop = live_on(bus)
    refreshes: list[str] = []
    live.listen(("activity",), lambda: refreshes.append("activity"))

    def burst() -> None:
        for i in range(1000):
            bus.publish([Event("activity", str(i), "ada")])

    threads = [threading.Thread(target=burst) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loop.soon) == 1
    loop.run_soon()
    assert refreshes == ["activity"]  # the first at once

    burst()
    assert loop.soon == []  # nothing wakes the page within the interval
    assert [delay for delay, _ in loop.later] == [0.1]
    loop.run_later()
    assert refreshes == ["activity"] * 2
    loop.run_later()  # nothing happened since: it goes to rest
    assert loop.later == []
    bus.publish([Event("activity", "x")])
    assert len(loop.soon) == 1


def test_a_listener_gets_its_kinds_and_with_mine_only_its_users_events() -> None:
    bus = Bus()
    live, loop = live_on(bus)
    heard: list[str] = []
    live.listen(("notification",), lambda: heard.append("mine"), mine=True)
    live.listen(("notification",), lambda: heard.append("any"))
    unlisten = live.listen(("preference",), lambda: heard.append("preference"))
    bus.publish([Event("notification", "1", "somebody"), Event("session", "2", "me")])
    loop.run_soon()
    assert heard == ["any"]
    bus.publish([Event("notification", "3", "me"), Event("preference", "4", "me")])
    unlisten()
    loop.run_later()
    assert heard == ["any", "mine", "any"]


def test_a_disconnected_page_is_ignored_and_refreshes_after_a_reconnect() -> None:
    bus = Bus()
    live, loop = live_on(bus)
    refreshes: list[int] = []
    live.listen(("activity",), lambda: refreshes.append(1))
    bus.publish([Event("activity", "1")])
    live.stop()
    loop.run_soon()
    bus.publish([Event("activity", "2")])
    assert refreshes == []
    assert loop.soon == []
    assert loop.later == []
    live.start()
    assert refreshes == [1]
    bus.publish([Event("activity", "3")])
    loop.run_soon()
    assert refreshes == [1, 1]


def test_a_closed_loop_does_not_reach_the_thread_that_committed(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    loop = asyncio.new_event_loop()
    Live(bus, "me", loop).start()
    loop.close()
    bus.publish([Event("activity", "1")])
    assert caplog.records == [], "the bus caught an error of the subscriber"


async def test_refreshes_never_overlap_and_none_is_lost() -> None:
    gate = asyncio.Event()
    runs: list[int] = []

    async def refresh() -> None:
        runs.append(1)
        await gate.wait()

    refresher = Refresher(refresh)
    refresher.request_refresh()
    await asyncio.sleep(0)
    for _ in range(50):
        refresher.request_refresh()
    assert len(runs) == 1
    gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(runs) == 2


# --- the controls, without a page ----------------------------------------------------------------------------------


@dataclass
class FakeInbox:
    """An InboxSource in memory that calls its listeners as the bus would."""

    notices: list[Notification] = field(default_factory=list)
    extra_unread: int = 0
    broken: bool = False
    quiet_until: datetime | None = None
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def newest(self, limit: int) -> Inbox:
        if self.broken:
            raise OSError("the disk is full")
        unread = sum(n.inbox == "unread" for n in self.notices) + self.extra_unread
        return Inbox(tuple(self.notices[:limit]), unread, self.quiet_until)

    def mark_read(self, notification_id: str) -> None:
        self._set({notification_id}, "read")

    def mark_unread(self, notification_ids: Sequence[str]) -> None:
        self._set(set(notification_ids), "unread")

    def mark_all_read(self) -> tuple[str, ...]:
        if self.broken:
            raise OSError("the disk is full")
        ids = tuple(n.id for n in self.notices if n.inbox == "unread")
        self._set(set(ids), "read")
        return ids

    def set_do_not_disturb(self, minutes: int | None) -> None:
        self.quiet_until = None if minutes is None else NOW + timedelta(minutes=minutes)

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(on_change)
        return lambda: self.listeners.remove(on_change)

    def _set(self, ids: set[str], inbox: str) -> None:
        self.notices = [msgspec.structs.replace(n, inbox=inbox) if n.id in ids else n for n in self.notices]


async def bell_over(source: FakeInbox, **options: Any) -> NotificationBell:
    async def open_all() -> None: ...

    bell = NotificationBell(source=source, now=lambda: NOW, **{"open_all": open_all, **options})
    await bell.refresh()
    return bell


@pytest.mark.parametrize(
    ("unread", "text", "name"),
    [
        (0, None, "Notifications, none unread"),
        (5, "5", "Notifications, 5 unread"),
        (100, "99+", "Notifications, 100 unread"),
    ],
)
async def test_the_bell_shows_how_many_are_unread(unread: int, text: str | None, name: str) -> None:
    bell = await bell_over(FakeInbox(extra_unread=unread))
    assert (bell.badge_text, bell.name, bell.unread) == (text, name, unread)


async def test_the_panel_lists_the_newest_ten_with_their_state() -> None:
    source = FakeInbox(
        [
            sample_notification(1),
            sample_notification(2, inbox="read", priority="urgent"),
            *(sample_notification(i) for i in range(3, 15)),
        ]
    )
    panel = (await bell_over(source)).panel_content()
    rows = [c.label for c in walk(panel) if isinstance(c, ft.Semantics) and c.button]
    assert len(rows) == 10
    assert rows[:2] == ["Build 1, unread, from ci", "Build 2, read, from ci"]
    assert {"1 min ago", "Urgent", "View all", "Mark all read"} <= set(texts(panel))


async def test_one_click_opens_a_notification_and_marks_it_read() -> None:
    source = FakeInbox([sample_notification(1), sample_notification(2)])
    opened: list[str] = []

    async def open_notification(notification_id: str) -> None:
        opened.append(notification_id)

    bell = await bell_over(source, open_notification=open_notification)
    await named(bell.panel_content(), "Build 2, unread, from ci").on_click(None)
    assert opened == ["n2"]
    assert [n.inbox for n in source.notices] == ["unread", "read"]
    assert bell.unread == 2  # the bell never patches itself: it follows when the source says that it changed
    await bell.refresh()
    assert bell.unread == 1


async def test_mark_all_read_can_be_undone() -> None:
    source = FakeInbox([sample_notification(1), sample_notification(2, inbox="read"), sample_notification(3)])
    bell = await bell_over(source)
    await named(bell.panel_content(), "Mark all read").on_click(None)
    assert {n.inbox for n in source.notices} == {"read"}
    await bell.refresh()
    await named(bell.panel_content(), "Undo marking 2 read").on_click(None)
    assert [n.inbox for n in source.notices] == ["unread", "read", "unread"]
    assert "Undo marking 2 read" not in texts(bell.panel_content())


async def test_the_panel_shows_the_error_of_a_source() -> None:
    source = FakeInbox([sample_notification(1)])
    bell = await bell_over(source)
    source.broken = True
    await bell.mark_all()
    assert "The change could not be saved: the disk is full" in texts(bell.panel_content())
    await bell.refresh()
    assert "The inbox could not be read: the disk is full" in texts(bell.panel_content())
    source.broken = False
    await bell.refresh()
    assert "Build 1" in texts(bell.panel_content())


async def test_a_closed_panel_reported_late_leaves_the_next_one_open(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[ft.AlertDialog] = []
    page = SimpleNamespace(show_dialog=shown.append, update=lambda _: None)
    monkeypatch.setattr(NotificationBell, "page", page)
    source = FakeInbox()
    bell = await bell_over(source)
    await bell.open_panel()
    await named(bell.panel_content(), "View all").on_click(None)
    await bell.open_panel()
    report: Any = shown[0].on_dismiss
    report(SimpleNamespace(control=shown[0]))
    await bell.open_panel()
    assert len(shown) == 2, "a second click on the bell opens a second panel over the first"
    report(SimpleNamespace(control=shown[1]))
    await bell.open_panel()
    assert len(shown) == 3


async def test_the_bell_follows_its_users_notifications_and_every_deletion() -> None:
    bus = Bus()
    live, loop = live_on(bus)
    heard: list[int] = []
    unsubscribe = UserInbox(SimpleNamespace(me="me"), live).subscribe(lambda: heard.append(1))  # type: ignore[arg-type]

    def told(*events: Event) -> int:
        heard.clear()
        bus.publish(list(events))
        loop.run_soon()
        loop.run_later()
        loop.run_later()
        return len(heard)

    assert told(Event("notification", "1", "me")) == 1
    assert told(Event("notification", "2", "somebody")) == 0
    assert told(Event("erasure")) == 1, "the user's notifications may be among the erased ones"
    assert told(Event("pruning")) == 1
    unsubscribe()
    assert told(Event("erasure")) == told(Event("notification", "3", "me")) == 0


async def test_the_bell_listens_while_it_is_mounted() -> None:
    source = FakeInbox()
    bell = NotificationBell(source=source)
    bell.did_mount()
    source.extra_unread = 7
    assert len(source.listeners) == 1
    await bell.refresh()
    bell.will_unmount()
    assert source.listeners == []
    assert bell.unread == 7


async def test_do_not_disturb_starts_and_ends_in_the_panel() -> None:
    source = FakeInbox(extra_unread=2)
    bell = await bell_over(source)
    await named(bell.panel_content(), "Do not disturb 1 h").on_click(None)
    assert source.quiet_until == NOW + timedelta(hours=1)
    await bell.refresh()
    assert bell.name == "Notifications, 2 unread, do not disturb until 13:00"
    assert "Do not disturb until 13:00" in texts(bell.panel_content())
    await named(bell.panel_content(), "End do not disturb").on_click(None)
    assert source.quiet_until is None
    await bell.refresh()
    assert bell.name == "Notifications, 2 unread"


async def test_do_not_disturb_in_the_past_is_not_shown() -> None:
    bell = await bell_over(FakeInbox(quiet_until=NOW))
    assert bell.name == "Notifications, none unread"
    assert "Do not disturb 1 h" in texts(bell.panel_content())


async def test_an_empty_panel_says_so() -> None:
    panel = (await bell_over(FakeInbox())).panel_content()
    assert any(text.startswith("No notifications yet") for text in texts(panel))
    assert named(panel, "Mark all read").disabled


def test_a_row_is_named_by_title_state_and_app() -> None:
    assert row_name(sample_notification(1)) == "Build 1, unread, from ci"
    assert row_name(sample_notification(1, inbox="archived", app="")) == "Build 1, archived"
    assert row_name(sample_notification(1, title="a\u202eb\nc")) == "a b c, unread, from ci"
    assert row_name(sample_notification(1, count=3, inbox="snoozed")) == "Build 1, 3 times, snoozed, from ci"
    assert "×3" in texts(notification_row(sample_notification(1, count=3), NOW, _nothing))
    assert "×1" not in texts(notification_row(sample_notification(1), NOW, _nothing))


@dataclass(frozen=True)
class Choice:
    notification_type: str
    channel: str
    enabled: bool


@dataclass(frozen=True)
class Often:
    frequency: str = "off"
    at: str | None = None
    chosen: bool = False


@dataclass(frozen=True)
class Row:
    name: str
    label: str
    channels: dict[str, bool]
    description: str = ""
    app: str = "ci"
    critical: bool = False
    asks_critical: bool = False
    digest: Often = Often()


@dataclass(frozen=True)
class FakeMatrix:
    preferences: tuple[Choice, ...] = ()
    types: tuple[Row, ...] = ()
    digest: Often | None = None
    may_mark_critical: bool = False


@dataclass
class FakePreferences:
    """A PreferenceSource in memory; ``calls`` records every call except choices."""

    matrix_now: FakeMatrix
    broken: bool = False
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def matrix(self) -> FakeMatrix:
        return self.matrix_now

    def set_preference(self, notification_type: str, channel: str, enabled: bool) -> None:
        if self.broken:
            raise OSError("the disk is full")
        choice = Choice(notification_type, channel, enabled)
        self.matrix_now = replace(self.matrix_now, preferences=(*self.matrix_now.preferences, choice))

    def set_digest(self, notification_type: str, frequency: str | None, at: str | None) -> None:
        self.calls.append((notification_type, frequency, at))

    def set_critical(self, notification_type: str, critical: bool) -> None:
        self.calls.append((notification_type, critical))

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


BUILDS = Row("builds", "Builds", {"in_app": True, "push": True, "email": False, "sms": True})


def switches(control: ft.BaseControl) -> dict[str, ft.Switch]:
    return {str(c.tooltip): c for c in walk(control) if isinstance(c, ft.Switch)}


@pytest.mark.parametrize("wide", [True, False])
async def test_the_matrix_has_a_named_switch_for_every_type_and_channel(wide: bool) -> None:
    settings = NotificationSettings(source=FakePreferences(FakeMatrix(types=(BUILDS,))), wide=wide)
    await settings.refresh()
    found = switches(settings)
    assert len(found) == 8
    assert {name: s.value for name, s in found.items() if name.startswith("Builds")} == {
        "Builds by In app": True,
        "Builds by Push": True,
        "Builds by E-mail": False,
        "Builds by SMS": True,
    }


async def test_a_switch_writes_to_the_source_and_shows_its_reason() -> None:
    source = FakePreferences(FakeMatrix(types=(BUILDS,)))
    settings = NotificationSettings(source=source)
    await settings.refresh()
    await settings.choose("builds", "sms", False)
    assert source.matrix_now.preferences == (Choice("builds", "sms", False),)
    await settings.refresh()
    assert "You turned it off" in texts(settings)
    source.broken = True
    await settings.choose("builds", "sms", True)
    assert "The preference could not be saved: the disk is full" in texts(settings)


@pytest.mark.parametrize("wide", [True, False])
async def test_the_columns_are_the_existing_channels(wide: bool) -> None:
    row = replace(BUILDS, channels={"ntfy": True, **BUILDS.channels})
    settings = NotificationSettings(source=FakePreferences(FakeMatrix(types=(row,))), wide=wide)
    await settings.refresh()
    names = [name for name in switches(settings) if name.startswith("Builds")]
    assert names == [f"Builds by {channel}" for channel in ("In app", "Push", "E-mail", "SMS", "ntfy")]


@pytest.mark.parametrize("wide", [True, False])
async def test_the_critical_switch_needs_the_permission(wide: bool) -> None:
    row = replace(BUILDS, asks_critical=True)
    source = FakePreferences(FakeMatrix(types=(row,)))
    settings = NotificationSettings(source=source, wide=wide)
    await settings.refresh()
    name = "Builds is critical: passes quiet hours"
    assert name not in switches(settings)
    assert "from ci · requests critical" in texts(settings)
    source.matrix_now = replace(source.matrix_now, may_mark_critical=True)
    await settings.refresh()
    assert switches(settings)[name].value is False
    await settings.mark_critical("builds", True)
    assert source.calls == [("builds", True)]


@pytest.mark.parametrize(
    ("digest", "words"),
    [
        (Often(), "Every one"),
        (Often("hourly"), "Hourly"),
        (Often("daily"), "Daily, 08:00"),
        (Often("daily", "18:30", True), "Daily, 18:30"),
    ],
)
async def test_the_digest_menu_shows_and_changes_the_setting(digest: Often, words: str) -> None:
    source = FakePreferences(FakeMatrix(types=(replace(BUILDS, digest=digest),)))
    settings = NotificationSettings(source=source)
    await settings.refresh()
    menu = named(settings, f"Builds: {words}")
    labels = [item.content for item in menu.items]
    at = digest.at or "08:00"
    assert labels[:3] == ["Every one", "Digest, every hour", f"Digest, daily at {at}"]
    assert [item.checked for item in menu.items[:3]] == [digest.frequency == f for f in ("off", "hourly", "daily")]
    assert ("Reset to default" in labels) is digest.chosen
    for item in (*menu.items[:3], *menu.items[4:]):
        await item.on_click(None)
    back = [("builds", None, None)] if digest.chosen else []
    assert source.calls == [("builds", "off", None), ("builds", "hourly", None), ("builds", "daily", at), *back]


async def test_a_channel_turned_off_for_all_cannot_be_turned_on_for_one() -> None:
    off = FakeMatrix((Choice("*", "sms", False),), (replace(BUILDS, channels={**BUILDS.channels, "sms": False}),))
    settings = NotificationSettings(source=FakePreferences(off))
    await settings.refresh()
    found = switches(settings)
    assert not found["All notifications by SMS"].disabled
    assert found["Builds by SMS"].disabled
    assert not found["Builds by Push"].disabled
    assert reason(off, "builds", "sms") == "Off for all"


# --- what the screens draw -----------------------------------------------------------------------------------------


def test_a_notification_stays_in_the_list_after_it_was_read() -> None:
    opened = NotificationDetail(notification=sample_notification(2, inbox="read"), deliveries=())
    assert [n.id for n in _with_open_notification([sample_notification(1), sample_notification(3)], opened)] == [
        "n1",
        "n2",
        "n3",
    ]
    archived = NotificationDetail(notification=sample_notification(2, inbox="archived"), deliveries=())
    assert [n.id for n in _with_open_notification([sample_notification(1)], archived)] == ["n1"]


def test_the_reusable_controls_import_only_flet() -> None:
    for file in (VIEWS / "controls").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.partition(".")[0]
                assert (
                    top in sys.stdlib_module_names
                    or top == "flet"
                    or name.startswith(("flashflow.views.controls", "flashflow.client"))
                ), (
                    file,
                    name,
                )
