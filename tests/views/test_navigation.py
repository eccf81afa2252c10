"""Addresses of screens and of pages of .flow files, and the rail and the bar that lead to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import flet as ft
import pytest

from flashflow.backend import declarations
from flashflow.backend.flow.language.errors import Place
from flashflow.views.navigation import (
    BAR_MOST,
    DASHBOARD,
    NOTIFICATIONS,
    PAGE,
    PLACES,
    RAIL_WIDTH,
    SETTINGS,
    USER,
    USERS,
    Navigation,
    address_of,
    parse,
)
from tests.support.control_tree import named, texts

pytestmark = pytest.mark.anyio

HERE = Place("site.flow", 1, 1)


def page(route: str, title: str = "") -> declarations.Page:
    return declarations.Page("p", title or route, route, None, (), HERE)


def labels(of: ft.NavigationRail | ft.NavigationBar) -> list[str]:
    return [one.label.value if isinstance(one.label, ft.Text) else str(one.label) for one in of.destinations]


def test_routes_name_a_screen_and_a_notification_or_a_user() -> None:
    assert parse("/") == (DASHBOARD, None)
    assert parse("/nowhere") == (DASHBOARD, None)
    assert parse("/notifications") == (NOTIFICATIONS, None)
    assert parse("/notifications/n%2F1?x=1") == (NOTIFICATIONS, "n/1")
    assert parse("/settings") == (SETTINGS, None)
    assert parse("/users") == (USERS, None)
    assert parse("/users/a%2Fb") == (USER, "a/b")


def test_a_page_is_found_at_its_declared_route_where_flashflow_does_not_use_it() -> None:
    pages = [page("/dashboard"), page("/admin/analytics"), page("/settings"), page("/"), page("/users/new")]
    assert parse("/dashboard", pages) == (PAGE, "/dashboard")
    assert parse("/dashboard/?a=1", pages) == (PAGE, "/dashboard")
    assert parse("/admin/analytics", pages) == (PAGE, "/admin/analytics")
    assert parse("/admin", pages) == (DASHBOARD, None)
    assert parse("/settings", pages) == (SETTINGS, None)
    assert parse("/", pages) == (DASHBOARD, None)
    assert parse("/users/new", pages) == (USER, "new")


def test_every_page_is_found_below_pages_and_at_its_address() -> None:
    pages = [page(route) for route in ("/dashboard", "/settings", "/", "/users/new", "/pages/x", "/api", "/launch/x")]
    for one in pages:
        assert parse(f"/pages{one.route}", pages) == (PAGE, one.route)
        assert parse(address_of(one.route), pages) == (PAGE, one.route)
    assert address_of("/dashboard") == "/dashboard"
    assert [address_of(one.route) for one in pages[1:]] == [f"/pages{one.route}" for one in pages[1:]]
    assert parse("/pages/unknown", pages) == (DASHBOARD, None)


def test_the_bar_shows_five_destinations_at_most_and_the_rail_all() -> None:
    navigation = Navigation(lambda _: None)
    assert labels(navigation.bar) == labels(navigation.rail) == [place.label for place in PLACES]
    pages = [page(f"/p{n}") for n in range(2)]
    navigation.set_pages(pages)
    assert labels(navigation.bar) == [*(place.label for place in PLACES), "/p0", "/p1"]
    navigation.set_pages([*pages, page("/p2")])
    assert labels(navigation.bar) == [*(place.label for place in PLACES), "/p0", "More"]
    assert len(navigation.bar.destinations) == BAR_MOST
    assert labels(navigation.rail)[3:] == ["/p0", "/p1", "/p2"]
    navigation.set_pages(())
    assert len(labels(navigation.bar)) == len(labels(navigation.rail)) == len(PLACES)


def test_a_page_behind_more_marks_more_and_in_the_rail_itself() -> None:
    navigation = Navigation(lambda _: None)
    navigation.set_pages([page(f"/p{n}") for n in range(4)])
    navigation.select(PAGE, "/p3")
    assert (navigation.rail.selected_index, navigation.bar.selected_index) == (6, 4)
    navigation.select(PAGE, "/p0")
    assert (navigation.rail.selected_index, navigation.bar.selected_index) == (3, 3)
    navigation.select(USER, None)
    assert (navigation.rail.selected_index, navigation.bar.selected_index) == (DASHBOARD, DASHBOARD)
    navigation.select(PAGE, "/p3")
    navigation.set_pages([page("/p0")])
    assert (navigation.rail.selected_index, navigation.bar.selected_index) == (3, 3)


async def test_more_lists_the_other_pages_and_opens_one() -> None:
    gone: list[str] = []
    navigation = Navigation(gone.append)
    navigation.set_pages([page(f"/p{n}", f"Page {n}") for n in range(3)])
    shown: list[Any] = []
    window = SimpleNamespace(update=lambda: None, show_dialog=shown.append, pop_dialog=shown.clear)
    navigation.bar.selected_index = 4  # as the page reports it
    await navigation._chosen_in_bar(SimpleNamespace(control=navigation.bar, page=window))  # type: ignore[arg-type]
    assert (gone, navigation.bar.selected_index) == ([], DASHBOARD)
    (sheet,) = shown
    assert [text for text in texts(sheet) if text.startswith("Page")] == ["Page 1", "Page 2"]
    await named(sheet, "Page 2").on_click(None)
    assert (gone, shown) == (["/p2"], [])


def test_a_hostile_title_widens_neither_rail_nor_bar() -> None:
    navigation = Navigation(lambda _: None)
    navigation.set_pages([page("/x", "\u202e" + "W" * 5000 + "\n\x00")])
    label = navigation.rail.destinations[3].label
    assert isinstance(label, ft.Text)
    assert (label.width, label.max_lines) == (RAIL_WIDTH - 8, 2)
    assert len(labels(navigation.rail)[3]) == 40
    assert len(labels(navigation.bar)[3]) == 12


def test_unchanged_pages_change_no_control() -> None:
    navigation = Navigation(lambda _: None)
    navigation.set_pages([page("/x")])
    known = navigation.rail.destinations
    navigation.set_pages([page("/x")])
    assert navigation.rail.destinations is known
