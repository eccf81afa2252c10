"""Pages of .flow files, built over a real backend and real files without a page of Flet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flet as ft
import flet.canvas as cv
import pytest

from flashflow.backend import Backend, FlowError, FlowProject, declarations
from flashflow.backend.flow.language.errors import Place
from flashflow.backend.flow.language.loader import load
from flashflow.views.controls.notification_bell import NotificationBell
from flashflow.views.controls.notification_settings import NotificationSettings
from flashflow.views.flow import chart as charts
from flashflow.views.flow.cells import Cell, as_number, cell, decimals_of, title_of, value_text
from flashflow.views.flow.chart import ChartPart, Drawing, Series
from flashflow.views.flow.context import READS_AT_ONCE, Rows, result_text
from flashflow.views.flow.form import FormPart
from flashflow.views.flow.inputs import day_of, with_offset
from flashflow.views.flow.problem import problem_banner
from flashflow.views.flow.screen import FlowPage
from flashflow.views.flow.style import Style, parse_style
from flashflow.views.flow.table import PAGE, TablePart
from flashflow.views.shared import plot
from flashflow.views.shared.live import Live
from tests.support.control_tree import named, texts, walk

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=timezone(timedelta(hours=1)))
MODEL = """
model Product {
  id: integer primary auto
  name: string required
  price: decimal required
  size: string enum:small,large default:small
  in_stock: boolean default:true
  available_from: date
  seen_at: timestamp
  details: json
}
"""
FORM = "form product { fields: [name, price, size, in_stock, available_from, seen_at, details]  model: Product }"
TABLE = "table products { columns: [name, price, size]  data: all_products  sort: price desc }"


class Site:
    """A backend with one ``.flow`` file in force."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self.backend = backend
        self.path = folder / "site.flow"
        self.path.write_text("")
        self.flow = FlowProject(backend, [self.path], load)

    def write(self, text: str, *, good: bool = True) -> None:
        self.path.write_text(text)
        self.flow.load()
        assert good == (self.flow.problem is None), self.flow.problem

    def page(self, body: str, *, auth: str = "auth: admin", **options: Any) -> FlowPage:
        """Write a page and build its screen as a refresh does."""
        self.write(MODEL + f'page Site {{ title: "Site" route: "/site" {auth} {body} }}')
        screen = self.screen(**options)
        self.draw(screen)
        return screen

    def screen(self, route: str = "/site", *, wide: bool = True, **options: Any) -> FlowPage:
        live = Live(self.backend.bus, self.backend.me, asyncio.get_running_loop())
        return FlowPage(
            backend=self.backend, live=live, flow=self.flow, route=route, go=lambda _: None, wide=wide, now=lambda: NOW,
            **options,
        )  # fmt: skip

    def draw(self, screen: FlowPage) -> None:
        screen.show(screen.render(screen.load()), "data")

    def add(self, **row: Any) -> None:
        page = next(page for page in self.flow.project.pages)
        form = next(element for element in page.elements if isinstance(element, declarations.Form))
        self.flow.submit(form, row, self.backend.me)


@pytest.fixture
def site(backend: Backend, tmp_path: Path) -> Site:
    return Site(backend, tmp_path)


def only(screen: ft.BaseControl, kind: type[Any]) -> Any:
    (found,) = [control for control in walk(screen) if isinstance(control, kind)]
    return found


def names(control: ft.BaseControl) -> list[str]:
    return [part.label for part in walk(control) if isinstance(part, ft.Semantics) and part.label is not None]


