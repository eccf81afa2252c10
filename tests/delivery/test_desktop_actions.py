"""Pressing a toast: with a real notification daemon, and with one that says to us what no honest one would."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from flashflow.backend.delivery.desktop import signals
from flashflow.backend.delivery.desktop.channel import DesktopChannel
from flashflow.backend.delivery.net.text import is_web_link
from flashflow.backend.domain.delivery_messages import Link
from tests.support.desktop_session import (
    DEADLINE,
    SERVICE,
    Session,
    StandInDaemon,
    a_signal,
    delivered,
    emit,
    notification_session,
    session_bus,
    until,
)
from tests.support.notices import notice

DOCS = Link("Open the log", "https://example.com/log?a=1&b=2")
LOG = Link("Other", "http://example.com/other")
INVOKED, CLOSED = "ActionInvoked", "NotificationClosed"


class Presses:
    """What was pressed, as the app is told, and in which thread."""

    def __init__(self) -> None:
        self.heard: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self.threads: list[str] = []

    def __call__(self, notification_id: str, link: str | None) -> None:
        self.threads.append(threading.current_thread().name)
        self.heard.put((notification_id, link))

    def next(self) -> tuple[str, str | None]:
        return self.heard.get(timeout=DEADLINE)


@contextmanager
def pressable(environ: Mapping[str, str], on_action: Any, **options: Any) -> Iterator[DesktopChannel]:
    made = DesktopChannel(environ=environ, platform="linux", on_action=on_action, **options)
    try:
        yield made
    finally:
        made.close()


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "desktop-signals"]


def show(sending: DesktopChannel, notification_id: str, *actions: Link, **changes: Any) -> None:
    outcome = sending.send(notice(notification_id=notification_id, actions=actions, **changes))
    assert outcome.outcome == "delivered", outcome


@pytest.fixture(scope="module")
def shared() -> Iterator[Session]:
    with notification_session() as session:
        yield session


@pytest.fixture
def desktop(shared: Session) -> Session:
    """The session with nothing on its screen."""
    shared.history()
    return shared


# --- with a real daemon -----------------------------------------------------------------------------------------------


def test_pressing_a_toast_tells_whose_it_is_in_a_thread_of_its_own(desktop: Session) -> None:
    presses = Presses()
    with pressable(desktop.environ, presses) as sending:
        show(sending, "pressed")
        desktop.press()
        assert presses.next() == ("pressed", None)
    assert presses.threads == ["desktop-action"]


def test_pressing_a_button_tells_its_link(desktop: Session) -> None:
    presses = Presses()
    with pressable(desktop.environ, presses) as sending:
        show(sending, "linked", DOCS, LOG)
        desktop.press("Other")
        assert presses.next() == ("linked", LOG.url)


def test_a_toast_that_was_pressed_can_still_be_taken_away(desktop: Session) -> None:
    presses = Presses()
    with pressable(desktop.environ, presses) as sending:
        show(sending, "pressed and read")
        desktop.press()
        presses.next()
        assert desktop.displayed() == 1
        assert sending.dismiss("pressed and read")
        assert desktop.displayed() == 0


def test_an_updated_notice_is_one_toast_with_the_new_text_and_the_new_link(desktop: Session) -> None:
    presses = Presses()
    with pressable(desktop.environ, presses) as sending:
        show(sending, "told again", DOCS, title="Build failed")
        show(sending, "told again", Link(DOCS.label, LOG.url), title="Build failed (2)", count=2)
        assert desktop.displayed() == 1
        desktop.press(DOCS.label)
        assert presses.next() == ("told again", LOG.url)
    assert desktop.history()[-1].title == "Build failed (2)"


def test_a_toast_waved_away_was_not_read_and_is_not_asked_to_be_replaced(desktop: Session) -> None:
    presses = Presses()
    with pressable(desktop.environ, presses) as sending:
        show(sending, "waved away")
        desktop.dismiss()
        show(sending, "after it")
        assert not sending.dismiss("waved away")
        show(sending, "waved away", title="back again")
        assert desktop.next_asked("Notify", title="back again").values[1] == 0
        desktop.press()
        assert presses.next()[0] in {"after it", "waved away"}
    assert presses.heard.empty()


def test_only_links_of_the_web_become_buttons_three_at_most_with_clean_labels(desktop: Session) -> None:
    links = [
        Link("file", "file:///etc/passwd"),
        Link("script", "javascript:alert(1)"),
        Link("spaced", "http://example.com/a --version"),
        Link("line\x1b\none", "HTTPS://example.com/1"),
        Link("\x00", "http://example.com/2"),
        Link("<b>x</b>" * 20, "http://example.com/3"),
        Link("fourth", "http://example.com/4"),
    ]
    with pressable(desktop.environ, Presses()) as sending:
        show(sending, "buttons", *links, title="buttons")
    offered = desktop.next_asked("Notify", title="buttons").values[5]
    assert offered[::2] == ["default", "link-1", "link-2", "link-3"]
    assert offered[1::2][1:3] == ["line one", "Open"]
    assert len(offered[-1]) == 60


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("https://example.com", True),
        ("http://[::1]:8080/ü?q=1#x", True),
        ("file:///etc/passwd", False),
        ("--version", False),
        ("https:example.com", False),
        ("https://example.com/\nfile:///etc", False),
        ("https://example.com\n", False),
        (" https://example.com", False),
        ("https://" + "x" * 2048, False),
    ],
)
def test_what_a_browser_may_be_given(text: str, is_one: bool) -> None:
    assert is_web_link(text) is is_one


def test_where_nobody_wants_to_hear_of_presses_a_toast_cannot_be_pressed(desktop: Session) -> None:
    with pressable(desktop.environ, None) as sending:
        show(sending, "deaf", DOCS, title="deaf")
        assert listeners() == []
    assert desktop.next_asked("Notify", title="deaf").values[5] == []


# --- with a stand-in that says what it is told ------------------------------------------------------------------------


def test_a_daemon_without_actions_gets_none_and_nobody_listens() -> None:
    with session_bus() as bus, StandInDaemon(bus, "body") as daemon, pressable(bus.environ, Presses()) as sending:
        show(sending, "plain", DOCS)
        assert daemon.asked[1][5] == []
        assert listeners() == []
        show(sending, "plain", DOCS)
        assert daemon.asked[1][1] == 1
        assert sending.dismiss("plain")
        assert daemon.closed == [1]


@pytest.mark.parametrize("everybody", [True, False], ids=["to everybody", "to the one who asked"])
def test_a_press_is_heard_whether_the_daemon_tells_everybody_or_us(everybody: bool) -> None:
    presses = Presses()
    with session_bus() as bus, StandInDaemon(bus, "actions") as daemon, pressable(bus.environ, presses) as sending:
        show(sending, "a", DOCS)
        daemon.signal(INVOKED, "us", 1, "link-1", to=None if everybody else daemon.client)
        assert presses.next() == ("a", DOCS.url)


def test_nothing_listens_before_the_first_toast_and_nothing_after_closing() -> None:
    with session_bus() as bus, StandInDaemon(bus, "actions"), pressable(bus.environ, Presses()) as sending:
        assert sending.health().works
        assert listeners() == []
        show(sending, "a")
        show(sending, "b")
        assert len(listeners()) == 1
        began = time.monotonic()
        sending.close()
        assert time.monotonic() - began < 1
        assert listeners() == []


HOSTILE_SIGNALS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "a press": (INVOKED, "us", (1, "default")),
    "a close": (CLOSED, "uu", (1, 2)),
}
WRONG_SIGNALS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "an id of nobody": (INVOKED, "us", (4_294_967_295, "default")),
    "id 0": (INVOKED, "us", (0, "default")),
    "an unknown key": (INVOKED, "us", (1, "link-2")),
    "a huge key": (INVOKED, "us", (1, "default" * 200_000)),
    "no key": (INVOKED, "us", (1, "")),
    "text for an id": (INVOKED, "ss", ("1", "default")),
    "a signed id": (INVOKED, "is", (1, "default")),
    "a number for a key": (INVOKED, "uu", (1, 1)),
    "nothing": (INVOKED, "", ()),
    "too much": (INVOKED, "uss", (1, "default", "default")),
    "a variant": (INVOKED, "uv", (1, ("s", "default"))),
    "a close of nobody's": (CLOSED, "uu", (77, 2)),
    "a close with a text": (CLOSED, "us", (1, "2")),
    "a close of one word": (CLOSED, "u", (1,)),
    "a message with a file that is not there": (INVOKED, "h", (0,)),
    "another member": ("ActionInvokedTwice", "us", (1, "default")),
    "a name that changed hands": ("NameOwnerChanged", "sss", (SERVICE, ":1.1", "")),
}


def raw(connection: Any, member: str, signature: str, body: tuple[Any, ...], to: str | None) -> None:
    """``emit``, also of a file's number without the file, which no honest library would write."""
    if signature != "h":
        emit(connection, member, signature, *body, to=to)
        return
    data = a_signal(member, "u", *body, to=to).serialise(serial=next(connection.outgoing_serial))
    before, after = b"\x01g\x00\x01u\x00", b"\x01g\x00\x01h\x00"
    assert data.count(before) == 1
    connection.sock.sendall(data.replace(before, after))


