"""Data sources: every source of the language answers with its columns, checks its arguments, and keeps users apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.core.clock import rfc3339
from flashflow.backend.core.errors import Forbidden, ValidationError
from flashflow.backend.flow.language.data_sources import SOURCES
from flashflow.backend.flow.language.declarations import Constant, Form, Name, Project, Sort, TrackActivity
from flashflow.backend.flow.project import FlowProject
from tests.support.flow_parts import HERE, PRODUCT, USER, Parts, parts_in, run, source

ADA: dict[str, Any] = {"current_user": {"id": "ada"}}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with parts_in(tmp_path) as parts:
        yield parts


@pytest.fixture
def flow(parts: Parts) -> FlowProject:
    flow = run(parts, Project(models=(PRODUCT, USER)))
    for user in ("ada", "bob"):
        for number in range(5):
            parts.activity.track_activity(
                user, ("view", "buy")[number % 2], page_url=f"/p/{number}", metadata={"feature": "search"}
            )
    sent = parts.notifications.send_notification("ada", "One", "Message", "orders")
    parts.notifications.mark_notification_as_read(sent.notification_id)
    parts.notifications.send_notification("bob", "Two", "Message", "news")
    return flow


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_answers_with_rows_of_its_columns(flow: FlowProject, name: str) -> None:
    arguments: dict[str, Any] = {"steps": ["view", "buy"]} if name == "funnel" else {}
    found = flow.read_source(source(name, **arguments), ADA, all_users=True)
    assert found.columns == SOURCES[name].columns
    assert found.rows or name == "referrers"
    for row in found.rows:
        assert row.keys() == dict(found.columns).keys()


def test_a_source_of_a_user_has_that_users_rows_alone(flow: FlowProject) -> None:
    found = flow.read_source(source("recent_user_activities"), ADA, limit=3)
    assert [row["user_id"] for row in found.rows] == ["ada"] * 3
    rest = flow.read_source(source("recent_user_activities"), ADA, limit=3, cursor=found.next_cursor)
    assert (len(rest.rows), rest.next_cursor) == (2, None)
    days = flow.read_source(source("user_activity_trends", days=3), ADA).rows
    assert [row["activities"] for row in days] == [0, 0, 5]


@pytest.mark.parametrize("limit", ["ten", 0, -5, True, 1.5, [1]])
def test_the_limit_of_rows_of_a_model_is_checked(flow: FlowProject, limit: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        flow.read_source(replace(source("all_products", limit=limit), model="Product"), ADA)
    assert [error.field for error in raised.value.errors] == ["limit"]


def test_a_page_for_every_user_reads_no_data_of_other_users(flow: FlowProject) -> None:
    with pytest.raises(Forbidden, match="auth: admin"):
        flow.read_source(source("daily_active_users"), ADA)
    with pytest.raises(Forbidden):
        flow.read_source(source("recent_user_activities", user_id="bob"), ADA)
    assert flow.read_source(source("recent_user_activities", user_id="$current_user.id"), ADA).rows


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("overview", {"days": 0}, "days"),
        ("overview", {"days": "7"}, "days"),
        ("overview", {"tz": "Europe\\Berlin"}, "tz"),
        ("overview", {"from": "2026-13-01"}, "from"),
        ("overview", {"from": "2026-02-01", "to": "2026-01-01"}, "from"),
        ("overview", {"days": 7, "to": "2026-01-01"}, "days"),
        ("overview", {"compare": "never"}, "compare"),
        ("overview", {"colour": "red"}, "colour"),
        ("pages", {"limit": 0}, "limit"),
        ("pages", {"app": "no app!"}, "app"),
        ("funnel", {}, "steps"),
        ("funnel", {"steps": ["one"]}, "steps"),
        ("retention", {"mode": "off"}, "mode"),
        ("recent_user_activities", {"user_id": ""}, "user_id"),
    ],
)
def test_a_wrong_argument_is_named(flow: FlowProject, name: str, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        flow.read_source(source(name, **arguments), ADA, all_users=True)
    assert [error.field for error in refusal.value.errors] == [field]


def test_rates_and_statistics_count_what_was_read(flow: FlowProject) -> None:
    today = flow.read_source(source("notification_delivery_rates", days=1), ADA, all_users=True).rows
    assert [(row["sent"], row["delivered"], row["read"], row["read_rate"]) for row in today] == [(2, 2, 1, 0.5)]
    rows = flow.read_source(source("notification_statistics"), ADA, all_users=True).rows
    assert {(row["type"], row["sent"], row["read"], row["open_rate"]) for row in rows} == {
        ("orders", 1, 1, 1.0),
        ("news", 1, 0, 0.0),
    }


def test_rows_are_sorted_by_any_column_and_paged(flow: FlowProject) -> None:
    sort = Sort("user_id", descending=True)
    first = flow.read_source(source("users"), ADA, limit=1, sort=sort, all_users=True)
    second = flow.read_source(source("users"), ADA, limit=1, sort=sort, cursor=first.next_cursor, all_users=True)
    assert [row["user_id"] for row in (*first.rows, *second.rows)] == ["bob", "ada"]
    assert second.next_cursor is None
    with pytest.raises(ValidationError, match="no column"):
        flow.read_source(source("users"), ADA, sort=Sort("shoe_size", descending=False), all_users=True)


def test_the_rows_of_a_model_come_newest_first_or_sorted(flow: FlowProject) -> None:
    form = Form("add", ("name", "price"), "Product", HERE)
    for name, price in (("Pen", "3"), ("Book", 20), ("Cup", "7.5")):
        flow.submit(form, {"name": name, "price": price}, "ada")
    products = source("all_products", "Product")

    def names(**options: Any) -> list[str]:
        found, cursor = [], None
        while True:
            page = flow.read_source(products, ADA, limit=2, cursor=cursor, **options)
            found += [row["name"] for row in page.rows]
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert names() == ["Cup", "Book", "Pen"]
    assert names(sort=Sort("price", descending=True)) == ["Book", "Cup", "Pen"]
    assert names(sort=Sort("name", descending=False)) == ["Book", "Cup", "Pen"]
    newest = flow.read_source(source("all_products", "Product", limit=1), ADA)
    assert ([row["name"] for row in newest.rows], newest.next_cursor) == (["Cup"], None)
    columns = dict(flow.read_source(products, ADA).columns)
    assert (columns["price"], columns["created_at"], columns["name"]) == ("number", "time", "text")


def test_engagement_names_users_by_their_rows(flow: FlowProject) -> None:
    flow.submit(Form("join", ("id", "name"), "User", HERE), {"id": "ada", "name": "Ada L."}, "ada")
    rows = flow.read_source(source("user_engagement_metrics"), ADA, all_users=True).rows
    assert {row["user_name"] for row in rows} == {"Ada L.", "bob"}
    assert flow.scope_of("ada")["current_user"] == {"id": "ada", "name": "Ada L.", "role": "member"}
    assert flow.scope_of("cy")["current_user"] == {"id": "cy", "name": "cy"}


def test_expressions_know_the_time(flow: FlowProject, parts: Parts) -> None:
    now = rfc3339(parts.clock.now_ms())
    assert flow.scope_of("ada")["now"] == now
    fields = (
        ("user_id", Constant("ada", HERE)),
        ("activity_type", Constant("at", HERE)),
        ("page_url", Name(("now",), HERE)),
    )
    assert flow.run_actions((TrackActivity(fields, HERE),), {}, trigger="job").tracked == 1
    assert parts.activity.list_activities(user_id="ada", activity_type="at").activities[0].page_url == now
