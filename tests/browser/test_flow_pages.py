"""Pages of a .flow file in a real browser: navigation, rows, forms, reload, errors, the narrow layout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.api_client import ok, track
from tests.support.browser import DEADLINE, ENVIRONMENT, ME, Beginning, Screen
from tests.support.real_parts import require
from tests.support.server_process import ServerProcess, serving

SITE = """
model Product { id: integer primary auto  name: string required  price: decimal required  size: string enum:small,big }

page Shop {
  title: "Shop"
  route: "/shop"  auth: admin
  header { h1 "Hello " + current_user.name  notification_bell { user_id: current_user.id } }
  row {
    section "Users" { chart users { type: area  data: daily_active_users { days: 7 } } }
    section "Visits" { chart visits { type: bar  data: pages } }
  }
  section "New product" { form product { fields: [name, price, size]  model: Product } }
  table products {
    columns: [name, price, size, id]  data: all_products  sort: price desc
    on_row_click: {
      track_activity: { user_id: current_user.id  activity_type: "product_view" }
      send_notification: { user_id: admin_users  title: "Viewed " + product.name  message: "Again"  channel: "in_app" }
    }
  }
  table activity { columns: [activity_type, timestamp]  data: recent_user_activities }
}
page Mine { title: "My notifications"  route: "/settings"  notification_settings { user_id: current_user.id } }
page Third { title: "Third"  text "The third page" }
"""


@pytest.fixture(scope="module")
def beginning() -> Beginning:
    return Beginning("Dashboard", height=1600)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flow") / "site.flow"
    path.write_text(SITE)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Iterator[ServerProcess]:
    require("chromium")
    with serving(tmp_path_factory.mktemp("server") / "data", str(site), ui=True, env=ENVIRONMENT) as running:
        yield running


@pytest.fixture
def shop(screen: Screen, site: Path) -> Iterator[Screen]:
    """The page of the file as it was first."""
    site.write_text(SITE)
    screen.click("button", re.compile("^Shop Tab"))
    screen.find("button", "Save: Product")
    yield screen
    site.write_text(SITE)
    screen.find("button", re.compile("^Shop Tab"))


def add(shop: Screen, name: str, price: str) -> None:
    """Save a product in the form."""
    shop.write("Name *", name)
    shop.write("Price *", price)
    shop.click("button", "Save: Product")
    shop.read("Saved.")


def test_a_page_is_in_the_navigation_and_at_its_address(server: ServerProcess, shop: Screen) -> None:
    assert shop.page.url == f"{server.url}/shop"
    shop.read(f"Hello {ME}")
    shop.click("button", re.compile("^My notifications Tab"))
    shop.find("switch", "All notifications by E-mail")
    assert shop.page.url == f"{server.url}/pages/settings"
    shop.open(f"{server.url}/third")
    shop.read("The third page")
    shop.open(f"{server.url}/settings")
    shop.find("switch", "Quiet hours")


def test_charts_and_tables_follow_activities(server: ServerProcess, shop: Screen) -> None:
    shop.read("No data yet.")
    track(server, ME, "page_view", page_url="/lamps")
    shop.find("img", re.compile("^Users: area chart from .*last 1, highest 1"))
    shop.read("/lamps: Count 1")
    shop.read("Activity type: page_view, Timestamp: just now")


def test_a_saved_form_adds_a_row_and_a_refused_one_keeps_its_input(shop: Screen) -> None:
    shop.write("Name *", "Lamp")
    shop.write("Price *", "cheap")
    shop.click("button", "Save: Product")
    shop.read("This must be a number.")
    expect(shop.find("textbox", "Name *")).to_have_value("Lamp", timeout=DEADLINE)
    shop.write("Price *", "40")
    shop.click("button", "Save: Product")
    shop.read("Saved.")
    shop.find("button", re.compile("^Name: Lamp, Price: 40"))


def test_a_pressed_row_sends_a_notification_that_the_bells_show(server: ServerProcess, shop: Screen) -> None:
    add(shop, "Chair", "12.50")
    row = shop.find("button", re.compile("^Name: Chair"))
    row.focus()
    shop.page.keyboard.press("Enter")
    shop.read("Recorded 1 activity. Sent 1 notification.")
    shop.find("button", "Notifications, 1 unread")
    (notice,) = ok(server.api("GET", f"/api/notifications/user/{ME}"))["notifications"]
    assert notice["title"] == "Viewed Chair"
    shop.read("Activity type: product_view")


def test_a_pressed_header_sorts(shop: Screen) -> None:
    add(shop, "Anvil", "1")
    add(shop, "Zither", "2000")
    first = shop.page.get_by_role("button", name=re.compile("^Name: ")).first
    expect(first).to_have_accessible_name(re.compile("Zither"), timeout=DEADLINE)
    shop.click("button", "Sort by Name")
    shop.find("button", "Sort by Name, sorted ascending")
    expect(first).to_have_accessible_name(re.compile("Anvil"), timeout=DEADLINE)


def test_a_changed_file_changes_the_open_page_and_keeps_the_input(shop: Screen, site: Path) -> None:
    shop.write("Name *", "Half a na")
    site.write_text(
        SITE.replace('"Hello "', '"Good morning "')
        .replace('title: "Shop"', 'title: "Store"')
        .replace("page Third", "page New")
    )
    shop.read(f"Good morning {ME}")
    shop.find("button", re.compile("^Store Tab"))
    shop.click("textbox", "Name *")  # Flutter fills in the element of a field that has the focus only
    expect(shop.find("textbox", "Name *")).to_have_value("Half a na", timeout=DEADLINE)


def test_a_page_that_is_removed_leaves_the_navigation_and_says_so(shop: Screen, site: Path) -> None:
    site.write_text(SITE.replace("page Shop", "page Gone").replace('"/shop"', '"/gone"'))
    shop.read("This page is gone")
    site.write_text(SITE)
    shop.read(f"Hello {ME}")


def test_a_broken_file_shows_its_error_until_it_is_mended(shop: Screen, site: Path) -> None:
    site.write_text(SITE.replace("type: area", "type: pie"))
    line = next(n for n, text in enumerate(SITE.splitlines(), 1) if "type: area" in text)
    shop.read("1 error in the .flow files. The last valid version stays in use.")
    shop.read(f"site.flow:{line}:")
    shop.read("“pie” is not a value of “type”")
    shop.find("button", "Save: Product")
    site.write_text(SITE)
    expect(shop.page.get_by_text("The last valid version stays in use.")).to_have_count(0, timeout=DEADLINE)


def test_a_narrow_page_has_cards_and_the_other_pages_behind_more(shop: Screen) -> None:
    add(shop, "Desk", "300")
    wide = shop.page.viewport_size
    assert wide is not None
    try:
        shop.page.set_viewport_size({"width": 390, "height": 2200})
        shop.find("button", "Sorted by Price: Products")
        shop.find("button", re.compile("^Name: Desk, Price: 300"))
        shop.click("tab", "More")
        shop.click("button", "Third")
        shop.read("The third page")
    finally:
        shop.page.set_viewport_size(wide)
        shop.find("button", re.compile("^Shop Tab"))
