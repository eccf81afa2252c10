"""The channel to this computer's own desktop, against a real session bus and a real notification daemon."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.delivery.desktop import linux, signals
from flashflow.backend.delivery.desktop.channel import DesktopChannel
from flashflow.backend.delivery.desktop.session_bus import BusLost
from flashflow.backend.domain.channel import Transient
from flashflow.backend.domain.delivery_messages import Outcome
from tests.support.desktop_session import DEADLINE, Session, SilentDaemon, notification_session, session_bus, until
from tests.support.notices import notice

HOSTILE = [
    "--version",
    "-x",
    "-",
    "It's",
    '"quoted" `id` $(id) \\n',
    "<b>x</b> & <img src='file:///etc/passwd'/> &amp;",
    "100 % %s %b %%",
    "x" * 300,
    "🚀 Grüße 你好 👩‍👩‍👧 مرحبا",
]


INVALID = "org.freedesktop.DBus.Error.InvalidArgs"


@contextmanager
def channel(environ: Mapping[str, str], **options: Any) -> Iterator[DesktopChannel]:
    made = DesktopChannel(environ=environ, platform="linux", **options)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def desktop() -> Iterator[Session]:
    with notification_session() as session:
        yield session


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A notification id of this test's own, since the session is shared."""
    return str(request.node.name)


def shown_last(session: Session) -> tuple[str, str]:
    last = session.history()[-1]
    return last.title, last.body


def test_a_notice_arrives_with_its_exact_title_and_body(desktop: Session, unique: str) -> None:
    with channel(desktop.environ) as sending:
        outcome = sending.send(notice("Build finished", "All 312 tests passed\nin 4 min", notification_id=unique))
    assert (outcome.outcome, outcome.code) == ("delivered", "shown")
    assert re.fullmatch(r"shown by dunst \d[\d.]*", outcome.text)
    last = desktop.history()[-1]
    assert (last.app, last.title, last.body) == ("FlashFlow", "Build finished", "All 312 tests passed\nin 4 min")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_title_is_shown_as_it_stands(desktop: Session, unique: str, text: str) -> None:
    with channel(desktop.environ) as sending:
        assert sending.send(notice(text, "", notification_id=unique)).outcome == "delivered"
    assert shown_last(desktop) == (text, "")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_daemon_that_reads_markup_gets_bodies_in_which_nothing_is_markup(
    desktop: Session, unique: str, text: str
) -> None:
    with channel(desktop.environ) as sending:
        sending.send(notice("t", text, notification_id=unique))
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    last = desktop.history()[-1]
    assert last.body == escaped
    assert last.text == f"<b>t</b>\n{escaped}"


def test_a_daemon_that_does_not_read_markup_gets_bodies_as_they_are(unique: str) -> None:
    text = "<b>x</b> & y"
    with notification_session(markup=False) as session, channel(session.environ) as sending:
        assert sending.send(notice("t", text, notification_id=unique)).outcome == "delivered"
        assert shown_last(session) == ("t", text)


@pytest.mark.parametrize(
    ("title", "message", "expected"),
    [
        ("two\nlines\tand a tab", "one\r\ntwo\tthree", ("two lines and a tab", "one\ntwo three")),
        ("\x07bell\x1b[31m\x00 nul\x7f", "a\x00b\x08c\x85d", ("bell[31m nul", "abc\nd")),
        ("half a pair \ud83d", "\udfff", ("half a pair \ufffd", "\ufffd")),
        ("\n\x00\t", "no title", ("FlashFlow", "no title")),
    ],
    ids=["lines", "control", "surrogates", "nothing left"],
)
def test_control_characters_never_reach_the_daemon(
    desktop: Session, unique: str, title: str, message: str, expected: tuple[str, str]
) -> None:
    with channel(desktop.environ) as sending:
        assert sending.send(notice(title, message, notification_id=unique)).outcome == "delivered"
    assert shown_last(desktop) == expected