async def loaded(part: Any) -> Any:
    await part.refresh()
    return part


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "number", "–"),
        ("", "text", "–"),
        (1234567, "number", "1,234,567"),
        (12.5, "number", "12.5"),
        (1234.567, "number", "1,234.57"),
        ("19.90", "number", "19.9"),
        ("many", "number", "many"),
        (True, "number", "yes"),
        pytest.param(10**400, "number", "∞", id="googol"),
        (float("inf"), "number", "inf"),
        (1e300, "number", "1e+300"),
        (0.00012, "number", "0.00012"),
        (0.4167, "share", "42 %"),
        (90, "seconds", "1 min 30 s"),
        (-5, "seconds", "-5"),
        ("2026-11-24", "day", "Tue 24 Nov"),
        ("2025-11-24", "day", "Mon 24 Nov 2025"),
        ("2026-11-24T09", "day", "24 Nov, 09:00"),
        ("soon", "day", "soon"),
        ("2026-11-30T10:57:00Z", "time", "3 min ago"),
        ("9999-99-99", "time", "9999-99-99"),
        (False, "text", "no"),
        (9007199254740993, "text", "9007199254740993"),
        (0.1 + 0.2, "text", "0.3"),
        ({"a": [1, "ü"]}, "text", '{"a": [1, "ü"]}'),
        ("two\nlines\x00\u202eabc", "text", "two lines abc"),
    ],
)
def test_a_value_is_shown_by_its_unit_and_any_other_value_as_text(value: Any, unit: str, text: str) -> None:
    assert cell(value, unit, NOW).text == text


def test_a_relative_time_has_the_exact_one_and_a_very_long_text_is_cut() -> None:
    assert cell("2026-11-30T10:57:00Z", "time", NOW) == Cell("3 min ago", "Monday 30 November 2026, 11:57:00")
    assert len(cell("x" * 100_000, "text", NOW).text) == 300


def test_the_numbers_of_a_column_have_the_same_decimals() -> None:
    columns = ((1, 2), (1.5, 2), ("9.99", 1), (0.001, 1), (None, "x"), (1e300, 1.5))
    assert [decimals_of(values) for values in columns] == [0, 1, 2, None, 0, 1]
    assert [cell(value, "number", NOW, 2).text for value in (1250, 9.99, "7.5", "x", None)] == [
        "1,250.00", "9.99", "7.50", "x", "–",
    ]  # fmt: skip


def test_titles_of_columns_are_words_in_sentence_case() -> None:
    assert [title_of(name) for name in ("page_url", "user_id", "open_rate", "x" * 99)] == [
        "Page URL", "User ID", "Open rate", "X" + "x" * 58 + "…",
    ]  # fmt: skip


def test_only_finite_numbers_are_drawn() -> None:
    assert [as_number(value) for value in (1, "2.5", True, None, "nan", "x", [1], 10**400)] == [
        1, 2.5, None, None, None, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("css", "style"),
    [
        (None, Style()),
        ("font-weight: bold; color: RED", Style(bold=True, color=ft.Colors.ERROR)),
        ("font-weight:300;font-size:18px", Style(bold=False, size=18)),
        ("font-size: 900px", Style(size=28)),
        ("color: var(--primary-color)", Style(color=ft.Colors.PRIMARY)),
        ("color: #ff00ff; position: fixed; background: url(http://x)", Style()),
        ("muted; italic", Style(italic=True, color=ft.Colors.ON_SURFACE_VARIANT)),
        ("text-align: center !important; text-decoration: underline", Style(align=ft.TextAlign.CENTER, underline=True)),
        (":;;:;font-size:;color", Style()),
        ("font-weight: " + "9" * 5000, Style(bold=False)),
    ],
)
def test_a_style_takes_what_the_theme_has_and_ignores_the_rest(css: str | None, style: Style) -> None:
    assert parse_style(css) == style


# --- charts -----------------------------------------------------------------------------------------------------------


def drawing(*series: Series, kind: str = "line", labels: tuple[str, ...] = ("Mon", "Tue", "Wed")) -> Drawing:
    return Drawing("Sales", kind, labels, series)


def test_a_chart_is_summed_up_in_words_with_every_series() -> None:
    of = drawing(Series("Orders", "number", (1, 1500, None)), Series("Open rate", "share", (None, 0.5, 0.25)))
    assert charts.summary(of) == (
        "Sales: line chart from Mon to Wed. Orders first 1, last 1,500, highest 1,500 (Tue); "
        "Open rate first 50 %, last 25 %, highest 50 % (Tue)"
    )


def test_each_unit_has_a_scale_that_holds_all_its_values() -> None:
    of = drawing(
        Series("A", "number", (1, 7, -3)), Series("B", "number", (12, None, 0)), Series("C", "share", (0.02, 0.3, 0))
    )
    assert charts.scales(of) == {"number": (-3, 20), "share": (0, pytest.approx(0.3))}
    assert charts.scales(drawing(Series("A", "number", (-5, -1, -2))))["number"] == (-5, 0)
    assert charts.scales(drawing(Series("A", "number", (0, 0, 0))))["number"] == (0, 1)