@pytest.mark.parametrize("directly", [True, False], ids=["to us", "to everybody"])
@pytest.mark.parametrize("hostile", [*HOSTILE_SIGNALS, *WRONG_SIGNALS])
def test_what_a_stranger_says_in_the_daemons_words_changes_nothing(hostile: str, directly: bool) -> None:
    member, signature, body = (HOSTILE_SIGNALS | WRONG_SIGNALS)[hostile]
    presses = Presses()
    with (
        session_bus() as bus,
        StandInDaemon(bus, "actions") as daemon,
        pressable(bus.environ, presses) as sending,
        bus.connect() as stranger,
    ):
        show(sending, "ours", DOCS)
        raw(stranger, member, signature, body, daemon.client if directly else None)
        delivered(stranger)
        daemon.signal(INVOKED, "us", 1, "link-1")
        assert presses.next() == ("ours", DOCS.url)
        assert sending.dismiss("ours")
        assert len(listeners()) == 1
    assert presses.heard.empty()


@pytest.mark.parametrize("wrong", WRONG_SIGNALS)
def test_what_makes_no_sense_changes_nothing_even_if_the_daemon_says_it(wrong: str) -> None:
    member, signature, body = WRONG_SIGNALS[wrong]
    presses = Presses()
    with session_bus() as bus, StandInDaemon(bus, "actions") as daemon, pressable(bus.environ, presses) as sending:
        show(sending, "ours", DOCS)
        raw(daemon._connection, member, signature, body, daemon.client)
        daemon.signal(INVOKED, "us", 1, "link-1")
        assert presses.next() == ("ours", DOCS.url)
        assert sending.dismiss("ours")
    assert presses.heard.empty()


