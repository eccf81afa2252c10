"""Applying a project: types, templates and rules through the services, all or nothing; the rest stays untouched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashflow.backend.core.errors import StorageFull, ValidationError
from flashflow.backend.flow import project as project_module
from flashflow.backend.flow.language.declarations import Form, Project, Rule
from flashflow.backend.flow.language.errors import FlowError
from flashflow.backend.flow.project import FlowProject
from flashflow.backend.rules.service import RuleRef
from flashflow.backend.schemas.rules import OnIn, RuleMessageIn
from flashflow.backend.store.flow.models import FlowRow
from tests.support.flow_parts import (
    HERE,
    PRODUCT,
    USER,
    Files,
    Parts,
    field,
    model,
    notification_type,
    parts_in,
    run,
    template,
)


def rule(name: str, to: object = "user", title: str = "Hello", times: int = 1, **fields: object) -> Rule:
    on = OnIn(activity_type="buy", times=times, within_minutes=10 if times > 1 else None)
    message = RuleMessageIn(title=title, message="World") if not fields else RuleMessageIn(**fields)  # type: ignore[arg-type]
    return Rule(name, on, message, to, 60, HERE)  # type: ignore[arg-type]


FULL = Project(
    models=(PRODUCT, USER),
    notification_types=(notification_type("orders", label="Orders", channels=["in_app"], critical=True),),
    templates=(template("welcome", data_schema={"type": "object"}),),
    rules=(rule("thanks", template="welcome", notification_type="orders"),),
)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with parts_in(tmp_path) as parts:
        yield parts


@pytest.fixture
def files(parts: Parts, tmp_path: Path) -> Files:
    return Files(tmp_path / "app.flow", FULL)


@pytest.fixture
def flow(parts: Parts, files: Files) -> FlowProject:
    flow = FlowProject(parts, [files.path], files)
    assert flow.load() == ()
    return flow


def reload(flow: FlowProject, files: Files, project: Project) -> tuple[FlowError, ...]:
    files.project = project
    files.touch(files.path.read_text() + ".")
    assert flow.poll()
    return flow.errors


def stored(parts: Parts) -> tuple[list[str], list[str], list[str]]:
    types = [kind.name for kind in parts.notifications.preferences.types() if kind.app == "flow"]
    return (
        types,
        [one.name for one in parts.notifications.templates.all()],
        [one.name for one in parts.rules.page().rules],
    )


def test_declarations_reach_the_services_as_those_of_the_app_flow(parts: Parts, flow: FlowProject) -> None:
    assert stored(parts) == (["orders"], ["welcome"], ["thanks"])
    (kind,) = (one for one in parts.notifications.preferences.types() if one.name == "orders")
    assert (kind.app, kind.critical) == ("flow", True)
    parts.activity.track_activity("ada", "buy")
    parts.rules.evaluator.evaluate_new()
    (sent,) = parts.notifications.get_user_notifications("ada").notifications
    assert (sent.title, sent.notification_type, sent.app) == ("Hello", "orders", "flow")


def test_what_has_not_changed_is_not_written(parts: Parts, flow: FlowProject, files: Files) -> None:
    parts.events.clear()
    parts.clock.go(minutes=5)
    before = parts.notifications.templates.get("welcome"), parts.rules.get(RuleRef("thanks"))
    assert reload(flow, files, FULL) == ()
    assert [event.kind for event in parts.events] == ["flow"]
    assert (parts.notifications.templates.get("welcome"), parts.rules.get(RuleRef("thanks"))) == before


def test_changed_declarations_are_updated_and_removed_ones_removed(
    parts: Parts, flow: FlowProject, files: Files
) -> None:
    parts.notifications.update_notification_preference("ada", "orders", "in_app", False)
    changed = Project(templates=(template("welcome", "Good day"),), rules=(rule("thanks", times=2),))
    assert reload(flow, files, changed) == ()
    assert stored(parts) == ([], ["welcome"], ["thanks"])
    assert parts.notifications.templates.get("welcome").title_template == "Good day"
    on = parts.rules.get(RuleRef("thanks")).on
    assert on is not None
    assert on.times == 2
    # A choice of a user outlives the type.
    (choice,) = parts.notifications.get_preferences("ada").preferences
    assert (choice.notification_type, choice.enabled) == ("orders", False)


def test_a_rule_that_the_owner_switched_off_stays_off(parts: Parts, flow: FlowProject, files: Files) -> None:
    parts.notifications.store.run(parts.rules.enable_write(RuleRef("thanks"), False))
    assert reload(flow, files, Project(rules=(rule("thanks", title="Another"),))) == ()
    assert parts.rules.get(RuleRef("thanks")).enabled is False


def test_a_refused_declaration_leaves_the_last_version_in_force(parts: Parts, flow: FlowProject, files: Files) -> None:
    parts.notifications.declare_type("alerts", app="shop")
    parts.notifications.create_notification_template("theirs", "Title", "Message", app="shop")
    parts.events.clear()
    errors = reload(
        flow, files,
        Project(
            notification_types=(notification_type("news"), notification_type("alerts")),
            templates=(template("theirs"), template("new")),
            rules=(rule("lost", template="missing"), rule("found", template="new")),
        ),
    )  # fmt: skip
    assert [error.message for error in errors] == [
        "the notification type “alerts” belongs to the app “shop”",
        "the template “theirs” belongs to the app “shop”",
        "send.template: there is no template “missing”",
    ]
    assert flow.problem is not None
    assert "stays in force" in flow.problem
    assert "and 2 more" in flow.problem
    assert flow.project is FULL
    types, templates, rules = stored(parts)
    assert (types, sorted(templates), rules) == (["orders"], ["theirs", "welcome"], ["thanks"])
    assert [event.kind for event in parts.events] == ["flow"]
    assert reload(flow, files, FULL) == ()
    assert flow.problem is None


def test_a_file_with_errors_leaves_the_last_version_in_force(parts: Parts, flow: FlowProject, files: Files) -> None:
    files.errors = (FlowError(HERE, "this is wrong.", "Mend it."),)
    assert reload(flow, files, Project()) == files.errors
    assert flow.project is FULL
    assert flow.problem is not None
    assert flow.problem.endswith("app.flow:1:1: this is wrong.")
    assert stored(parts)[2] == ["thanks"]


def test_a_removed_file_removes_its_declarations_but_no_data(parts: Parts, flow: FlowProject, files: Files) -> None:
    flow.submit(Form("add", ("name", "price"), "Product", HERE), {"name": "Pen", "price": 1}, "ada")
    files.path.unlink()
    assert not flow.poll()  # an editor may be replacing the file
    assert flow.poll()
    assert flow.project == Project()
    assert stored(parts) == ([], [], [])
    conn = parts.notifications.store.database.connection()  # type: ignore[no-untyped-call]
    assert conn.execute(f"SELECT COUNT(*) FROM {FlowRow._meta.table_name}").fetchone() == (1,)


def test_a_reader_that_fails_leaves_the_last_version_in_force(
    parts: Parts, flow: FlowProject, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.fault = RecursionError("too deep")
    (error,) = reload(flow, files, Project())
    assert "internal error" in error.message
    assert flow.project is FULL


def test_a_storage_fault_is_tried_again_without_a_change(
    flow: FlowProject, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise StorageFull("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(project_module, "apply", full)
        assert reload(flow, files, Project(models=(USER,))) == ()
        assert flow.problem is not None
        assert "The disk is full." in flow.problem
    assert flow.poll()
    assert (flow.problem, flow.project.models) == (None, (USER,))
    assert not flow.poll()


def test_an_unchanged_file_is_not_read_again(flow: FlowProject, files: Files) -> None:
    assert not flow.poll()
    files.path.write_text(files.path.read_text())
    assert not flow.poll()


def test_rules_to_admins_follow_the_rows_of_users(parts: Parts) -> None:
    flow = run(parts, Project(models=(USER,), rules=(rule("thanks", "admin_users"),)))
    assert parts.rules.get(RuleRef("thanks")).to == ["owner"]
    flow.submit(Form("join", ("id", "role"), "User", HERE), {"id": "root", "role": "admin"}, "owner")
    assert parts.rules.get(RuleRef("thanks")).to == ["owner", "root"]


def test_rules_to_all_users_follow_the_activities(parts: Parts) -> None:
    flow = run(parts, Project(rules=(rule("thanks", "all_users"),)))
    parts.activity.track_activity("ada", "view")
    flow.poll()
    assert parts.rules.get(RuleRef("thanks")).to == ["owner"]
    parts.clock.go(seconds=61)
    flow.poll()
    assert parts.rules.get(RuleRef("thanks")).to == ["owner", "ada"]


def test_a_rule_to_a_group_that_outgrows_it_reaches_the_first_users(parts: Parts) -> None:
    for number in range(120):
        parts.activity.track_activity(f"user {number}", "view")
    run(parts, Project(rules=(rule("thanks", "all_users"),)))
    to = parts.rules.get(RuleRef("thanks")).to
    assert (len(to), to[0]) == (100, "owner")


# --- activities of models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "fields"),
    [
        ({"name": "Pen", "price": "3"}, ["metadata.price"]),
        ({"name": "Pen"}, ["metadata.price"]),
        ({"name": "Pen", "price": 3, "colour": "red"}, ["metadata.colour"]),
        ({"name": 7, "price": 3, "size": "huge"}, ["metadata.name", "metadata.size"]),
    ],
)
def test_an_activity_that_names_a_model_is_checked(
    parts: Parts, flow: FlowProject, metadata: dict[str, object], fields: list[str]
) -> None:
    with pytest.raises(ValidationError) as refusal:
        parts.activity.track_activity("ada", "view", metadata={"model": "Product", **metadata})
    assert [error.field for error in refusal.value.errors] == fields
    batch = parts.activity.track_batch(
        [
            {"user_id": "ada", "activity_type": "view", "metadata": {"model": "Product", **metadata}},
            {"user_id": "ada", "activity_type": "view", "metadata": {"model": "Product", "name": "Pen", "price": 3}},
        ]
    )
    assert batch.accepted == 1
    assert [field for field, _ in batch.rejected[0].errors] == fields


@pytest.mark.parametrize("metadata", [{"model": "Tesla", "price": "x"}, {"model": 7}, {"model": ["Product"]}, {}])
def test_other_metadata_is_free(parts: Parts, flow: FlowProject, metadata: dict[str, object]) -> None:
    assert parts.activity.track_activity("ada", "view", metadata=metadata).stored


def test_a_model_may_have_a_field_of_the_name_of_the_key(parts: Parts) -> None:
    run(parts, Project(models=(model("Car", field("model", "string", required=True), field("doors", "integer")),)))
    assert parts.activity.track_activity("ada", "view", metadata={"model": "Car", "doors": 5}).stored
    with pytest.raises(ValidationError, match="doors"):
        parts.activity.track_activity("ada", "view", metadata={"model": "Car", "doors": "5"})


def test_a_removed_model_checks_nothing(parts: Parts, flow: FlowProject, files: Files) -> None:
    reload(flow, files, Project())
    assert parts.activity.track_activity("ada", "view", metadata={"model": "Product"}).stored
