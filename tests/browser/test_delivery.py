"""Delivery in a real browser, with a real server process and a real SMTP server that can fail."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.browser import ENVIRONMENT, ME, Screen
from tests.support.real_parts import require
from tests.support.server_process import ServerProcess, eventually, serving
from tests.support.smtp_server import SmtpServer, smtp_server

NO_SUCH_USER = "550 5.1.1 No such user here"
LATER = "451 4.3.0 Try again later"


@pytest.fixture(scope="module")
def mail_server() -> Iterator[SmtpServer]:
    with smtp_server() as server:
        yield server


@pytest.fixture
def mail(mail_server: SmtpServer) -> SmtpServer:
    """The file's mail server as new."""
    mail_server.behave()
    mail_server.forget_mails()
    return mail_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mail_server: SmtpServer) -> Iterator[ServerProcess]:
    """Configured by its file; the second attempt follows after ten minutes, unless the user retries."""
    require("chromium")
    data = tmp_path_factory.mktemp("server") / "data"
    data.mkdir(mode=0o700)
    (data / "flashflow.toml").write_text(
        f'[channels.email]\nhost = "127.0.0.1"\nport = {mail_server.port}\nsecurity = "none"\n'
        'from = "flash@example.test"\n[delivery]\nmax_attempts = 2\nbase_delay = 3600\nmax_delay = 86400\n',
        encoding="utf-8",
    )
    with serving(data, ui=True, env=ENVIRONMENT) as running:
        yield running


@pytest.fixture(autouse=True)
def _address(server: ServerProcess) -> None:
    answer = server.api("POST", f"/api/users/{ME}/contacts", {"email": "ada@example.test"})
    assert answer.status_code == 200, answer.text


def post(server: ServerProcess, title: str, *channels: str, **more: object) -> str:
    body = {"user_id": ME, "title": title, "message": "All good", "channels": channels, **more}
    answer = server.api("POST", "/api/notifications/send", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["notification_id"])


def as_bytes(frame: str | bytes) -> bytes:
    return frame if isinstance(frame, bytes) else frame.encode()


def show(screen: Screen, title: str) -> None:
    """Open a notification's detail from the list of all: the bell shows no mail-only ones."""
    screen.click("button", re.compile("^Notifications, "))
    screen.click("button", "View all")
    screen.click("checkbox", "All")
    screen.click("button", re.compile(f"^{title}"))
    screen.read("Why you got this")


def test_a_refused_mail_says_why_and_retry_now_delivers_it(
    server: ServerProcess, screen: Screen, mail: SmtpServer
) -> None:
    mail.misbehave("RCPT", NO_SUCH_USER)
    post(server, "Build finished", "in_app", "email")
    show(screen, "Build finished")
    screen.read("Failed · ")
    screen.read("No such user here")
    assert mail.mails == []

    mail.behave()
    screen.click("button", "Retry now")

    mail.wait_until(lambda: len(mail.mails) == 1, "the mail")
    screen.read("Sent · ")
    screen.read("2 attempts")
    assert mail.mails[0].recipients == ("ada@example.test",)


def test_a_mail_that_waits_for_its_next_attempt_says_when_and_can_be_retried_now(
    server: ServerProcess, screen: Screen, mail: SmtpServer
) -> None:
    mail.misbehave("RCPT", LATER)
    post(server, "Disk almost full", "in_app", "email")
    show(screen, "Disk almost full")
    screen.read("Retrying · ")
    screen.read("Next attempt ")
    screen.read("Try again later")

    screen.click("button", "Retry now")
    screen.read("Failed for good · ")
    assert mail.mails == []

    mail.behave()
    screen.click("button", "Retry now")
    screen.read("Sent · ")
    mail.wait_until(lambda: len(mail.mails) == 1, "the mail")


def test_a_retry_that_is_refused_says_why(server: ServerProcess, screen: Screen) -> None:
    post(server, "Parcel is here", "in_app", "sms")
    show(screen, "Parcel is here")
    screen.read("SMS is not configured.")

    screen.click("button", "Retry now")

    screen.read("Nothing was changed: SMS is not configured.")
    screen.click("button", "Set up in Settings")
    screen.find("switch", "Quiet hours")


def test_a_snoozed_notification_waits_beside_the_others_and_can_be_woken(server: ServerProcess, screen: Screen) -> None:
    notification_id = post(server, "Water the plants", "in_app")

    def place() -> str:
        return str(server.api("GET", f"/api/notifications/{notification_id}").json()["notification"]["inbox"])

    show(screen, "Water the plants")
    screen.click("button", "Snooze")
    screen.click("menuitem", "For 1 hour")
    screen.read("Snoozed until ")
    assert place() == "snoozed"

    screen.click("checkbox", "Snoozed")
    screen.click("button", re.compile("^Water the plants, snoozed"))
    assert place() == "snoozed", "looking at it does not call it back"
    screen.click("button", "Wake now")
    screen.find("button", "Notifications, 1 unread")
    screen.read("Nothing is snoozed")
    screen.click("button", "Archive")
    eventually(lambda: place() == "archived", what="the notification to be archived")


def test_an_open_menu_survives_a_refresh(server: ServerProcess, screen: Screen) -> None:
    notification_id = post(server, "Water the plants", "in_app")
    show(screen, "Water the plants")
    screen.click("button", "Snooze")
    screen.find("menuitem", "For 1 hour")
    with screen.socket.expect_event("framereceived", lambda frame: b"Feed the cat" in as_bytes(frame)):
        post(server, "Feed the cat", "in_app")
    screen.click("menuitem", "For 1 hour")
    screen.read("Snoozed until ")
    found = server.api("GET", f"/api/notifications/{notification_id}").json()["notification"]
    assert found["inbox"] == "snoozed"


def test_do_not_disturb_from_the_bell_holds_until_it_is_ended(
    server: ServerProcess, screen: Screen, mail: SmtpServer
) -> None:
    screen.click("button", "Notifications, none unread")
    screen.click("button", "Do not disturb 1 h")
    screen.find("button", "End do not disturb")
    screen.close_overlays()
    screen.find("button", re.compile(r"^Notifications, none unread, do not disturb until (tomorrow, )?\d\d:\d\d$"))

    post(server, "Lunch is ready", "email")
    show(screen, "Lunch is ready")
    screen.read("Held for later · ")
    screen.read("You do not want to be disturbed now.")
    screen.read("Will be sent ")
    assert mail.mails == []

    screen.click("button", re.compile("^Notifications, none unread, do not disturb"))
    screen.click("button", "End do not disturb")
    screen.find("button", "Do not disturb 1 h")
    post(server, "Dinner is ready", "email")
    mail.wait_until(lambda: any(m.message["Subject"] == "Dinner is ready" for m in mail.mails), "the mail")


def test_an_update_in_place_counts(server: ServerProcess, screen: Screen) -> None:
    for _ in range(3):
        post(server, "Queue is long", "in_app", collapse_key="queue")
    screen.click("button", "Notifications, 1 unread")
    screen.click("button", re.compile("^Queue is long, 3 times, unread"))
    screen.read("×3")
