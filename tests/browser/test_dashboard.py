"""The dashboard in a real browser: apps post activities over HTTP, and the metrics change live."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.browser import DEADLINE, Beginning, Screen
from tests.support.server_process import ServerProcess, eventually


@pytest.fixture(scope="module")
def beginning() -> Beginning:
    return Beginning("Dashboard", height=3200)


@pytest.fixture
def _default_selection(screen: Screen) -> Iterator[None]:
    """Go back to the period and the metric that a new page shows; the page keeps them across screens."""
    yield
    screen.click("checkbox", "7 days")
    screen.click("checkbox", "Activities")
    if not screen.is_checked("switch", "vs previous"):
        screen.click("switch", "vs previous")
    screen.expect_checked("switch", "vs previous", True)


def track(server: ServerProcess, user_id: str, activity_type: str, **more: Any) -> None:
    """Post an activity as another app does."""
    body = {"user_id": user_id, "activity_type": activity_type, **more}
    assert server.api("POST", "/api/activity/track", body).status_code == 201


def visit(server: ServerProcess, user_id: str, *types: str) -> None:
    for kind in types:
        page = {"page_url": "/pricing"} if kind == "page_view" else {}
        track(server, user_id, kind, **page)


def chosen(screen: Screen, name: str) -> None:
    """Wait until a chip is shown as selected."""
    expect(screen.find("checkbox", name)).to_have_attribute("aria-checked", "true", timeout=DEADLINE)


def test_posted_activities_change_tiles_trend_and_lists_live(server: ServerProcess, screen: Screen) -> None:
    screen.read("Activities: 0 in 7 days")
    screen.read("No activities yet")

    visit(server, "bob", "page_view", "search", "page_view")

    screen.read("Activities: 3 in 7 days, new")
    screen.find("img", re.compile("^Activities from .*last 3, highest 3"))
    screen.find("img", re.compile("^When: Busiest: .* with 3 activities"))
    screen.read("/pricing: 2 activities, 100 %")
    screen.read("search: 1 activity, 100 %")
    screen.read("Retention: 1 new user in 1 cohort")

    line = screen.find("img", re.compile("^Activities from"))
    line.hover(timeout=DEADLINE)  # which has the chart drawn again

    track(server, "carla", "search")

    screen.read("Activities: 4 in 7 days")
    screen.read("Active users: 2 in 7 days")
    screen.find("img", re.compile("^Activities from .*last 4"))


@pytest.mark.usefixtures("_default_selection")
def test_the_period_and_the_trends_metric_are_kept(server: ServerProcess, screen: Screen) -> None:
    visit(server, "bob", "page_view", "search")
    screen.read("Activities: 2 in 7 days")

    screen.click("checkbox", "28 days")
    screen.read("Activities: 2 in 28 days, new")
    screen.click("checkbox", "28 days")  # what is chosen stays so
    chosen(screen, "28 days")
    screen.click("switch", "vs previous")
    expect(screen.read("Activities: 2 in 28 days")).not_to_have_text(re.compile("new"), timeout=DEADLINE)
    screen.click("checkbox", "Active users")
    screen.find("img", re.compile("^Active users from .*last 1, highest 1"))

    screen.click("button", re.compile("^Notifications Tab"))
    screen.find("checkbox", re.compile("^Unread"))
    screen.click("button", re.compile("^Dashboard"))
    chosen(screen, "28 days")
    screen.expect_checked("switch", "vs previous", False)

    screen.click("checkbox", "Today")
    screen.read("Activities: 2 today")
    screen.find("img", re.compile("^Activities from 00:00"))


def test_a_metric_has_a_definition(server: ServerProcess, screen: Screen) -> None:
    screen.click("button", "Explain “Engagement rate”")
    screen.read("The share of sessions that lasted over 10 seconds")
    screen.click("button", "Close")


def test_a_profile_opens_from_the_list_and_the_browser_goes_back(server: ServerProcess, screen: Screen) -> None:
    visit(server, "bob", "page_view", "search")

    screen.click("button", re.compile("^bob, last seen today, 2 activities, engagement score"))

    screen.read("Sessions: 1 in total")
    screen.read("Most visited pages")
    screen.read("search, local, just now")
    visit(server, "bob", "purchase")
    screen.read("Activities: 3")
    screen.read("purchase, local, just now")

    screen.page.go_back()
    screen.find("switch", "vs previous")
    screen.read("Activities: 3 in 7 days")


def test_an_unknown_user_gets_a_command_that_records_an_activity(server: ServerProcess, screen: Screen) -> None:
    screen.open(f"{server.url}/users/nobody%2Fhere")
    screen.read("No activities of this user")
    screen.click("button", "Back")
    screen.find("switch", "vs previous")


def test_a_funnel_is_built_from_existing_types_and_lists_users_who_dropped_out(
    server: ServerProcess, screen: Screen
) -> None:
    visit(server, "bob", "page_view", "checkout")
    visit(server, "carla", "page_view")

    screen.read("Activities: 3 in 7 days")  # a menu that is open takes in a type that comes meanwhile
    screen.click("button", "Step 1 of the funnel: not chosen")
    screen.click("menuitem", "page_view")
    screen.click("button", "Step 2 of the funnel: not chosen")
    screen.click("menuitem", "checkout")

    screen.read("page_view: 2 users, 100 %")
    screen.read("checkout: 1 user, 50 %, 50 % of the step before")
    screen.click("button", "Show users who dropped out before step 2")
    screen.click("button", "Open carla")
    screen.read("Activities: 1")
    screen.find("button", "Back")


def test_a_key_activity_is_marked_in_settings(server: ServerProcess, screen: Screen) -> None:
    visit(server, "bob", "signup")
    screen.click("button", re.compile("^Settings"))
    screen.expect_checked("switch", "Key activity: signup", False)

    screen.click("switch", "Key activity: signup")

    def marked() -> bool:
        rows = server.api("GET", "/api/activity-types").json()["activity_types"]
        return [row for row in rows if row["name"] == "signup"] == [{"name": "signup", "key": True}]

    eventually(marked, what="the type to be a key activity")
    screen.expect_checked("switch", "Key activity: signup", True)


def test_a_key_activity_marked_by_an_app_shows_in_settings_and_on_the_dashboard(
    server: ServerProcess, screen: Screen
) -> None:
    visit(server, "bob", "checkout")
    screen.read("Engagement rate: 0 %")
    assert server.api("POST", "/api/activity-types", {"name": "checkout", "key": True}).status_code == 200
    screen.read("Engagement rate: 100 %")

    screen.click("button", re.compile("^Settings"))
    screen.expect_checked("switch", "Key activity: checkout", True)
    assert server.api("POST", "/api/activity-types", {"name": "checkout", "key": False}).status_code == 200
    screen.expect_checked("switch", "Key activity: checkout", False)