def test_the_same_words_on_another_interface_are_not_the_daemons() -> None:
    presses = Presses()
    with session_bus() as bus, StandInDaemon(bus, "actions") as daemon, pressable(bus.environ, presses) as sending:
        show(sending, "ours", DOCS)
        emit(daemon._connection, INVOKED, "us", 1, "default", to=daemon.client, interface="org.example.Other")
        daemon.signal(INVOKED, "us", 1, "link-1")
        assert presses.next() == ("ours", DOCS.url)
    assert presses.heard.empty()


def test_a_toast_is_pressed_once_until_it_is_shown_anew() -> None:
    presses = Presses()
    with session_bus() as bus, StandInDaemon(bus, "actions") as daemon, pressable(bus.environ, presses) as sending:
        show(sending, "a")
        show(sending, "b")
        for shown_id in (1, 1, 1, 2):
            daemon.signal(INVOKED, "us", shown_id, "default")
        assert {presses.next(), presses.next()} == {("a", None), ("b", None)}
        show(sending, "a")
        daemon.signal(INVOKED, "us", 1, "default")
        assert presses.next() == ("a", None)
    assert presses.heard.empty()


def test_a_toast_that_the_daemon_closed_is_pressed_no_more() -> None:
    presses = Presses()
    with session_bus() as bus, StandInDaemon(bus, "actions") as daemon, pressable(bus.environ, presses) as sending:
        show(sending, "a")
        show(sending, "b")
        daemon.signal(CLOSED, "uu", 1, 2)
        daemon.signal(INVOKED, "us", 1, "default")
        daemon.signal(INVOKED, "us", 2, "default")
        assert presses.next() == ("b", None)
        show(sending, "a")
        assert daemon.asked[3][1] == 0
    assert presses.heard.empty()


