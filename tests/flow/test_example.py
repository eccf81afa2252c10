"""The example of an integration, served as a user serves it: five steps, reload, and errors at the start."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashflow.backend import Backend, Config
from flashflow.backend.flow.language.declarations import Bell, Chart, Container, Element, Form, SettingsPanel, Table
from flashflow.backend.flow.project import FlowProject, load_files
from tests.support.api_client import RULES, SEND, TEMPLATES, TYPES, App, ok
from tests.support.fixed_clock import StillClock
from tests.support.flow_parts import parts_in
from tests.support.server_process import ROOT, ServerProcess, eventually, flashflow, serving

EXAMPLE = ROOT / "examples" / "user_tracking_notifications.flow"
WITHIN_S = 2.0
"""Seconds from a change of a file until it is in force."""


def elements(found: tuple[Element, ...]) -> Iterator[Element]:
    for one in found:
        yield one
        if isinstance(one, Container):
            yield from elements(one.children)


def names(server: ServerProcess, path: str, rows: str) -> set[str]:
    return {row["name"] for row in ok(server.api("GET", path))[rows]}


def call(server: ServerProcess, method: str, path: str, json: Any = None, key: str | None = None) -> httpx.Response:
    """A request to a path that the API's document does not have."""
    headers = {"Authorization": f"Bearer {key or server.key}"}
    return httpx.request(method, f"{server.url}{path}", json=json, headers=headers, trust_env=False, timeout=20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("data"), str(EXAMPLE)) as server:
        yield server


def test_the_example_runs_all_five_steps_of_an_integration(server: ServerProcess) -> None:
    # 1. Models: an activity that names one is checked.
    wrong = {"model": "Product", "name": "Lamp", "price": "40", "category": "cars"}
    answer = call(server, "POST", "/api/track-activity", {"user_id": "ada", "activity_type": "v", "metadata": wrong})
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["metadata.price", "metadata.category"]
    # 2. Activities, by the path of the file.
    for _ in range(3):
        tracked = {"user_id": "ada", "activity_type": "checkout_failed", "metadata": {"amount": 25}}
        assert call(server, "POST", "/api/track-activity", tracked).status_code == 201
    listed = call(server, "GET", "/api/user-activities?user_id=ada").json()["activities"]
    assert [one["activity_type"] for one in listed] == ["checkout_failed"] * 3

    # 3. and 4. The rule notifies, and the inbox has it.
    def inbox() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ok(server.api("GET", "/api/notifications/user/ada"))["notifications"]
        return found

    (notification,) = eventually(inbox, what="the notification of the rule")
    assert notification["title"] == "Can we help?"
    assert notification["message"].startswith("Your payment failed 3 times.")
    assert (notification["app"], notification["notification_type"]) == ("flow", "help")
    assert notification["data"]["kind"] == "warning"
    # 5. Preferences of the declared types.
    assert names(server, TYPES, "notification_types") >= {"shop_news", "help"}
    choice = {"user_id": "ada", "notification_type": "shop_news", "channel": "in_app", "enabled": False}
    ok(server.api("POST", "/api/notifications/preferences", choice))
    sent = {"user_id": "ada", "title": "News", "message": "Text", "notification_type": "shop_news"}
    assert ok(server.api("POST", SEND, sent), 201)["status"] == "suppressed"
    assert ok(server.api("GET", "/api/health"))["flow"] == "ok"


