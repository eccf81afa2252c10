"""The screens' words, the crossing from backend threads, and the reusable controls built without a page."""

from __future__ import annotations

import ast
import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import flet as ft
import msgspec
import pytest

from backend import Action, Bus, Delivery, Event, Notification, NotificationDetail, TodayFigures
from views.commands import send_command, track_command
from views.controls.notice_row import row_name
from views.controls.notification_bell import NotificationBell
from views.controls.notification_settings import NotificationSettings, reason
from views.controls.refresher import Refresher
from views.controls.sources import Inbox
from views.controls.words import bell_name
from views.dashboard import tiles
from views.live import Live
from views.notification_center import _with
from views.notification_detail import detail_view
from views.shell import parse
from views.words import (
    ago,
    badge,
    clock,
    day_heading,
    exact,
    grouped,
    one_line,
    paragraphs,
    plural,
    reads_rtl,
    safe_link,
    share,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone(timedelta(hours=1)))
VIEWS = Path(__file__).parent.parent / "views"

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def walk(control: Any) -> Iterator[ft.BaseControl]:
    """A control and everything in it."""
    yield control
    for name in ("content", "controls", "title", "actions"):
        inner = getattr(control, name, None)
        for child in inner if isinstance(inner, list) else [inner]:
            if isinstance(child, ft.BaseControl):
                yield from walk(child)


def texts(control: ft.BaseControl) -> list[str]:
    """Every text that is drawn, buttons' labels too."""
    found = [c.value for c in walk(control) if isinstance(c, ft.Text)]
    return found + [c.content for c in walk(control) if isinstance(getattr(c, "content", None), str)]


def named(control: ft.BaseControl, name: str) -> Any:
    """The handler's control of the row or button that a screen reader calls ``name``."""
    for part in walk(control):
        if isinstance(part, ft.Semantics) and part.button and part.label == name:
            return part.content
        if getattr(part, "content", None) == name or getattr(part, "tooltip", None) == name:
            return part
    raise LookupError(name)