def test_a_line_has_a_gap_where_a_value_is_missing() -> None:
    of = drawing(Series("A", "number", (1, 2, None, 4)), labels=("a", "b", "c", "d"))
    drawn = charts.shapes(of, 300)
    (line,) = [shape for shape in drawn if isinstance(shape, cv.Path)]
    assert [(part.x, round(part.y)) for part in line.elements] == [(0, 140), (100, 99)]  # type: ignore[attr-defined]
    (dot,) = [shape for shape in drawn if isinstance(shape, cv.Circle)]
    assert (dot.x, dot.y) == (300 - charts.DOT, plot.HEAD)


def test_bars_of_several_series_stand_beside_each_other_and_below_zero() -> None:
    of = drawing(Series("A", "number", (2, -2)), Series("B", "number", (1, 0)), kind="bar", labels=("a", "b"))
    bars = [shape for shape in charts.shapes(of, 200) if isinstance(shape, cv.Rect)]
    zero = plot.height_at(0, 2, -2)
    assert [(bar.x, bar.y, bar.y + bar.height) for bar in bars] == [
        (4, plot.HEAD, zero), (104, zero, plot.HEIGHT), (50, plot.height_at(1, 2, -2), zero),
    ]  # fmt: skip


def test_the_caption_is_the_last_point_or_the_one_under_the_pointer() -> None:
    chart = charts.SeriesChart(room=200)
    chart.set_data(drawing(Series("Orders", "number", (1, 1500, 3)), Series("Rate", "share", (None, 0.5, 1))))
    assert "Wed: Orders 3 · Rate 100 %" in texts(chart)
    assert chart.describe_at(100, 5) == "Tue: Orders 1,500 · Rate 50 %"
    assert chart.describe_at(900, 5) is None
    bars = charts.SeriesChart(room=300)
    bars.set_data(drawing(Series("Orders", "number", (1, 2, 3)), kind="bar"))
    assert bars.describe_at(299, 5) == "Wed: Orders 3"


def test_rows_of_models_are_drawn_in_the_order_of_time() -> None:
    declared = declarations.Chart("c", "line", None, "day", ("n",), None)  # type: ignore[arg-type]
    rows = Rows((("day", "day"), ("n", "number")), [{"day": "2026-11-02", "n": 2}, {"day": "2026-11-01", "n": 1}], None)
    assert charts.drawing_of(declared, "C", rows, NOW).series[0].values == (1, 2)


async def test_a_bar_chart_over_names_lists_them_with_their_values(site: Site) -> None:
    screen = site.page("chart pages { type: bar  data: pages }")
    for page, count in (("/a", 3), ("/b", 1)):
        for _ in range(count):
            site.backend.activity.track_activity("bob", "page_view", page_url=page)
    part = await loaded(only(screen, ChartPart))
    assert [name for name in names(part) if name.startswith("/")] == ["/a: Count 3", "/b: Count 1"]


async def test_a_chart_without_rows_says_so(site: Site) -> None:
    part = await loaded(only(site.page("chart pages { type: bar  data: pages }"), ChartPart))
    assert "No data yet. The chart appears with the first rows." in texts(part)


async def test_a_line_chart_draws_a_source_by_day(site: Site) -> None:
    screen = site.page("chart users { type: area  data: daily_active_users { days: 7 } }")
    site.backend.activity.track_activity("bob", "page_view")
    part = await loaded(only(screen, ChartPart))
    (summary,) = [name for name in names(part) if "area chart" in name]
    assert summary.startswith("Users: area chart from ")
    assert "last 1, highest 1" in summary


# --- tables -----------------------------------------------------------------------------------------------------------