def test_every_source_form_and_action_of_the_examples_pages_works(tmp_path: Path) -> None:
    with parts_in(tmp_path) as parts:
        flow = FlowProject(parts, [EXAMPLE])
        assert flow.load() == ()
        shop, numbers = flow.project.pages
        found = list(elements(shop.elements))
        assert {type(one) for one in found} >= {Bell, SettingsPanel, Table, Chart, Form}
        (form,) = (one for one in found if isinstance(one, Form))
        done = flow.submit(form, {"name": "Lamp", "price": "39.5", "category": "home", "in_stock": "true"}, "ada")
        assert (done.result.tracked, done.result.errors) == (1, ())
        assert done.result.sent == 2  # to the owner and ada
        (product,) = (one for one in found if isinstance(one, Table) and one.name == "products")
        scope = flow.scope_of("ada")
        (row,) = flow.read_source(product.data, scope, sort=product.sort).rows
        assert row["name"] == "Lamp"
        assert flow.click_row(product, row, "ada").tracked == 1
        for page in (shop, numbers):
            for one in elements(page.elements):
                if isinstance(one, Table | Chart):
                    sort = one.sort if isinstance(one, Table) else None
                    data = flow.read_source(one.data, scope, sort=sort, all_users=page.auth == "admin")
                    assert dict(data.columns).keys() >= set(one.columns if isinstance(one, Table) else (one.x, *one.y))
        (job,) = flow.project.jobs
        parts.clock.go(days=1)
        assert flow.run_due_jobs() == [job.name]

        def titles() -> list[str]:
            return [one.title for one in parts.notifications.get_user_notifications("owner").notifications]

        eventually(lambda: "Active since yesterday: ada" in titles(), what="the notification of the job")
        flow.stop()
        assert flow.job_runs()[job.name].last_error is None


def test_a_changed_file_is_in_force_within_two_seconds_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "flows"
    folder.mkdir()
    file = folder / "shop.flow"
    shutil.copy(EXAMPLE, file)
    with serving(tmp_path / "data", str(folder)) as server:

        def seconds_until(condition: Any, what: str) -> float:
            began = time.monotonic()
            eventually(condition, what=what)
            return time.monotonic() - began

        text = EXAMPLE.read_text("utf-8")
        file.write_text(text.replace("template checkout_help", "template checkout_aid").replace(
            "template: checkout_help", "template: checkout_aid"
        ))  # fmt: skip
        took = seconds_until(lambda: names(server, TEMPLATES, "templates") == {"checkout_aid"}, "the new template")
        assert took < WITHIN_S + 0.5  # half a second for a busy machine
        file.write_text("model {")
        seconds_until(lambda: ok(server.api("GET", "/api/health"))["flow"] == "errors", "the error")
        assert names(server, RULES, "rules") == {"checkout_trouble"}
        assert "no  .flow files: the files have errors" in flashflow("doctor", data_dir=tmp_path / "data").stdout
        (folder / "more.flow").write_text('template second { title: "T" message: "M" }')
        shutil.copy(EXAMPLE, file)
        seconds_until(lambda: names(server, TEMPLATES, "templates") == {"checkout_help", "second"}, "both files")
        seconds_until(lambda: ok(server.api("GET", "/api/health"))["flow"] == "ok", "the end of the error")
        file.unlink()
        seconds_until(lambda: names(server, TEMPLATES, "templates") == {"second"}, "the removal")
        assert call(server, "GET", "/api/user-activities?user_id=ada").status_code == 404
        assert server.process.poll() is None
    with serving(tmp_path / "data") as server:  # without files nothing of them is left
        assert names(server, TEMPLATES, "templates") == set()
        assert ok(server.api("GET", "/api/health"))["flow"] == "none"


def test_the_owner_is_notified_of_a_job_that_begins_to_fail(tmp_path: Path) -> None:
    file = tmp_path / "jobs.flow"
    file.write_text('every 5 minutes { name: broken track_activity: { user_id: "ada" activity_type: "*" + now } }')
    clock = StillClock()
    with Backend(Config(me="owner", data_dir=tmp_path / "data", port=0), clock=clock) as backend:
        assert backend.load_flow([file]) == ()
        assert backend.flow is not None

        def inbox() -> list[str]:
            return [one.message for one in backend.notifications.get_user_notifications("owner").notifications]

        for _ in range(2):
            clock.go(minutes=5)
            assert eventually(backend.flow.run_due_jobs, what="the job") == ["broken"]
        (message,) = eventually(inbox, what="the notification")
        assert "activity_type" in message