# --- words ---------------------------------------------------------------------------------------------------------


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
def test_relative_times_say_what_a_person_would(seconds: int, words: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words


def test_a_few_hours_across_midnight_stay_hours() -> None:
    early = NOW.replace(hour=1)
    assert ago(early - timedelta(hours=3), early) == "3 h ago"


def test_times_are_told_in_the_readers_zone() -> None:
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


def test_figures_are_grouped_and_counted_in_words() -> None:
    assert grouped(1234567) == "1,234,567"
    assert plural(1, "activity", "activities") == "1 activity"
    assert plural(1204, "notification") == "1,204 notifications"
    assert [share(0, 0), share(1, 3), share(1, 2), share(5, 5)] == [None, "33.3 %", "50 %", "100 %"]


def test_the_badge_is_empty_at_zero_and_stops_at_99() -> None:
    assert [badge(n) for n in (-1, 0, 5, 99, 100, 5000)] == [None, None, "5", "99", "99+", "99+"]
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


def test_the_line_that_fills_an_empty_screen_can_be_pasted() -> None:
    line = send_command("http://127.0.0.1:8750", 'o\'hara "x"; rm -rf ~')
    assert line.startswith("curl http://127.0.0.1:8750/api/notifications/send ")
    assert '"Authorization: Bearer $(flashflow key)"' in line
    assert "'\"'\"'" in line
    assert track_command(None, "o'hara") == "flashflow track 'o'\"'\"'hara' page_view"


def test_routes_name_a_screen_and_a_notification() -> None:
    assert parse("/") == (0, None)
    assert parse("/nowhere") == (0, None)
    assert parse("/notifications") == (1, None)
    assert parse("/notifications/n%2F1?x=1") == (1, "n/1")
    assert parse("/settings") == (2, None)


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
    asked: list[str] = []
    live.listen(("activity",), lambda: asked.append("activity"))

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
    assert asked == ["activity"]  # the first at once

    burst()
    assert loop.soon == []  # nothing wakes the page within the interval
    assert [delay for delay, _ in loop.later] == [0.1]
    loop.run_later()
    assert asked == ["activity"] * 2
    loop.run_later()  # nothing happened since: it goes to rest
    assert loop.later == []
    bus.publish([Event("activity", "x")])
    assert len(loop.soon) == 1


def test_a_listener_hears_its_kinds_and_with_mine_only_its_person() -> None:
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


def test_a_page_that_went_away_is_dropped_quietly_and_catches_up_when_it_is_back() -> None:
    bus = Bus()
    live, loop = live_on(bus)
    asked: list[int] = []
    live.listen(("activity",), lambda: asked.append(1))
    bus.publish([Event("activity", "1")])
    live.stop()
    loop.run_soon()
    bus.publish([Event("activity", "2")])
    assert asked == []
    assert loop.soon == []
    assert loop.later == []
    live.start()
    assert asked == [1]
    bus.publish([Event("activity", "3")])
    loop.run_soon()
    assert asked == [1, 1]


def test_a_closed_loop_does_not_reach_the_thread_that_committed() -> None:
    bus = Bus()
    loop = asyncio.new_event_loop()
    Live(bus, "me", loop).start()
    loop.close()
    bus.publish([Event("activity", "1")])


async def test_refreshes_never_overlap_and_none_is_lost() -> None:
    gate = asyncio.Event()
    runs: list[int] = []

    async def refresh() -> None:
        runs.append(1)
        await gate.wait()

    refresher = Refresher(refresh)
    refresher.ask()
    await asyncio.sleep(0)
    for _ in range(50):
        refresher.ask()
    assert len(runs) == 1
    gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(runs) == 2


# --- the controls, without a page ----------------------------------------------------------------------------------


def notice(number: int, **changes: Any) -> Notification:
    plain = Notification(
        id=f"n{number}",
        user_id="me",
        app="ci",
        title=f"Build {number}",
        message="All tests passed",
        notification_type="builds",
        channels=("in_app",),
        priority="normal",
        status="delivered",
        inbox="unread",
        data={},
        actions=(),
        collapse_key=None,
        created_at=NOW - timedelta(minutes=number),
        scheduled_at=None,
        expires_at=None,
        sent_at=None,
        delivered_at=None,
        read_at=None,
        archived_at=None,
    )
    return _changed(plain, **changes)


def _changed(record: Notification, **changes: Any) -> Notification:
    return msgspec.structs.replace(record, **changes)


@dataclass
class FakeInbox:
    """An InboxSource in memory; tells its listeners as the bus would."""

    notices: list[Notification] = field(default_factory=list)
    extra_unread: int = 0
    broken: bool = False
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def newest(self, limit: int) -> Inbox:
        if self.broken:
            raise OSError("the disk is full")
        unread = sum(n.inbox == "unread" for n in self.notices) + self.extra_unread
        return Inbox(tuple(self.notices[:limit]), unread)

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

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(on_change)
        return lambda: self.listeners.remove(on_change)

    def _set(self, ids: set[str], inbox: str) -> None:
        self.notices = [_changed(n, inbox=inbox) if n.id in ids else n for n in self.notices]


async def bell_over(source: FakeInbox, **options: Any) -> NotificationBell:
    bell = NotificationBell(source=source, now=lambda: NOW, **options)
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


async def test_the_drop_down_lists_the_newest_ten_with_their_state() -> None:
    source = FakeInbox([notice(1), notice(2, inbox="read", priority="urgent"), *(notice(i) for i in range(3, 15))])
    panel = (await bell_over(source)).panel_content()
    rows = [c.label for c in walk(panel) if isinstance(c, ft.Semantics) and c.button]
    assert len(rows) == 10
    assert rows[:2] == ["Build 1, unread, from ci", "Build 2, read, from ci"]
    assert {"1 min ago", "Urgent", "View all", "Mark all read"} <= set(texts(panel))


async def test_one_click_opens_a_notice_and_marks_it_read() -> None:
    source = FakeInbox([notice(1), notice(2)])
    opened: list[str] = []

    async def open_notice(notification_id: str) -> None:
        opened.append(notification_id)

    bell = await bell_over(source, open_notice=open_notice)
    await named(bell.panel_content(), "Build 2, unread, from ci").on_click(None)
    assert opened == ["n2"]
    assert [n.inbox for n in source.notices] == ["unread", "read"]
    assert bell.unread == 2  # the bell never patches itself: it follows when the source says that it changed
    await bell.refresh()
    assert bell.unread == 1


async def test_mark_all_read_can_be_taken_back() -> None:
    source = FakeInbox([notice(1), notice(2, inbox="read"), notice(3)])
    bell = await bell_over(source)
    await named(bell.panel_content(), "Mark all read").on_click(None)
    assert {n.inbox for n in source.notices} == {"read"}
    await bell.refresh()
    await named(bell.panel_content(), "Undo marking 2 read").on_click(None)
    assert [n.inbox for n in source.notices] == ["unread", "read", "unread"]
    assert "Undo marking 2 read" not in texts(bell.panel_content())


async def test_a_source_that_fails_is_told_in_the_drop_down() -> None:
    source = FakeInbox([notice(1)])
    bell = await bell_over(source)
    source.broken = True
    await bell.mark_all()
    assert "That did not work: the disk is full" in texts(bell.panel_content())
    await bell.refresh()
    assert "The inbox could not be read: the disk is full" in texts(bell.panel_content())
    source.broken = False
    await bell.refresh()
    assert "Build 1" in texts(bell.panel_content())


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


async def test_an_empty_drop_down_says_what_will_stand_there() -> None:
    panel = (await bell_over(FakeInbox())).panel_content()
    assert any(text.startswith("Nothing here yet") for text in texts(panel))
    assert named(panel, "Mark all read").disabled


def test_a_row_is_named_by_title_state_and_app() -> None:
    assert row_name(notice(1)) == "Build 1, unread, from ci"
    assert row_name(notice(1, inbox="archived", app="")) == "Build 1, archived"
    assert row_name(notice(1, title="a\u202eb\nc")) == "a b c, unread, from ci"


@dataclass(frozen=True)
class Choice:
    notification_type: str
    channel: str
    enabled: bool


@dataclass(frozen=True)
class Row:
    name: str
    label: str
    channels: dict[str, bool]
    description: str = ""
    app: str = "ci"
    critical: bool = False


@dataclass(frozen=True)
class FakeMatrix:
    preferences: tuple[Choice, ...] = ()
    types: tuple[Row, ...] = ()


@dataclass
class FakePreferences:
    """A PreferenceSource in memory."""

    matrix_now: FakeMatrix
    broken: bool = False

    def matrix(self) -> FakeMatrix:
        return self.matrix_now

    def set_preference(self, notification_type: str, channel: str, enabled: bool) -> None:
        if self.broken:
            raise OSError("the disk is full")
        choice = Choice(notification_type, channel, enabled)
        self.matrix_now = replace(self.matrix_now, preferences=(*self.matrix_now.preferences, choice))

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


async def test_a_switch_asks_the_source_and_shows_why() -> None:
    source = FakePreferences(FakeMatrix(types=(BUILDS,)))
    settings = NotificationSettings(source=source)
    await settings.refresh()
    await settings.choose("builds", "sms", False)
    assert source.matrix_now.preferences == (Choice("builds", "sms", False),)
    await settings.refresh()
    assert "You turned it off" in texts(settings)
    source.broken = True
    await settings.choose("builds", "sms", True)
    assert "The choice was not kept: the disk is full" in texts(settings)


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


async def _nothing(_: object) -> None: ...


def test_a_notification_in_full_says_why_and_opens_only_web_links() -> None:
    actions = (Action(label="Open run", url="https://ci.example/1"), Action(label="Bad", url="javascript:alert(1)"))
    delivery = Delivery(
        id="d",
        channel="email",
        target="ada@example.test",
        status="failed",
        code="not_configured",
        reason="E-mail is not configured.",
        created_at=NOW,
        updated_at=NOW,
        next_attempt_at=None,
    )
    shown = notice(1, title="<b>x</b> **y**", message="one\n[two](javascript:x)", actions=actions)
    view = detail_view(
        NotificationDetail(notification=shown, deliveries=(delivery,)),
        NOW,
        toggle_read=_nothing,
        toggle_archived=_nothing,
    )
    words = texts(view)
    assert {"<b>x</b> **y**", "one\n[two](javascript:x)", "E-mail · ada@example.test"} <= set(words)
    assert {"Failed · 12:00:00", "E-mail is not configured.", "Why you got this"} <= set(words)
    assert not any(isinstance(c, ft.Markdown) for c in walk(view))
    links = {c.content: (getattr(c.url, "url", None), c.disabled) for c in walk(view) if isinstance(c, ft.Button)}
    assert links["Open run"] == ("https://ci.example/1", False)
    bad = named(view, "Bad")
    assert bad.url is None
    assert bad.disabled


def test_the_tiles_are_the_days_figures() -> None:
    figures = TodayFigures(
        day="2026-11-22", zone="UTC", active_users=3, sessions=4, activities=1234, notifications=9, delivered=8, read=2
    )
    assert [(t.label, t.figure, t.detail) for t in tiles(figures, 6)] == [
        ("Active users", "3", "today"),
        ("Sessions", "4", "started today"),
        ("Activities", "1,234", "today"),
        ("Notices", "9", "sent today"),
        ("Delivered", "8", "25 % opened"),
        ("Unread", "6", "for you"),
    ]


def test_reading_a_notification_does_not_make_it_vanish_from_the_list() -> None:
    opened = NotificationDetail(notification=notice(2, inbox="read"), deliveries=())
    assert [n.id for n in _with([notice(1), notice(3)], opened)] == ["n1", "n2", "n3"]
    archived = NotificationDetail(notification=notice(2, inbox="archived"), deliveries=())
    assert [n.id for n in _with([notice(1)], archived)] == ["n1"]


def test_the_reusable_controls_import_only_flet() -> None:
    for file in (VIEWS / "controls").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or top == "flet" or name.startswith("views.controls"), (
                    file,
                    name,
                )