def test_the_same_notification_replaces_its_own_toast_and_no_other(desktop: Session) -> None:
    with channel(desktop.environ) as sending:
        before = len(desktop.history())
        for number, title in [("a", "first"), ("b", "other"), ("a", "second")]:
            sending.send(notice(title, notification_id=number))
        titles = [shown.title for shown in desktop.history()[before:]]
    assert titles == ["second", "other"]


def test_a_notice_told_again_is_one_toast_with_the_new_text(desktop: Session, unique: str) -> None:
    desktop.history()
    with channel(desktop.environ) as sending:
        sending.send(notice("Build failed", "at 10:00", notification_id=unique, collapse_key="ci"))
        sending.send(notice("Build failed (2)", "at 10:05", notification_id=unique, collapse_key="ci", count=2))
        assert desktop.displayed() == 1
    assert shown_last(desktop) == ("Build failed (2)", "at 10:05")


def test_a_withdrawn_notice_leaves_the_screen_once(desktop: Session, unique: str) -> None:
    desktop.history()
    with channel(desktop.environ) as sending:
        sending.send(notice(notification_id=unique))
        assert desktop.displayed() == 1
        assert sending.dismiss(unique)
        assert desktop.displayed() == 0
        assert not sending.dismiss(unique)
        assert not sending.dismiss("never sent")


def test_only_the_latest_notices_are_remembered(desktop: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REMEMBERED", 2)
    with channel(desktop.environ) as sending:
        for number in ("one", "two", "one", "three"):
            sending.send(notice(notification_id=number))
        assert [sending.dismiss(number) for number in ("two", "one", "three")] == [False, True, True]


@pytest.mark.parametrize(
    ("priority", "urgency", "expires"),
    [("low", 0, -1), ("normal", 1, -1), ("high", 1, 15_000), ("urgent", 2, 0)],
)
def test_the_priority_decides_urgency_and_how_long_it_stays(
    desktop: Session, unique: str, priority: str, urgency: int, expires: int
) -> None:
    with channel(desktop.environ) as sending:
        sending.send(notice(unique, priority=priority, notification_id=unique))
    asked = desktop.next_asked("Notify", title=unique)
    assert asked.values[6]["urgency"] == ("y", urgency)
    assert asked.values[7] == expires


def test_the_icon_is_given_if_there_is_such_a_file(desktop: Session, unique: str, tmp_path: Path) -> None:
    icon = tmp_path / "an icon.png"
    for expected in ("", icon.as_uri()):
        with channel(desktop.environ, icon=icon) as sending:
            sending.send(notice(unique, notification_id=unique))
        asked = desktop.next_asked("Notify", title=unique)
        assert asked.values[2] == expected
        icon.write_bytes(b"")


def test_many_threads_may_send_at_once(desktop: Session) -> None:
    before = len(desktop.history())
    with channel(desktop.environ) as sending, ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: sending.send(notice(f"t{n}", notification_id=f"n{n}")), range(24)))
    assert {outcome.outcome for outcome in outcomes} == {"delivered"}
    assert {shown.title for shown in desktop.history()[before:]} == {f"t{n}" for n in range(24)}


def test_plyers_own_way_in_shows_it_too(desktop: Session) -> None:
    facade = linux.LinuxNotification(desktop.environ)
    facade.notify(title="--by plyer", message="a < b", app_name="FlashFlow", timeout=3, hints={"urgency": 2})
    facade.close()
    assert shown_last(desktop) == ("--by plyer", "a &lt; b")


def test_once_closed_no_connection_is_opened_again(desktop: Session) -> None:
    facade = linux.LinuxNotification(desktop.environ)
    facade.close()
    with pytest.raises(BusLost):
        facade.probe()