def test_a_job_goes_through_the_rows_of_a_model(tmp_path: Path) -> None:
    file = tmp_path / "jobs.flow"
    file.write_text(
        "model Lamp { id: integer primary name: string }\n"
        "page Lamps { form add { model: Lamp } }\n"
        "job Look { schedule: every_minute task: { lamps = data: all_lamps  for lamp in lamps {\n"
        '  track_activity: { user_id: "job" activity_type: "seen" metadata: {name: lamp.name} }\n'
        "} } }\n"
    )
    clock = StillClock()
    with Backend(Config(me="owner", data_dir=tmp_path / "data", port=0), clock=clock) as backend:
        assert backend.load_flow([file]) == ()
        assert backend.flow is not None
        (form,) = (one for one in elements(backend.flow.project.pages[0].elements) if isinstance(one, Form))
        for name in ("Desk", "Floor"):
            backend.flow.submit(form, {"name": name}, "owner")
        clock.go(minutes=5)
        assert eventually(backend.flow.run_due_jobs, what="the job") == ["Look"]

        def seen() -> set[str]:
            return {one.metadata["name"] for one in backend.activity.list_activities(user_id="job").activities}

        assert eventually(lambda: seen() == {"Desk", "Floor"}, what="an activity for each row")


@pytest.mark.parametrize("command", [["serve", "--no-ui", "--port", "0"], ["open"], []])
def test_errors_at_the_start_are_shown_and_end_it(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "bad.flow"
    file.write_text('page Shop {\n  tittle: "Shop"\n}\n')
    done = flashflow(*command, str(file), data_dir=tmp_path / "data")
    assert done.returncode == 1, done.stderr
    assert f"{file}:2:3: " in done.stderr
    assert "^" in done.stderr


def test_the_examples_file_is_valid_and_loads_by_the_command(tmp_path: Path) -> None:
    project, errors = load_files([EXAMPLE])
    assert errors == ()
    assert (len(project.models), len(project.pages), len(project.rules)) == (2, 2, 1)
    assert flashflow("check", str(EXAMPLE), data_dir=tmp_path).returncode == 0


# --- aliases ----------------------------------------------------------------------------------------------------------

ALIASES = """
endpoint Send {
  path: "/api/notifications/send" method: POST
  request: { user_id: integer required title: string required message: string required type: string }
}
endpoint Inbox { path: "/api/notifications" query_params: { user_id: integer required limit: integer default:2 } }
endpoint Mark {
  path: "/api/notifications/{id}/status" method: PUT
  path_params: { id: string required } request: { status: string required }
}
endpoint Choose {
  path: "/api/notification-preferences" method: PUT
  request: { user_id: integer required preferences: object required }
}
endpoint Log { path: "/api/log" method: POST alias: "POST /api/activity/track"
  request: { user_id: string required activity_type: string required page_url: string required } }
endpoint Audit { path: "/api/audit" query_params: { user_id: string required } alias: "GET /api/activity" auth: admin }
endpoint Keys { path: "/api/channels" auth: admin }
endpoint Copy { path: "/api/copy/{user_id}/all" alias: "GET /api/users/{user_id}/export" }
"""


@pytest.fixture(scope="module")
def aliased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    file = tmp_path_factory.mktemp("flows") / "aliases.flow"
    file.write_text(ALIASES)
    with serving(tmp_path_factory.mktemp("data"), str(file)) as server:
        yield server


def test_an_alias_answers_as_its_built_in_route_with_its_own_names(aliased: ServerProcess) -> None:
    ids = []
    for title in "abc":
        sent = call(aliased, "POST", SEND, {"user_id": 7, "title": title, "message": "M", "type": "news"})
        assert sent.status_code == 201, sent.text
        ids.append(sent.json()["notification_id"])
    listed = call(aliased, "GET", "/api/notifications?user_id=7").json()
    assert [(one["title"], one["notification_type"]) for one in listed["notifications"]] == [
        ("c", "news"),
        ("b", "news"),
    ]
    more = call(aliased, "GET", "/api/notifications?user_id=7&limit=3").json()["notifications"]
    assert len(more) == 3
    assert call(aliased, "HEAD", "/api/notifications?user_id=7").status_code == 200
    read = call(aliased, "PUT", f"/api/notifications/{ids[0]}/status", {"status": "read"})
    assert read.json()["notification"]["status"] == "read"
    chosen = call(aliased, "PUT", "/api/notification-preferences", {"user_id": 7, "preferences": {"email": False}})
    (choice,) = chosen.json()["preferences"]
    assert (choice["user_id"], choice["notification_type"], choice["channel"], choice["enabled"]) == (
        "7", "*", "email", False,
    )  # fmt: skip
    by_type = {"user_id": 7, "preferences": {"news": {"push": True}}}
    (choice,) = call(aliased, "PUT", "/api/notification-preferences", by_type).json()["preferences"]
    assert (choice["notification_type"], choice["channel"]) == ("news", "push")


def test_an_alias_asks_for_the_key_and_scope_of_its_route(aliased: ServerProcess) -> None:
    body = {"user_id": "ada", "activity_type": "view", "page_url": "/"}
    assert httpx.post(f"{aliased.url}/api/log", json=body, trust_env=False).status_code == 401
    reader, tracker = App(aliased, "read"), App(aliased, "track")
    assert call(aliased, "POST", "/api/log", body, reader.key).status_code == 403
    assert call(aliased, "POST", "/api/log", body, tracker.key).status_code == 201
    # Faults of the rewriting show nothing to a caller without a key either.
    assert httpx.get(f"{aliased.url}/api/notifications", trust_env=False).status_code == 401
    assert call(aliased, "GET", "/api/notifications").status_code == 400


def test_an_endpoint_for_admins_refuses_every_other_key(aliased: ServerProcess) -> None:
    reader = App(aliased, "read", "manage")
    for path in ("/api/audit?user_id=ada", "/api/channels"):
        assert call(aliased, "GET", path, key=reader.key).status_code == 403
        assert call(aliased, "GET", path).status_code == 200
        assert httpx.get(f"{aliased.url}{path}", trust_env=False).status_code == 401


def test_an_alias_takes_any_user_id_in_the_middle_of_its_route(aliased: ServerProcess) -> None:
    answer = call(aliased, "GET", "/api/copy/ada@example.org/all")
    assert (answer.status_code, "ada@example.org" in answer.text) == (200, True)


def test_a_wrong_word_in_an_alias_gets_the_words_that_it_takes(aliased: ServerProcess) -> None:
    for word in ("delivered", "read-all"):
        (error,) = call(aliased, "PUT", "/api/notifications/x/status", {"status": word}).json()["errors"]
        assert error["field"] == "status"
        words = set(error["message"].removeprefix("must be one of ").split(", "))
        assert words == {"archive", "cancel", "read", "reschedule", "retry", "snooze", "unarchive", "unread"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", "/api/audit", None, 400, "user_id"),
        ("GET", "/api/audit?user_id=", None, 400, "user_id"),
        ("POST", "/api/log", {"user_id": "a", "activity_type": "v"}, 400, "page_url"),
        ("PUT", "/api/notification-preferences", {"user_id": 7}, 400, "preferences"),
        ("PUT", "/api/notification-preferences", {"user_id": 7, "preferences": {"email": True}, "x": 1}, 400, "x"),
        ("PUT", "/api/notifications/x/status", {}, 400, "status"),
        ("PUT", "/api/notifications/x/status", {"status": "../keys"}, 400, "status"),
        ("PUT", "/api/notifications/x/status", {"status": ["read"]}, 400, "status"),
        ("PUT", "/api/notifications/x/status", {"status": "gone"}, 400, "status"),
        ("PUT", "/api/notifications/x/status", {"status": "read"}, 404, None),
        ("POST", "/api/log", {"user_id": "", "activity_type": "v", "page_url": "/"}, 400, "user_id"),
        ("POST", "/api/log", [], 400, None),
        ("DELETE", "/api/log", None, 405, None),
        ("GET", "/api/log/more", None, 404, None),
    ],
)
def test_a_wrong_request_to_an_alias_gets_a_problem(
    aliased: ServerProcess, method: str, path: str, body: Any, status: int, field: str | None
) -> None:
    answer = call(aliased, method, path, body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    if field is not None:
        assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_an_alias_takes_no_larger_body_than_its_route(aliased: ServerProcess) -> None:
    answer = call(aliased, "POST", "/api/log", {"user_id": "a", "activity_type": "v", "page_url": "x" * 2_000_000})
    assert answer.status_code == 413
