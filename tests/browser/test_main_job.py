"""The main job end to end: an app posts over HTTP, a user in a real browser sees it, reads it, acts on it."""

from __future__ import annotations

import re

from tests.support.browser import ME, Screen
from tests.support.server_process import ServerProcess, eventually

NONE_UNREAD = "Notifications, none unread"
ONE_UNREAD = "Notifications, 1 unread"


def post(server: ServerProcess, title: str, **more: object) -> str:
    """Send the local user a notification as another app does; return its id."""
    answer = server.api(
        "POST", "/api/notifications/send", {"user_id": ME, "title": title, "message": "All good", **more}
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["notification_id"])


def test_a_posted_notification_arrives_live_and_reading_it_clears_the_badge(
    server: ServerProcess, screen: Screen
) -> None:
    notification_id = post(server, "Build finished")

    screen.click("button", ONE_UNREAD)
    screen.click("button", re.compile("Build finished"))

    screen.find("button", NONE_UNREAD)
    read = server.api("GET", f"/api/notifications/{notification_id}").json()["notification"]
    assert read["status"] == "read"
    assert read["read_at"] is not None


def test_a_notification_read_elsewhere_leaves_the_badge_of_an_open_window(
    server: ServerProcess, screen: Screen
) -> None:
    notification_id = post(server, "Disk almost full")
    screen.find("button", ONE_UNREAD)

    assert server.api("POST", f"/api/notifications/read/{notification_id}").status_code == 200

    screen.find("button", NONE_UNREAD)


def test_a_double_click_on_the_bell_opens_one_panel(server: ServerProcess, screen: Screen) -> None:
    post(server, "Build finished")

    screen.find("button", ONE_UNREAD).dblclick()
    screen.click("button", re.compile("Build finished"))
    screen.find("button", NONE_UNREAD)

    # A second one would still lie over the page, and keep the bell from being reached.
    screen.click("button", NONE_UNREAD)
    screen.find("button", "View all")


def test_mark_all_read_and_its_undo_reach_the_store(server: ServerProcess, screen: Screen) -> None:
    for title in ("One", "Two", "Three"):
        post(server, title)
    screen.click("button", "Notifications, 3 unread")

    def unread() -> int:
        return int(server.api("GET", f"/api/notifications/user/{ME}").json()["unread_count"])

    screen.click("button", "Mark all read")
    eventually(lambda: unread() == 0, what="the inbox to be read")
    screen.click("button", re.compile("^Undo"))
    eventually(lambda: unread() == 3, what="the inbox to be unread again")


def test_a_preference_switched_off_in_settings_holds_for_the_api(server: ServerProcess, screen: Screen) -> None:
    declared = server.api("POST", "/api/notification-types", {"name": "builds", "label": "Builds"})
    assert declared.status_code == 201, declared.text
    screen.click("button", re.compile("^Settings"))
    screen.expect_checked("switch", "Builds by In app", True)

    screen.click("switch", "Builds by In app")

    def in_app() -> bool:
        matrix = server.api("GET", f"/api/notifications/preferences/{ME}").json()["types"]
        return next(row for row in matrix if row["name"] == "builds")["channels"]["in_app"]

    eventually(lambda: not in_app(), what="the preference to be stored")
    screen.expect_checked("switch", "Builds by In app", False)
    sent = server.api(
        "POST", "/api/notifications/send", {"user_id": ME, "title": "t", "message": "m", "notification_type": "builds"}
    )
    assert [delivery["status"] for delivery in sent.json()["deliveries"]] == ["suppressed"]