def test_health_names_the_daemon_and_shows_nothing(desktop: Session) -> None:
    before = len(desktop.history())
    with channel(desktop.environ) as probing:
        health = probing.health()
    assert health.works
    assert re.fullmatch(r"dunst \d[\d.]*", health.detail)
    assert len(desktop.history()) == before


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"DBUS_SESSION_BUS_ADDRESS": ""},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere/bus"},
        {"DBUS_SESSION_BUS_ADDRESS": "autolaunch:"},
        {"DBUS_SESSION_BUS_ADDRESS": "tcp:host=localhost,port=1"},
        {"DBUS_SESSION_BUS_ADDRESS": "nonsense"},
        {"XDG_RUNTIME_DIR": "/nowhere"},
    ],
    ids=["nothing set", "empty", "gone", "autolaunch", "tcp", "nonsense", "runtime dir without bus"],
)
def test_without_a_session_bus_nothing_is_ever_called_delivered(environ: dict[str, str]) -> None:
    sentence = "This computer has no desktop session that can show notifications."
    with channel(environ) as sending:
        assert sending.send(notice()) == Outcome(outcome="permanent", code="no_session_bus", text=sentence)
        health = sending.health()
    assert not health.works
    assert health.detail == sentence


def test_without_the_variable_the_bus_is_found_where_systemd_puts_it(desktop: Session, unique: str) -> None:
    folder = Path(desktop.address.removeprefix("unix:path=").split(",")[0]).parent
    with channel({"XDG_RUNTIME_DIR": str(folder)}) as sending:
        assert sending.send(notice(notification_id=unique)).outcome == "delivered"


@pytest.mark.parametrize("activatable", [None, "/bin/false"], ids=["none", "one that cannot start"])
def test_a_bus_without_a_notification_service_is_said_to_be_one(activatable: str | None) -> None:
    with session_bus(activatable=activatable) as bus, channel(bus.environ) as sending:
        outcome = sending.send(notice())
        assert (outcome.outcome, outcome.code) == ("permanent", "no_notification_service")
        assert outcome.text == "No program on this computer shows notifications."


def test_health_tells_a_service_that_can_be_started_from_none_without_starting_it(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with session_bus(activatable=f"/usr/bin/touch {started}") as bus, channel(bus.environ) as probing:
        health = probing.health()
        assert health.works
        assert health.detail == "a notification service that starts when needed"
    assert not started.exists()
    with session_bus() as bus, channel(bus.environ) as probing:
        assert not probing.health().works


def test_a_daemon_that_hangs_costs_one_deadline_and_the_next_send_none() -> None:
    with session_bus() as bus:
        daemon = SilentDaemon(bus)
        try:
            with channel(bus.environ, deadline_s=0.5) as sending:
                threads = threading.active_count()
                began = time.monotonic()
                first = sending.send(notice())
                took = time.monotonic() - began
                rest = [sending.send(notice()) for _ in range(20)]
                took_rest = time.monotonic() - began - took
                assert not sending.health().works
                assert threading.active_count() == threads + 1
        finally:
            daemon.close()
    assert (first.outcome, first.code) == ("transient", "timeout")
    assert 0.5 <= took < 1.5
    assert {(outcome.outcome, outcome.code) for outcome in rest} == {("transient", "busy")}
    assert took_rest < 0.4


def test_the_thread_of_a_hung_call_gives_up_by_itself(tmp_path: Path) -> None:
    with mute_bus(tmp_path / "bus"):
        facade = linux.LinuxNotification({"XDG_RUNTIME_DIR": str(tmp_path)}, timeout_s=0.2)
        with pytest.raises(Transient, match="did not answer"):
            facade.probe()


def test_a_bus_that_never_says_hello_costs_one_deadline_and_closing_ends_the_wait(tmp_path: Path) -> None:
    with mute_bus(tmp_path / "bus"):
        sending = DesktopChannel(environ={"XDG_RUNTIME_DIR": str(tmp_path)}, platform="linux", deadline_s=0.3)
        assert sending.send(notice()).code == "timeout"
        assert sending.send(notice()).code == "busy"
        sending.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "desktop-notice"]


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("org.freedesktop.Notifications.MaxNotificationsExceeded", "transient"), (INVALID, "permanent")],
)
def test_an_error_reply_is_told_in_the_daemons_words(name: str, outcome: str) -> None:
    with session_bus() as bus, channel(bus.environ) as sending, ThreadPoolExecutor(1) as pool:
        daemon = SilentDaemon(bus)
        try:
            sent = pool.submit(sending.send, notice())
            daemon.wait_until_asked()
            daemon.refuse(name, "too many of them")
            text = "The notification service refused: too many of them"
            assert sent.result(DEADLINE) == Outcome(outcome=outcome, code="refused", text=text)
        finally:
            daemon.close()


