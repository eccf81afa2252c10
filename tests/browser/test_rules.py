"""Rules in a real browser, with a real server process: create, fire, dry run and delete."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.api_client import RULES, ok, track
from tests.support.browser import ME, Beginning, Screen
from tests.support.server_process import ServerProcess, eventually


@pytest.fixture(scope="module")
def beginning() -> Beginning:
    return Beginning("Settings", height=3400)


@pytest.fixture(autouse=True)
def _no_rules(server: ServerProcess) -> Iterator[None]:
    yield
    for rule in ok(server.api("GET", RULES))["rules"]:
        ok(server.api("DELETE", f"{RULES}/{rule['name']}"))


def test_a_rule_made_in_the_form_notifies_me_and_its_row_refreshes(server: ServerProcess, screen: Screen) -> None:
    screen.click("button", "Add a rule")
    screen.write("Activity type", "checkout_failed")
    screen.write("Times", "3")
    screen.click("button", "Save the new rule")
    screen.read("This is required.")
    screen.write("Title", "Trouble")
    screen.write("Message", "{user_id} cannot pay")
    screen.click("button", "Save the new rule")
    screen.read("This is required where times is more than 1.")
    screen.write("Within minutes", "10")
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
