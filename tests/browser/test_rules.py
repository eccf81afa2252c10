"""Rules in a real browser, with a real server process: create, fire, dry run and delete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.test_settings import write
from tests.support.api_client import RULES, ok, track
from tests.support.browser import Screen, browsing
from tests.support.real_parts import require
from tests.support.server_process import ServerProcess, eventually, serving

ME = "ada"
TALL = 3400
"""Large enough for the whole screen: parts scrolled out of view are not in the semantics tree."""


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
        window.find("button", "Add a rule")
        yield window
    assert window.strays == [], "requests left this machine"
    assert window.noise == [], "the browser's console shows errors"


def test_a_rule_made_in_the_form_notifies_me_and_its_row_refreshes(server: ServerProcess, screen: Screen) -> None:
    screen.click("button", "Add a rule")
    write(screen, "Activity type", "checkout_failed")
    write(screen, "Times", "3")
    screen.click("button", "Save the new rule")
    screen.read("This is required.")
    write(screen, "Title", "Trouble")
    write(screen, "Message", "{user_id} cannot pay")
    screen.click("button", "Save the new rule")
    screen.read("This is required where times is more than 1.")
    write(screen, "Within minutes", "10")
    screen.click("button", "Save the new rule")

    screen.read("When checkout_failed happens 3 times within 10 min")
    screen.read("Notifies you with “Trouble”, at most once an hour")
    screen.read("Has not fired yet")
    for _ in range(4):
        track(server, "bob", "checkout_failed")
    screen.read("Fired once, last just now")
    screen.find("button", "Notifications, 1 unread")
    (notice,) = ok(server.api("GET", f"/api/notifications/user/{ME}"))["notifications"]
    assert (notice["title"], notice["message"]) == ("Trouble", "bob cannot pay")

    screen.click("button", "Dry run: checkout_failed")
    screen.read("Would have fired once in the last 7 days.")
    screen.click("switch", "Rule checkout_failed")
    eventually(lambda: not ok(server.api("GET", f"{RULES}/checkout_failed"))["rule"]["enabled"])
    screen.click("button", "Delete: checkout_failed")
    screen.click("button", "Delete for good: checkout_failed")
    screen.read("No rules yet.")
    assert ok(server.api("GET", RULES))["rules"] == []


def test_a_rule_that_an_app_makes_or_switches_appears_by_itself(server: ServerProcess, screen: Screen) -> None:
    body = {"name": "exports", "on": {"activity_type": "export"}, "send": {"title": "t", "message": "m"}}
    ok(server.api("POST", RULES, body), 201)
    screen.read("When export happens")
    screen.expect_checked("switch", "Rule exports", True)
    ok(server.api("PUT", f"{RULES}/exports", body | {"enabled": False}))
    screen.expect_checked("switch", "Rule exports", False)