async def test_a_table_has_its_columns_by_unit_and_its_order(site: Site) -> None:
    screen = site.page(FORM + TABLE)
    site.add(name="Pen", price="1.5")
    site.add(name="Desk", price="1250")
    part = await loaded(only(screen, TablePart))
    assert [name for name in names(part) if name.startswith("Name")] == [
        "Name: Desk, Price: 1,250.0, Size: small", "Name: Pen, Price: 1.5, Size: small",
    ]  # fmt: skip
    assert "Sort by Price, sorted descending" in names(part)
    price = next(text for text in walk(part) if isinstance(text, ft.Text) and text.value == "1,250.0")
    assert price.text_align == ft.TextAlign.RIGHT


async def test_a_pressed_header_sorts_all_rows_then_turns_the_order_then_takes_the_files(site: Site) -> None:
    screen = site.page(FORM + TABLE)
    for n, name in enumerate(("b", "c", "a")):
        site.add(name=name, price=str(n))
    part = await loaded(only(screen, TablePart))

    async def order(header: str) -> str:
        await named(part, header).on_click(None)
        await loaded(part)
        return "".join(name[6] for name in names(part) if name.startswith("Name: "))

    assert await order("Sort by Name") == "abc"
    assert await order("Sort by Name, sorted ascending") == "cba"
    assert await order("Sort by Name, sorted descending") == "acb"
    assert "Sort by Price, sorted descending" in names(part)


async def test_a_table_shows_a_page_of_rows_and_more_on_request(site: Site) -> None:
    screen = site.page(FORM + TABLE)
    for n in range(PAGE + 2):
        site.add(name=f"p{n}", price="1")
    part = await loaded(only(screen, TablePart))
    assert len([name for name in names(part) if name.startswith("Name: ")]) == PAGE
    await named(part, "Show more: Products").on_click(None)
    await loaded(part)
    assert len([name for name in names(part) if name.startswith("Name: ")]) == PAGE + 2
    assert "Show more" not in texts(part)


async def test_a_narrow_table_is_a_list_of_cards_with_a_menu_for_the_order(site: Site) -> None:
    screen = site.page(FORM + TABLE, wide=False)
    site.add(name="Pen", price="1.5")
    part = await loaded(only(screen, TablePart))
    assert {"Pen", "Price", "1.5", "Size", "small", "Sorted by Price"} <= set(texts(part))
    await part._resized(SimpleNamespace(width=900))
    assert "Sort by Name" in names(part)
    await part._resized(SimpleNamespace(width=200))
    assert "Sort by Name" not in names(part)