def test_of_too_many_toasts_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REMEMBERED", 2)
    presses = Presses()
    with session_bus() as bus, StandInDaemon(bus, "actions") as daemon, pressable(bus.environ, presses) as sending:
        for key in ("a", "b", "c"):
            show(sending, key)
        for shown_id in (1, 3):
            daemon.signal(INVOKED, "us", shown_id, "default")
        assert presses.next() == ("c", None)
    assert presses.heard.empty()


def test_presses_are_heard_of_the_next_daemon_and_none_of_the_old_ones_toasts() -> None:
    presses = Presses()
    with session_bus() as bus, pressable(bus.environ, presses) as sending:
        with StandInDaemon(bus, "actions"):
            show(sending, "old", DOCS)
        with StandInDaemon(bus, "actions", first_id=2) as daemon:
            show(sending, "new", DOCS)
            daemon.signal(INVOKED, "us", 1, "default")
            daemon.signal(INVOKED, "us", 2, "default")
            assert presses.next() == ("new", None)
            assert not sending.dismiss("old")
            assert len(listeners()) == 1
    assert presses.heard.empty()


def test_a_daemon_that_gave_up_its_name_is_believed_no_more() -> None:
    presses = Presses()
    with session_bus() as bus, StandInDaemon(bus, "actions") as former, pressable(bus.environ, presses) as sending:
        show(sending, "former")
        us = former.client
        former.release()
        former.signal(INVOKED, "us", 1, "default", to=us)
        until(lambda: not sending.health().works)
        with StandInDaemon(bus, "actions", first_id=2) as daemon:
            show(sending, "present")
            daemon.signal(INVOKED, "us", 2, "default")
            assert presses.next() == ("present", None)
    assert presses.heard.empty()


def test_a_stranger_cannot_say_that_the_name_changed_hands() -> None:
    presses = Presses()
    with (
        session_bus() as bus,
        StandInDaemon(bus, "actions") as daemon,
        pressable(bus.environ, presses) as sending,
        bus.connect() as stranger,
    ):
        show(sending, "ours")
        words = SERVICE, "", stranger.unique_name
        emit(stranger, "NameOwnerChanged", "sss", *words, to=daemon.client, interface="org.freedesktop.DBus")
        delivered(stranger)
        daemon.signal(INVOKED, "us", 1, "default")
        assert presses.next() == ("ours", None)


def test_after_its_connection_alone_was_lost_it_listens_again_and_still_knows_its_toasts() -> None:
    presses = Presses()
    with session_bus() as bus, StandInDaemon(bus, "actions") as daemon, pressable(bus.environ, presses) as sending:
        show(sending, "a")
        first = daemon.client
        sending._native._listening._hang_up()  # type: ignore[union-attr]
        until(lambda: not listeners())
        show(sending, "b")
        assert daemon.client != first
        daemon.signal(INVOKED, "us", 1, "default")
        assert presses.next() == ("a", None)


