"""Settings in a real browser, with a real server process and a real SMTP server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import TimeoutError as TooLate

from tests.support.browser import DEADLINE, Screen, browsing
from tests.support.real_parts import require
from tests.support.server_process import ServerProcess, eventually, serving
from tests.support.smtp_server import SmtpServer, smtp_server

ME = "ada"
TALL = 2600
"""Large enough for the whole screen: parts scrolled out of view are not in the semantics tree."""
FOCUSED = "name => document.activeElement?.tagName === 'INPUT' && document.activeElement.ariaLabel === name"
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Flutter reads a focused field two frames after the page focused it; earlier input is lost."""
HOLDS = "text => document.activeElement?.value === text"


@pytest.fixture
def mail() -> Iterator[SmtpServer]:
    with smtp_server(credentials=("ada", "right")) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    require("chromium")
    with serving(tmp_path / "data", ui=True, env={"FLASHFLOW_USER": ME, "FLASHFLOW_KEYRING": "off"}) as running:
        yield running


@pytest.fixture
def screen(server: ServerProcess) -> Iterator[Screen]:
    with browsing(height=TALL) as window:
        window.open(server.launch_link)
        window.click("button", re.compile("^Settings"))
        window.find("switch", "Quiet hours")
        yield window
    assert window.strays == [], "requests left this machine"
    assert window.noise == [], "the browser's console shows errors"


def write(screen: Screen, label: str, text: str) -> None:
    """Type into a field once it has the focus; retry if it moves because something above it opened or closed."""
    end = time.monotonic() + DEADLINE / 1000
    while time.monotonic() < end:
        screen.click("textbox", label)
        with suppress(TooLate):
            screen.page.wait_for_function(FOCUSED, arg=label, timeout=2_000)
            screen.page.evaluate(TWO_FRAMES)
            screen.page.keyboard.press("Control+a")
            screen.page.keyboard.type(text, delay=10)
            screen.page.wait_for_function(HOLDS, arg=text, timeout=2_000)
            return
    raise AssertionError(f"{label} could not be filled in")


def set_up_email(screen: Screen, mail: SmtpServer, password: str) -> None:
    screen.click("button", "Set up: E-mail")
    write(screen, "Mail server", mail.host)
    write(screen, "Port", str(mail.port))
    screen.click("radio", "None")
    write(screen, "User name", "ada")
    write(screen, "Password", password)
    write(screen, "Sender", "FlashFlow <flash@example.test>")
    screen.click("button", "Save: E-mail")
    said = re.compile(r"E-mail: set up|This is required with a username\.")
    screen.page.get_by_text(said).or_(screen.page.get_by_label(said)).first.wait_for(state="attached", timeout=DEADLINE)
    if screen.page.get_by_text("This is required with a username.").count():
        # Typed while the cursor was still on its way: it stood in the browser's field and went no further.
        write(screen, "Password", password)
        screen.click("button", "Save: E-mail")
    screen.read("E-mail: set up")


def give_address(server: ServerProcess) -> None:
    told = server.api("POST", f"/api/users/{ME}/contacts", {"email": "ada@example.test"})
    assert told.status_code == 200, told.text


def post(server: ServerProcess, title: str, **more: object) -> str:
    body = {"user_id": ME, "title": title, "message": "All good", "channels": ["email"], **more}
    answer = server.api("POST", "/api/notifications/send", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["notification_id"])


def show(screen: Screen, title: str) -> None:
    """Open a notification's detail from the list of all: the bell shows no mail-only ones."""
    screen.click("button", re.compile("^Notifications, "))
    screen.click("button", "View all")
    screen.click("checkbox", "All")
    screen.click("button", re.compile(f"^{title}"))
    screen.read("Why you got this")


def test_contacts_are_saved_in_their_normalised_form(server: ServerProcess, screen: Screen) -> None:
    write(screen, "My e-mail address", "ada")
    screen.click("button", "Save my addresses")
    screen.read("This is not one e-mail address")

    write(screen, "My e-mail address", "ada@example.test")
    write(screen, "My phone number", "+49 (30) 123-4567")
    screen.click("button", "Save my addresses")

    screen.read("Saved")
    contacts = server.api("GET", f"/api/users/{ME}/contacts").json()["contacts"]
    assert (contacts["email"], contacts["phone"]) == ("ada@example.test", "+49301234567")


def test_email_set_up_in_the_form_is_tested_with_its_true_outcome(
    server: ServerProcess, screen: Screen, mail: SmtpServer
) -> None:
    set_up_email(screen, mail, "wrong")
    screen.click("button", "Send a test: E-mail")
    screen.read("You have no e-mail address")

    give_address(server)
    screen.read("E-mail reaches you")
    screen.click("button", "Send a test: E-mail")
    screen.read("535 5.7.8")
    screen.read("Refused · ")
    assert mail.mails == []

    screen.click("button", "Change: E-mail")
    write(screen, "Password", "right")
    screen.click("button", "Save: E-mail")
    screen.click("button", "Send a test: E-mail")
    screen.read("Accepted · ")
    assert [m.message["Subject"] for m in mail.mails] == ["A test from FlashFlow"]
    kept = (server.data_dir / "flashflow.toml").read_text("utf-8")
    assert f"port = {mail.port}" in kept, "a changed password leaves the rest as it was"

    screen.click("button", "Change: E-mail")
    screen.click("button", "Remove…")
    screen.click("button", "Remove")
    screen.read("E-mail: not set up")
    screen.find("button", "Set up: E-mail")


