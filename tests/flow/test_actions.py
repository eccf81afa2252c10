"""Actions: activities and notifications of forms and rows, groups, partial failures, and the loop guard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.core.errors import Conflict, Erased, ValidationError
from flashflow.backend.data.erasure import Erasure
from flashflow.backend.data.export import Export
from flashflow.backend.flow import actions, project
from flashflow.backend.flow.language.declarations import ForEach, Form, Project, Reference, SendScheduled, Table
from flashflow.backend.flow.project import FlowProject
from flashflow.backend.store.flow.rows import rows_of_user
from tests.support.flow_parts import HERE, PRODUCT, USER, Parts, field, model, parts_in, run, send, source, track

ORDER = model(
    "Order",
    field("id", "integer", primary=True),
    field("product_id", "integer", required=True, references=Reference("Product", "id")),
)  # fmt: skip
ADD = Form("add", ("name", "price", "sku", "size"), "Product", HERE)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with parts_in(tmp_path) as parts:
        yield parts


@pytest.fixture
def flow(parts: Parts) -> FlowProject:
    return run(parts, Project(models=(PRODUCT, USER, ORDER)))


def titles(parts: Parts, user: str) -> list[str]:
    return [one.title for one in parts.notifications.get_user_notifications(user).notifications]


def test_a_row_click_tracks_and_notifies_with_the_values_of_the_row(parts: Parts, flow: FlowProject) -> None:
    clicked = Table(
        "products", ("name",), source("all_products", "Product"), HERE,
        on_row_click=(
            track("$current_user.id", "view", page_url=("/products/", "$product.id"), metadata={"n": "$row.name"}),
            send("admin_users", ("$current_user.name", " viewed ", "$product.name"), kind="info"),
        ),
    )  # fmt: skip
    row = flow.submit(ADD, {"name": "Pen", "price": "3"}, "ada").row
    result = flow.click_row(clicked, row, "ada")
    assert (result.tracked, result.sent, result.errors) == (1, 1, ())
    (activity,) = parts.activity.list_activities(user_id="ada").activities
    assert (activity.page_url, activity.metadata, activity.app) == ("/products/1", {"n": "Pen"}, "flow")
    (sent,) = parts.notifications.get_user_notifications("owner").notifications
    assert (sent.title, sent.data, sent.app) == ("ada viewed Pen", {"kind": "info"}, "flow")


def test_groups_are_the_owner_with_admins_and_every_known_user(parts: Parts, flow: FlowProject) -> None:
    join = Form("join", ("id", "role"), "User", HERE)
    flow.submit(join, {"id": "root", "role": "admin"}, "owner")
    flow.submit(join, {"id": "cy"}, "owner")
    parts.activity.track_activity("dee", "view")
    assert flow.run_actions([send("admin_users", "A")], {}).sent == 2
    assert flow.run_actions([send("all_users", "B")], {}).sent == 4
    assert titles(parts, "root") == ["B", "A"]
    assert [titles(parts, user) for user in ("owner", "cy", "dee")] == [["B", "A"], ["B"], ["B"]]


def test_a_submitted_form_saves_a_checked_row_and_runs_its_actions(parts: Parts, flow: FlowProject) -> None:
    form = Form(
        "add", ("name", "price", "sku"), "Product", HERE,
        on_submit=(track("$current_user.id", "product_added", metadata={"id": "$new_product.id"}),),
    )  # fmt: skip
    done = flow.submit(form, {"name": "Pen", "price": "2.50", "sku": ""}, "ada")
    assert done.row == {
        "id": 1, "name": "Pen", "price": 2.5, "sku": None, "size": "small", "created_at": "2026-06-10T12:00:00.000Z",
    }  # fmt: skip
    assert done.result.tracked == 1
    assert flow.submit(form, {"name": "Cup", "price": 4}, "ada").row["id"] == 2
    assert [event.id for event in parts.events if event.kind == "flow"] == ["", "Product", "Product"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"price": 1}, "name"),
        ({"name": "Pen", "price": "cheap"}, "price"),
        ({"name": "Pen", "price": True}, "price"),
        ({"name": "Pen", "price": "1e999"}, "price"),
        ({"name": "Pen", "price": 1, "size": "huge"}, "size"),
        ({"name": "P" * 1001, "price": 1}, "name"),
        ({"name": "a\0b", "price": 1}, "name"),
        ({"name": "Pen", "price": 1, "id": 7}, "id"),
    ],
)
def test_a_wrong_value_of_a_form_is_named_and_nothing_is_saved(
    flow: FlowProject, values: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        flow.submit(ADD, values, "ada")
    assert [error.field for error in refusal.value.errors] == [field]
    assert flow.read_source(source("all_products", "Product"), {}).rows == ()


def test_unique_values_and_references_are_checked_in_the_write(flow: FlowProject) -> None:
    flow.submit(ADD, {"name": "Pen", "price": 1, "sku": "P-1"}, "ada")
    with pytest.raises(Conflict, match="sku"):
        flow.submit(ADD, {"name": "Other pen", "price": 1, "sku": "P-1"}, "ada")
    order = Form("order", ("product_id",), "Order", HERE)
    assert flow.submit(order, {"product_id": "1"}, "ada").row["product_id"] == 1
    with pytest.raises(ValidationError, match="there is no Product with id 2"):
        flow.submit(order, {"product_id": "2"}, "ada")


def test_a_field_becomes_unique_only_if_no_two_rows_share_a_value(parts: Parts, flow: FlowProject) -> None:
    for name in ("Pen", "Pen", "Cup"):
        flow.submit(ADD, {"name": name, "price": 1}, "ada")
    fields = tuple(field(f.name, f.type, required=f.required, unique=f.name == "name") for f in PRODUCT.fields[1:])
    stricter = FlowProject(parts, [Path("app.flow")], lambda paths: (Project(models=(model("Product", *fields),)), ()))
    (error,) = stricter.load()
    assert "two rows have" in error.message


def test_an_action_that_fails_is_reported_and_does_not_stop_the_others(parts: Parts, flow: FlowProject) -> None:
    result = flow.run_actions(
        [send(""), track("ada", "x" * 200), send("ada", "Sent"), SendScheduled(HERE), send("$nobody.id")], {}
    )
    assert (result.sent, len(result.errors)) == (1, 3)
    assert result.errors[0].startswith("app.flow:1:1: ")
    assert titles(parts, "ada") == ["Sent"]


def test_the_number_of_a_row_is_an_id_of_an_activity(parts: Parts, flow: FlowProject) -> None:
    action = track(7, 8, page_url=9, referrer=10, session_id=11, activity_id=12)
    assert flow.run_actions([action, action], {}).tracked == 1  # the same id is recorded once
    (one,) = parts.activity.list_activities(user_id="7").activities
    assert (one.activity_type, one.page_url, one.referrer, one.session_id, one.id) == ("8", "9", "10", "11", "12")


def test_a_large_group_is_sent_to_in_batches(parts: Parts, flow: FlowProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "BATCH", 3)
    for number in range(8):
        parts.activity.track_activity(f"user {number}", "view")
    erasure = Erasure(parts.activity, parts.notifications)
    for number in range(3):  # a batch of erased users alone is refused, the others are not
        erasure.erase(f"user {number}", even_if_unknown=True)
    users = [f"user {number}" for number in range(8)]
    result = flow.run_actions([send(users)], {})
    assert (result.sent, len(result.errors)) == (5, 1)


def test_errors_and_job_results_do_not_name_erased_users(parts: Parts, flow: FlowProject) -> None:
    Erasure(parts.activity, parts.notifications).erase("ada", even_if_unknown=True)
    result = flow.run_actions([send("ada"), track("ada", "view")], {})
    assert len(result.errors) == 2
    assert not any("ada" in error for error in result.errors)


def test_an_erasure_clears_who_created_a_row_and_refuses_new_rows(parts: Parts, flow: FlowProject) -> None:
    flow.submit(ADD, {"name": "Pen", "price": 1}, "ada")
    flow.submit(ADD, {"name": "Cup", "price": 1}, "bob")
    flow.submit(ADD, {"name": "A gift of ada", "price": 1}, "bob")
    erased = Erasure(parts.activity, parts.notifications).erase("ada")
    assert erased.remains == ("1 row of Product",)
    of_bob = parts.notifications.store.read(lambda conn: rows_of_user(conn, "bob", 0, 10)[0])
    assert [row.body["name"] for row in of_bob] == ["Cup", "A gift of ada"]
    assert parts.notifications.store.read(lambda conn: rows_of_user(conn, "ada", 0, 10)) == ([], False)
    assert len(flow.read_source(source("all_products", "Product"), {}).rows) == 3
    with pytest.raises(Erased):
        flow.submit(ADD, {"name": "Mug", "price": 1}, "ada")


def test_the_export_of_a_user_has_their_rows(parts: Parts, flow: FlowProject) -> None:
    flow.submit(Form("join", ("id", "name"), "User", HERE), {"id": "ada", "name": "Ada"}, "owner")
    for number in range(60):  # more than one slice
        flow.submit(ADD, {"name": f"Pen {number}", "price": 1}, "ada")
    flow.submit(ADD, {"name": "Cup", "price": 1}, "bob")
    exported = json.loads(b"".join(Export(parts.activity, parts.notifications).user("ada")))["rows"]
    assert [row["fields"]["name"] for row in exported] == ["Ada", *(f"Pen {number}" for number in range(60))]
    assert {row["model"] for row in exported} == {"User", "Product"}


# --- the loop guard ---------------------------------------------------------------------------------------------------


def test_a_run_ends_at_the_most_actions(parts: Parts, flow: FlowProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MOST_ACTIONS", 10)
    for _ in range(4):
        parts.activity.track_activity("ada", "view")
    recent = source("recent_user_activities", user_id="ada")
    inner = ForEach("b", recent, (track("ada", "seen"),), HERE)
    loop = ForEach("a", recent, (inner,), HERE)
    result = flow.run_actions([loop], {}, trigger="job")
    assert result.tracked == 10
    assert result.errors == ("The loop guard stopped these actions after 10.",)


def test_a_run_whose_time_is_over_ends_before_the_next_action(parts: Parts, flow: FlowProject) -> None:
    result = flow.run_actions(
        [send("admin_users", "A"), send("admin_users", "B")],
        {},
        trigger="job",
        is_over=lambda: bool(titles(parts, "owner")),
    )
    assert result.sent == 1
    assert result.errors == ("These actions took too long; the rest was left out.",)
    assert titles(parts, "owner") == ["A"]


def test_loops_that_feed_themselves_end_at_the_most_actions_of_a_minute(
    parts: Parts, flow: FlowProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "MOST_A_MINUTE", 25)
    parts.activity.track_activity("ada", "view")
    # Each run tracks as many activities as there are, so that they double.
    loop = ForEach("a", source("recent_user_activities", user_id="ada"), (track("ada", "view"),), HERE)
    results = [flow.run_actions([loop], {}, trigger="job") for _ in range(8)]
    assert sum(result.tracked for result in results) == 25
    assert "within a minute" in results[-1].errors[0]
    parts.clock.go(seconds=61)
    assert flow.run_actions([track("ada", "later")], {}).errors == ()


def test_a_run_never_sends_to_more_than_the_most_recipients(
    flow: FlowProject, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "MOST_RECIPIENTS", 3)
    result = flow.run_actions([send(["a", "b"]), send(["c", "d"])], {})
    assert (result.sent, len(result.errors)) == (2, 1)
    assert "3 notifications" in result.errors[0]


def test_loops_read_data_of_all_users_in_jobs_only(parts: Parts, flow: FlowProject) -> None:
    parts.activity.track_activity("ada", "view")
    loop = ForEach("u", source("users"), (send("$u.user_id", "Hi"),), HERE)
    assert flow.run_actions([loop], {"current_user": {"id": "ada"}}).sent == 0
    assert flow.run_actions([loop], {}, trigger="job").sent == 1
    assert project.LOOP_ROWS <= actions.MOST_ACTIONS