def test_closing_ends_the_wait_for_a_daemon_that_does_not_answer() -> None:
    with session_bus() as bus, StandInDaemon(bus, "actions") as daemon:
        daemon.holds = True
        with pressable(bus.environ, Presses(), deadline_s=0.2) as sending:
            assert sending.send(notice()).code == "timeout"
            began = time.monotonic()
        assert time.monotonic() - began < 0.9
        assert not {"desktop-notice", "desktop-signals"} & {thread.name for thread in threading.enumerate()}


def test_a_toast_whose_id_came_late_can_be_pressed_and_is_replaced_by_the_next_try() -> None:
    presses = Presses()
    with (
        session_bus() as bus,
        StandInDaemon(bus, "actions") as daemon,
        pressable(bus.environ, presses, deadline_s=0.2) as sending,
    ):
        daemon.holds = True
        assert sending.send(notice(notification_id="late")).code == "timeout"
        daemon.holds = False
        daemon.tell()
        daemon.signal(INVOKED, "us", 1, "default")
        assert presses.next() == ("late", None)
        until(lambda: sending.health().works)
        show(sending, "late")
        assert daemon.asked[1][1] == 1


def test_after_the_bus_was_restarted_presses_are_heard_again() -> None:
    presses = Presses()
    environ: dict[str, str] = {}
    with pressable(environ, presses) as sending:
        for key in ("first", "second"):
            with session_bus() as bus, StandInDaemon(bus, "actions") as daemon:
                environ.update(bus.environ)
                show(sending, key, DOCS)
                assert daemon.asked[1][1] == 0
                daemon.signal(INVOKED, "us", 1, "link-1")
                assert presses.next() == (key, DOCS.url)
                assert len(listeners()) == 1
            until(lambda: not listeners())


def test_a_press_that_is_never_dealt_with_holds_up_neither_sends_nor_presses_nor_the_end() -> None:
    let_go = threading.Event()
    presses = Presses()

    def on_action(notification_id: str, link: str | None) -> None:
        presses(notification_id, link)
        if notification_id == "hangs":
            let_go.wait(DEADLINE)

    try:
        with session_bus() as bus, StandInDaemon(bus, "actions") as daemon:
            with pressable(bus.environ, on_action) as sending:
                show(sending, "hangs")
                daemon.signal(INVOKED, "us", 1, "default")
                assert presses.next() == ("hangs", None)
                show(sending, "goes on")
                daemon.signal(INVOKED, "us", 2, "default")
                assert presses.next() == ("goes on", None)
                began = time.monotonic()
            assert time.monotonic() - began < 1
            assert listeners() == []
    finally:
        let_go.set()


def test_a_daemon_gone_wild_starts_only_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "AT_ONCE", 2)
    let_go = threading.Event()
    presses = Presses()

    def on_action(notification_id: str, link: str | None) -> None:
        presses(notification_id, link)
        let_go.wait(DEADLINE)

    try:
        with (
            session_bus() as bus,
            StandInDaemon(bus, "actions") as daemon,
            pressable(bus.environ, on_action) as sending,
        ):
            for number in range(1, 5):
                show(sending, f"n{number}")
                daemon.signal(INVOKED, "us", number, "default")
            show(sending, "last")  # its reply comes after all those signals
            assert {presses.next(), presses.next()} == {("n1", None), ("n2", None)}
    finally:
        let_go.set()
    assert presses.heard.empty()


def test_a_press_that_comes_to_nothing_is_logged_and_the_next_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    presses = Presses()

    def on_action(notification_id: str, link: str | None) -> None:
        presses(notification_id, link)
        if notification_id == "fails":
            raise RuntimeError("no luck")

    with (
        caplog.at_level(logging.ERROR, "flashflow.backend.delivery.desktop.signals"),
        session_bus() as bus,
        StandInDaemon(bus, "actions") as daemon,
        pressable(bus.environ, on_action) as sending,
    ):
        show(sending, "fails")
        show(sending, "works")
        for shown_id in (1, 2):
            daemon.signal(INVOKED, "us", shown_id, "default")
        assert {presses.next()[0], presses.next()[0]} == {"fails", "works"}
        until(lambda: [record.message for record in caplog.records] == ["an action on a toast failed"])