def test_the_form_shows_each_mistake_at_its_field(server: ServerProcess, screen: Screen) -> None:
    screen.click("button", "Set up: E-mail")
    write(screen, "Mail server", "mail.example.test")
    write(screen, "Port", "many")
    write(screen, "User name", "ada")
    screen.click("radio", "None")
    screen.click("button", "Save: E-mail")
    screen.read("This must be a whole number.")
    screen.read("This is required.")
    assert not (server.data_dir / "flashflow.toml").exists(), "nothing is kept of a refused form"


def test_an_apprise_url_becomes_a_channel(server: ServerProcess, screen: Screen) -> None:
    screen.click("button", "Add another service…")
    write(screen, "Name", "My hook")
    write(screen, "Apprise URL", "json://127.0.0.1:1/hook")
    screen.click("button", "Save: another service")
    screen.read("The name must start with a letter")
    write(screen, "Name", "hook")
    screen.click("button", "Save: another service")
    screen.find("switch", "All notifications by hook")
    screen.click("button", "Send a test: hook")
    screen.read("Temporary failure · ")


def test_quiet_hours_set_here_hold_a_notification_which_says_until_when(
    server: ServerProcess, screen: Screen, mail: SmtpServer
) -> None:
    give_address(server)
    set_up_email(screen, mail, "right")
    now = datetime.now(UTC)
    start, end = f"{now - timedelta(hours=1):%H:%M}", f"{now + timedelta(hours=3):%H:%M}"

    write(screen, "From", start)
    write(screen, "To", end)
    write(screen, "Time zone", "UTC")
    screen.click("switch", "Quiet hours")

    screen.read("E-mail waits")
    screen.read(f"Quiet hours until {end} (UTC).")
    notification_id = post(server, "Build finished")
    show(screen, "Build finished")
    screen.read("Held for later · ")
    screen.read(f"Quiet hours until {end} (UTC).")
    screen.read("Will be sent ")
    held = server.api("GET", f"/api/notifications/{notification_id}").json()["notification"]["deliveries"]
    assert [delivery["release_at"][11:16] for delivery in held] == [end]
    assert mail.mails == []


def test_digests_and_critical_types_are_set_by_type(server: ServerProcess, screen: Screen, mail: SmtpServer) -> None:
    give_address(server)
    set_up_email(screen, mail, "right")
    server.api("POST", "/api/notification-types", {"name": "builds", "label": "Builds", "description": "From CI"})
    screen.click("button", "Builds: Every one")
    screen.click("menuitemcheckbox", "Digest, every hour")
    screen.find("button", "Builds: Hourly")
    post(server, "Build finished", notification_type="builds")
    show(screen, "Build finished")
    screen.read("Waits for the hourly digest.")
    assert mail.mails == []
    screen.click("button", "Send the digest now")
    mail.wait_until(lambda: len(mail.mails) == 1, "the mail")

    screen.click("button", re.compile("^Settings"))
    screen.click("switch", "Builds is critical: passes quiet hours")
    screen.expect_checked("switch", "Builds is critical: passes quiet hours", True)

    def builds() -> dict[str, Any]:
        kinds = server.api("GET", "/api/notification-types").json()["notification_types"]
        return next(kind for kind in kinds if kind["name"] == "builds")

    eventually(lambda: builds()["critical"], what="the type to be critical")  # the switch turns before the COMMIT
    assert builds()["description"] == "From CI"
    post(server, "Build broke", notification_type="builds")
    mail.wait_until(lambda: len(mail.mails) == 2, "the mail that passes the digest")


def test_a_device_can_be_removed(server: ServerProcess, screen: Screen) -> None:
    phone = {"user_id": ME, "token": "t" * 40, "platform": "android", "device_info": {"name": "Old phone"}}
    assert server.api("POST", "/api/devices/register", phone).status_code == 201
    screen.click("button", "Remove: Android phone · Old phone")
    screen.click("button", "Remove for good: Android phone · Old phone")

    def names() -> list[str]:
        devices = server.api("GET", f"/api/devices/user/{ME}").json()["devices"]
        return [device["device_info"].get("name") for device in devices]

    eventually(lambda: "Old phone" not in names(), what="the device to be gone")


def test_an_invalid_settings_file_is_shown_at_the_top(server: ServerProcess, screen: Screen) -> None:
    path = server.data_dir / "flashflow.toml"
    path.write_text("[channels.email]\nhost = 5\n", encoding="utf-8")
    screen.read(f"{path} is not valid")
    path.write_text("allow_hosts = []\n", encoding="utf-8")
    gone = screen.page.get_by_text(re.compile("cannot be used as it stands"))
    eventually(lambda: gone.count() == 0, what="the warning to go")