def test_a_daemon_that_dies_before_it_answers_is_transient() -> None:
    with session_bus() as bus, channel(bus.environ) as sending, ThreadPoolExecutor(1) as pool:
        daemon = SilentDaemon(bus)
        try:
            sent = pool.submit(sending.send, notice())
            daemon.wait_until_asked()
        finally:
            daemon.close()
        assert sent.result(DEADLINE).outcome == "transient"


def test_after_a_late_answer_sending_goes_on_and_the_retry_replaces_the_late_toast() -> None:
    with session_bus() as bus:
        daemon = SilentDaemon(bus)
        try:
            with channel(bus.environ, deadline_s=0.2) as sending:
                assert sending.send(notice()).code == "timeout"
                daemon.wait_until_asked()
                daemon.answer(41)
                until(lambda: sending.health().works)
                with ThreadPoolExecutor(1) as pool:
                    retry = pool.submit(sending.send, notice())
                    daemon.wait_until_asked()
                    daemon.answer(41)
                    retry.result(DEADLINE)
        finally:
            daemon.close()
    assert daemon.replaced == [0, 41]


def test_closing_ends_a_call_that_hangs() -> None:
    with session_bus() as bus:
        daemon = SilentDaemon(bus)
        try:
            sending = DesktopChannel(environ=bus.environ, platform="linux", deadline_s=0.2)
            sending.send(notice())
            began = time.monotonic()
            sending.close()
            assert time.monotonic() - began < 0.9
            assert not [thread for thread in threading.enumerate() if thread.name == "desktop-notice"]
            assert sending.send(notice()).code == "stopping"
        finally:
            daemon.close()


def test_a_new_daemon_is_never_asked_to_replace_the_old_ones_toasts() -> None:
    with session_bus() as bus, channel(bus.environ, deadline_s=0.2) as sending:
        for shown_id in (7, 8):
            daemon = SilentDaemon(bus)
            try:
                with ThreadPoolExecutor(1) as pool:
                    sent = pool.submit(sending.send, notice())
                    daemon.wait_until_asked()
                    daemon.answer(shown_id)
                    sent.result(DEADLINE)
                until(lambda: sending.health().works)
            finally:
                daemon.close()
            assert daemon.replaced == [0]
            until(lambda: sending.health().detail == "No program on this computer shows notifications.")


def test_a_bus_that_went_away_is_told_and_a_new_one_is_taken() -> None:
    environ: dict[str, str] = {}
    with channel(environ) as sending:
        with notification_session() as first:
            environ.update(first.environ)
            assert sending.send(notice()).outcome == "delivered"
            first.stop()
            assert sending.send(notice()).code == "no_session_bus"
        with notification_session() as second:
            environ.update(second.environ)
            assert sending.send(notice("again")).outcome == "delivered"
            assert [shown.title for shown in second.history()] == ["again"]
            assert second.next_asked("Notify").values[1] == 0


@contextmanager
def mute_bus(path: Path) -> Iterator[None]:
    """A bus that lets one client in and says nothing more."""
    with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor(1) as pool:
        listening.bind(str(path))
        listening.listen()
        accepted = pool.submit(authenticate, listening)
        yield
        accepted.result(DEADLINE).close()


def authenticate(listening: socket.socket) -> socket.socket:
    connection, _ = listening.accept()
    heard = b""
    while b"\r\n" not in heard:
        heard += connection.recv(1024)
    connection.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
    return connection