async def test_a_table_without_rows_says_so_and_an_error_has_a_retry(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = await loaded(only(site.page(TABLE), TablePart))
    assert "No rows yet" in texts(part)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("The disk is gone.")

    with monkeypatch.context() as patched:
        patched.setattr(site.flow, "read_source", broken)
        await loaded(part)
        assert "Could not be refreshed: The disk is gone." in texts(part)
        assert "No rows yet" in texts(part)
        new = await loaded(only(site.page(TABLE), TablePart))
        assert {"This could not be loaded", "The disk is gone."} <= set(texts(new))
    await named(new, "Retry: Products").on_click(None)
    await new._refresher._task
    assert "No rows yet" in texts(new)


async def test_a_pressed_row_runs_its_actions_and_says_what_they_did(site: Site) -> None:
    said: list[str] = []
    screen = site.page(
        FORM
        + """table products { columns: [name]  data: all_products  on_row_click: {
        track_activity: { user_id: current_user.id  activity_type: "product_view"  metadata: {product: product.name} }
        send_notification: { user_id: admin_users  title: "Viewed"  message: product.name  channel: "in_app" } } }"""
    )
    site.add(name="Pen", price="1")
    part = await loaded(only(screen, TablePart))
    part._say = said.append
    await named(part, "Name: Pen").on_click(None)
    assert said == ["Recorded 1 activity. Sent 1 notification."]
    (inbox,) = site.backend.notifications.get_user_notifications("ada").notifications
    assert (inbox.title, inbox.message) == ("Viewed", "Pen")


async def test_a_row_that_is_pressed_twice_at_once_runs_its_actions_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = site.page(
        FORM + 'table products { columns: [name]  data: all_products  on_row_click: { track_activity: '
        '{ user_id: current_user.id  activity_type: "view" } } }'
    )  # fmt: skip
    site.add(name="Pen", price="1")
    part = await loaded(only(screen, TablePart))
    part._say = lambda _: None
    press = named(part, "Name: Pen").on_click
    await asyncio.gather(press(None), press(None))
    assert len(site.backend.activity.list_activities().activities) == 1


def test_the_outcome_of_actions_is_one_line() -> None:
    def outcome(tracked: int, sent: int, *errors: str) -> str:
        return result_text(SimpleNamespace(tracked=tracked, sent=sent, errors=errors))

    assert outcome(0, 0) == ""
    assert outcome(2, 3) == "Recorded 2 activities. Sent 3 notifications."
    assert outcome(0, 1, "a.flow:1:2: no\nuser") == "Sent 1 notification. 1 action failed: a.flow:1:2: no user"


# --- refresh ----------------------------------------------------------------------------------------------------------


async def test_a_refresh_interval_reads_only_while_the_page_is_visible(site: Site) -> None:
    part = only(
        site.page("table activities { columns: [activity_type]  data: recent_user_activities  refresh: 1 }"), TablePart
    )
    reads: list[int] = []
    more = asyncio.Event()
    part.request_refresh = lambda: (reads.append(1), more.set())
    ticking = asyncio.ensure_future(part._tick(0.001))
    live = part.context.live
    live.start()
    await asyncio.wait_for(more.wait(), 5)
    live.stop()
    known = len(reads)
    turns = 0
    while turns < 50:
        turns += 1
        await asyncio.sleep(0.001)
    assert len(reads) <= known + 1
    ticking.cancel()


async def test_a_source_without_an_interval_follows_its_events(site: Site) -> None:
    screen = site.page("table a { columns: [activity_type]  data: recent_user_activities }"
                       "table n { columns: [type]  data: notification_statistics }"
                       "table slow { columns: [name]  data: pages  refresh: 300 }")  # fmt: skip
    asked: list[str] = []
    for part in [part for part in walk(screen) if isinstance(part, TablePart)]:
        part.request_refresh = lambda name=part.declared.name: asked.append(name)
        part._read_at = float("inf")
        part.subscribe()
    screen.live.start()
    asked.clear()
    done = asyncio.Event()
    screen.live.listen(("activity",), done.set)
    await asyncio.to_thread(site.backend.activity.track_activity, "ada", "search")
    await asyncio.wait_for(done.wait(), 5)
    screen.live.stop()
    assert asked == ["a"]


async def test_within_its_interval_a_part_only_updates_relative_times(site: Site) -> None:
    part = only(site.page("chart pages { type: bar  data: pages  refresh: 300 }"), ChartPart)
    asked: list[str] = []
    part.request_refresh = lambda: asked.append("read")
    part._changed()
    assert asked == ["read"], "nothing was read yet"
    await loaded(part)
    part.show = lambda: asked.append("shown")
    part._changed()
    assert asked == ["read", "shown"]
    part._read_at -= 300
    part._changed()
    assert asked == ["read", "shown", "read"]


async def test_slow_sources_delay_neither_the_page_nor_other_screens(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    proceed = threading.Event()
    reading: list[int] = []
    most: list[int] = []
    read = site.flow.read_source

    def slow(*given: Any, **options: Any) -> Any:
        reading.append(1)
        most.append(len(reading))
        proceed.wait(20)
        reading.pop()
        return read(*given, **options)

    monkeypatch.setattr(site.flow, "read_source", slow)
    tables = "".join(f"table t{n} {{ columns: [name]  data: all_products }}" for n in range(8))
    screen = site.page(f'h1 "Here" {tables}')
    assert "Here" in texts(screen)
    parts = [part for part in walk(screen) if isinstance(part, TablePart)]
    loading = [asyncio.ensure_future(part.refresh()) for part in parts]
    while not all("Loading: T" in "".join(names(part)) for part in parts):
        await asyncio.sleep(0.01)
    assert max(most) == READS_AT_ONCE
    proceed.set()
    await asyncio.gather(*loading)
    assert max(most) == READS_AT_ONCE
    assert all("No rows yet" in texts(part) for part in parts)


# --- forms ------------------------------------------------------------------------------------------------------------


def labels(form: FormPart) -> list[str]:
    return [str(part.label) for part in walk(form) if isinstance(part, ft.TextField | ft.Dropdown | ft.Switch)]


async def test_a_form_has_an_input_for_every_type_and_marks_the_required_ones(site: Site) -> None:
    form = only(site.page(FORM), FormPart)
    assert labels(form) == [
        "Name *", "Price *", "Size", "In stock", "Available from", "Seen at", "Details",
    ]  # fmt: skip
    assert "* required" in texts(form)
    assert form.typed == {
        "name": "", "price": "", "size": "small", "in_stock": True, "available_from": "", "seen_at": "", "details": "",
    }  # fmt: skip
    json_field = next(part for part in walk(form) if isinstance(part, ft.TextField) and part.label == "Details")
    assert json_field.multiline


async def test_a_refused_form_shows_each_error_at_its_field_and_keeps_the_input(site: Site) -> None:
    form = only(site.page(FORM), FormPart)
    form._inputs["price"].typed, form._inputs["details"].typed = "cheap", "{"
    await form._submit(None)
    errors = {part.label: part.error for part in walk(form) if isinstance(part, ft.TextField) and part.error}
    assert errors.keys() == {"Name *", "Price *"}
    assert errors["Price *"] == "This must be a number."
    assert (form.typed["price"], form.typed["details"]) == ("cheap", "{")
    assert "Nothing was saved." in texts(form)


async def test_a_saved_form_is_emptied_adds_a_row_and_says_what_its_actions_did(site: Site) -> None:
    screen = site.page(
        'form product { fields: [name, price, in_stock, seen_at]  model: Product  on_submit: { send_notification: '
        '{ user_id: admin_users  title: "New"  message: new_product.name  channel: "in_app" } } }' + TABLE
    )  # fmt: skip
    form = only(screen, FormPart)
    form._inputs["name"].typed, form._inputs["price"].typed = " Pen ", "1.50"
    form._inputs["in_stock"].typed, form._inputs["seen_at"].typed = False, "2026-11-22 10:15"
    await form._submit(None)
    assert "Saved. Sent 1 notification." in texts(form)
    assert form.typed == {"name": "", "price": "", "in_stock": True, "seen_at": ""}
    (row,) = site.flow.read_source(only(screen, TablePart).declared.data, {}).rows
    assert (row["name"], row["price"], row["in_stock"]) == ("Pen", 1.5, False)
    assert datetime.fromisoformat(row["seen_at"]) == datetime(2026, 11, 22, 10, 15).astimezone()


async def test_a_form_that_is_sent_twice_at_once_saves_one_row(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    form = only(site.page(FORM + TABLE), FormPart)
    form._inputs["name"].typed, form._inputs["price"].typed = "Pen", "1"
    going, proceed = threading.Event(), threading.Event()
    submit = site.flow.submit

    def slow(*given: Any) -> Any:
        going.set()
        proceed.wait(10)
        return submit(*given)

    monkeypatch.setattr(site.flow, "submit", slow)
    first = asyncio.ensure_future(form._submit(None))
    await asyncio.to_thread(going.wait, 10)
    await form._submit(None)
    proceed.set()
    await first
    assert len(site.flow.read_source(site.flow.project.pages[0].elements[1].data, {}).rows) == 1  # type: ignore[union-attr]


def test_a_typed_time_gets_the_offset_of_the_zone_and_other_texts_stay() -> None:
    zone: Callable[[datetime], datetime] = lambda then: then.replace(tzinfo=timezone(timedelta(hours=2)))  # noqa: E731
    assert with_offset("2026-11-22 10:15", zone) == "2026-11-22T10:15:00+02:00"
    assert with_offset("2026-11-22T10:15:00Z", zone) == "2026-11-22T10:15:00+00:00"
    assert [with_offset(text, zone) for text in ("tomorrow", "", "9999")] == ["tomorrow", "", "9999"]
    assert (day_of("2026-11-22 10:15"), day_of("x")) == (datetime(2026, 11, 22), None)  # noqa: DTZ001


# --- pages ------------------------------------------------------------------------------------------------------------


async def test_a_page_has_every_element(site: Site) -> None:
    screen = site.page(
        """header { div class="head" { h1 "Hello " + current_user.name  text "At a glance" style="color: gray" }
           notification_bell { user_id: current_user.id  position: right } }
        row { section "Left" { p "one" } section "Right" { column { h6 "two" } } }
        notification_settings { user_id: "bob" }  notification_bell { user_id: "bob"  position: left }
        text "bold" style="font-weight: bold" """
        + FORM + TABLE + "chart trend { type: line  data: trend }"
    )  # fmt: skip
    assert {"Hello ada", "At a glance", "Left", "Right", "one", "two"} <= set(texts(screen))
    bold = next(text for text in walk(screen) if isinstance(text, ft.Text) and text.value == "bold")
    assert bold.weight == ft.FontWeight.W_600
    site.backend.notifications.send_notification("bob", "Hi", "there")
    bells = [bell.source.newest(9).unread for bell in walk(screen) if isinstance(bell, NotificationBell)]
    assert bells == [0, 1]
    settings = only(screen, NotificationSettings)
    settings.source.set_preference("*", "email", False)
    assert site.backend.notifications.get_preferences("bob").preferences
    assert not site.backend.notifications.get_preferences("ada").preferences
    for kind in (FormPart, TablePart, ChartPart):
        only(screen, kind)
    (row,) = [part for part in walk(screen) if isinstance(part, ft.ResponsiveRow) and len(part.controls) == 2]
    assert [part.col for part in row.controls] == [{"xs": 12, "md": 6}] * 2


async def test_a_part_within_a_section_has_no_card_but_the_title_that_the_file_gives(site: Site) -> None:
    inner = FORM.replace("fields:", 'title: "Add one"  fields:')
    screen = site.page(f'section "All" {{ {TABLE} {inner} }} {TABLE.replace("table products", "table others")}')
    drawn = [name for name in names(screen) if name in {"All", "Add one", "Products", "Others"}]
    assert drawn == ["All", "Add one", "Others"]


async def test_empty_containers_and_parts_without_entries_are_drawn(site: Site) -> None:
    screen = site.page(
        "section { } row { } header { } column { } table { data: pages } chart { data: pages } form { model: Product }"
    )
    for kind, title in ((TablePart, "Table"), (ChartPart, "Chart"), (FormPart, "Form")):
        part = only(screen, kind)
        assert part.title == title
        if kind is not FormPart:
            await loaded(part)
    assert "This page has no elements." in texts(site.page(""))


async def test_a_bell_in_a_line_of_texts_is_at_its_side(site: Site) -> None:
    for position, side in (("left", 0), ("right", -1)):
        screen = site.page(f'header {{ row {{ h1 "Hi"  notification_bell {{ position: {position} }} }} }}')
        (line,) = [
            part for part in walk(screen)
            if isinstance(part, ft.Row) and any(isinstance(one, NotificationBell) for one in part.controls)
        ]  # fmt: skip
        assert isinstance(line.controls[side], NotificationBell)
        assert line.controls[1 + side].expand


async def test_hostile_texts_are_one_safe_paragraph(site: Site) -> None:
    screen = site.page(FORM + TABLE + 'h1 "' + "W" * 3000 + '"  text "\u202eevil \u05d0\u05d1"')
    site.add(name="\u202e\u05d0\u05d1\u05d2 " + "x" * 900, price="1")
    part = await loaded(only(screen, TablePart))
    shown = "\n".join(texts(screen))
    assert "\u202e" not in shown
    name = next(text for text in walk(part) if isinstance(text, ft.Text) and str(text.value).startswith("\u05d0"))
    assert (name.max_lines, name.rtl, len(str(name.value))) == (1, True, 300)


async def test_an_admin_page_is_refused_to_everyone_but_the_owner(site: Site) -> None:
    body = "table users { columns: [user_id]  data: users }"
    assert "This page is for the owner" in texts(site.page(body, auth="auth: admin", user_id="bob"))
    only(site.page(body, auth="auth: admin"), TablePart)


async def test_data_of_another_user_is_for_the_owner_only(site: Site) -> None:
    body = "table theirs { columns: [activity_type]  data: recent_user_activities { user_id: current_user.id } }"
    site.backend.activity.track_activity("carla", "search")
    of_carla = only(site.page(body.replace("current_user.id", '"carla"')), TablePart)
    assert "search" in texts(await loaded(of_carla))
    mine = only(site.page(body, auth="", user_id="carla"), TablePart)
    assert "search" in texts(await loaded(mine))
    mine.declared = of_carla.declared
    mine.context = replace(mine.context, user_id="bob")
    assert "Could not be refreshed" in "".join(texts(await loaded(mine)))


async def test_a_reload_keeps_rows_order_and_input_where_the_part_is_still_there(site: Site) -> None:
    screen = site.page(FORM + TABLE + 'text "before"')
    site.add(name="Pen", price="1")
    table, form = await loaded(only(screen, TablePart)), only(screen, FormPart)
    listed = screen._page
    table._sort = declarations.Sort("name", False)
    form._inputs["name"].typed = "half a na"
    site.write(site.path.read_text().replace('"before"', '"after"').replace("[name, price, size]", "[name, size]"))
    site.draw(screen)
    assert "after" in texts(screen)
    assert screen._page is listed, "a new list begins at the top"
    assert only(screen, FormPart).typed["name"] == "half a na"
    new = only(screen, TablePart)
    assert new is not table
    assert "Sort by Name, sorted ascending" in names(new)
    assert "Name: Pen, Size: small" in names(new), "the rows are shown before the source is read again"


async def test_a_reload_drops_an_order_by_a_column_that_is_gone(site: Site) -> None:
    screen = site.page(FORM + TABLE)
    only(screen, TablePart)._sort = declarations.Sort("size", True)
    site.write(
        site.path.read_text().replace("[name, price, size]  data: all_products", "[name, price]  data: all_products")
    )
    site.draw(screen)
    assert only(screen, TablePart)._sort == declarations.Sort("price", True)


async def test_a_reload_that_changes_no_page_leaves_its_parts_alone(site: Site) -> None:
    screen = site.page(FORM + TABLE)
    table = only(screen, TablePart)
    site.write("# moved down by a line\n" + site.path.read_text() + 'page Other { title: "Other" }')
    site.draw(screen)
    assert only(screen, TablePart) is table


async def test_a_page_that_no_file_declares_any_more_says_so_and_comes_back(site: Site) -> None:
    screen = site.page('text "here"')
    text = site.path.read_text()
    site.write(MODEL)
    site.draw(screen)
    assert "This page is gone" in texts(screen)
    site.write(text)
    site.draw(screen)
    assert "here" in texts(screen)


async def test_a_broken_file_leaves_the_last_version_and_the_banner_has_its_place(site: Site) -> None:
    screen = site.page('text "good"')
    site.write(site.path.read_text().replace("text", "texxt"), good=False)
    site.draw(screen)
    assert "good" in texts(screen)
    assert site.flow.problem is not None
    banner = problem_banner(site.flow.problem, site.flow.errors)
    shown = "\n".join(text for text in texts(banner) if text)
    line, source = next((n, one) for n, one in enumerate(site.path.read_text().splitlines(), 1) if "texxt" in one)
    assert "1 error in the .flow files. The last valid version stays in use." in shown
    assert f"site.flow:{line}:{source.index('texxt') + 1}: " in shown
    (spans,) = [text.spans for text in walk(banner) if isinstance(text, ft.Text) and text.spans]
    assert spans[1].text == "texxt"


def test_a_banner_over_hostile_errors_is_short_and_printable() -> None:
    place = Place("\u202ex.flow", 1, 5_000, 4_000)
    error = FlowError(place, "bad\n" * 900, "hint " * 900, "\x00" * 4_999 + "y" * 9_000)
    banner = problem_banner("broken", [error] * 50)
    spans = [span.text or "" for text in walk(banner) if isinstance(text, ft.Text) for span in text.spans or ()]
    shown = "".join(spans) + "".join(str(text) for text in texts(banner))
    assert "\x00" not in shown
    assert "\u202e" not in shown
    assert len(shown) < 20_000
    assert "“flashflow check” lists all of them." in shown


def test_numbers_of_charts_have_their_unit() -> None:
    assert [value_text(value, unit) for value, unit in ((None, "share"), (0.5, "share"), (1500, "number"))] == [
        "–", "50 %", "1,500",
    ]  # fmt: skip
