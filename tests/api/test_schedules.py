"""Recurring notifications over HTTP: create, show, change, run and delete by the owning app."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashflow.backend.app import Backend
from flashflow.backend.core.config import Config
from tests.support.api_client import JSON, KEYS, TEMPLATES, TIME, UUID7, App, contents, fresh, ok, problem
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock
from tests.support.server_process import eventually

SCHEDULES = "/api/schedules"
FIELDS = {
    "id", "name", "app", "notification", "rule", "next_at", "last_at", "last_error", "created_at", "updated_at",
}  # fmt: skip
RULE = {
    "every_minutes": None, "at": None, "days": None, "day_of_month": None, "timezone": None, "starts_at": None,
    "ends_at": None,
}  # fmt: skip
NINE = {"at": "09:00", "timezone": "Europe/Berlin"}


class Server:
    """The backend in this process with a stopped clock, on a real port."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder
        self.clock = StillClock()
        self.backend = Backend(Config(data_dir=folder, port=0), clock=self.clock)
        self.backend.start()
        self.client = httpx.Client(base_url=self.backend.url or "", trust_env=False, timeout=20)

    def api(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        if json is not None:
            options["json"] = json
        key = {"Authorization": f"Bearer {self.backend.keys.local_key}"}
        return self.client.request(method, path, **options | {"headers": key | options.get("headers", {})})

    def titles(self, user: str) -> list[str]:
        page = ok(self.api("GET", f"/api/notifications/user/{user}"))
        return [row["title"] for row in page["notifications"]]

    def until_told(self, user: str, times: int) -> None:
        self.backend.notifications.schedules.run_due()
        eventually(lambda: len(self.titles(user)) == times, what=f"{times} notices")

    def close(self) -> None:
        self.client.close()
        self.backend.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("schedules"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def app(server: Server) -> App:
    """An app with the scope send only."""
    return App(server, "send")  # type: ignore[arg-type]


def plan(user: str = "ada", rule: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    notification = {"user_id": user, "title": "Tea", "message": "It is time."}
    return {"name": fresh("tea"), "notification": notification, "rule": rule or NINE} | more


def make(caller: Any, body: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = ok(caller.api("POST", SCHEDULES, body), 201)["schedule"]
    return made


def get(caller: Any, schedule: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = ok(caller.api("GET", f"{SCHEDULES}/{schedule['id']}"))["schedule"]
    return found


# --- one by one -------------------------------------------------------------------------------------------------------


def test_a_schedule_is_answered_and_read_back_whole(app: App) -> None:
    body = plan(rule={"at": "09:00", "days": ["tue", "mon"], "timezone": "Asia/Tokyo"})
    body["notification"] |= {"data": {"cups": [1, None]}, "channels": ["in_app", "email"], "priority": "high"}
    made = make(app, body)
    assert set(made) == FIELDS
    assert UUID7.fullmatch(made["id"])
    assert (made["name"], made["app"], made["notification"]) == (body["name"], app.name, body["notification"])
    assert made["rule"] == RULE | body["rule"] | {"days": ["mon", "tue"]}
    assert made["next_at"] == "2026-06-15T00:00:00.000Z"
    assert (made["last_at"], made["last_error"]) == (None, None)
    assert TIME.fullmatch(made["created_at"])
    assert made["created_at"] == made["updated_at"]
    assert get(app, made) == made
    assert ok(app.api("GET", SCHEDULES)) == {"success": True, "schedules": [made], "next_cursor": None}


def test_a_shown_schedule_can_be_sent_back_and_changes_nothing(server: Server, app: App) -> None:
    rule = {"every_minutes": 90, "starts_at": "2026-07-01T10:00:00.5+02:00", "ends_at": "2027-01-01T00:00:00Z"}
    made = make(app, plan(rule=rule))
    assert made["next_at"] == made["rule"]["starts_at"] == "2026-07-01T08:00:00.500Z"
    server.clock.go(seconds=1)
    body = {name: made[name] for name in ("name", "notification", "rule")}
    changed = ok(app.api("PUT", f"{SCHEDULES}/{made['id']}", body))["schedule"]
    assert changed == made | {"updated_at": changed["updated_at"]}
    assert changed["updated_at"] > made["updated_at"]


def test_without_a_zone_it_is_this_machines_and_the_answer_names_it(server: Server, app: App) -> None:
    made = make(app, plan(rule={"at": "23:59"}))
    assert made["rule"]["timezone"] == server.backend.notifications.zone


def test_a_change_replaces_text_and_rule(app: App) -> None:
    made = make(app, plan())
    body = plan("bob", {"every_minutes": 1_440})
    changed = ok(app.api("PUT", f"{SCHEDULES}/{made['id']}", body))["schedule"]
    assert {name: changed[name] for name in ("id", "app", "name", "notification", "created_at")} == {
        "id": made["id"], "app": app.name, "name": body["name"], "notification": body["notification"],
        "created_at": made["created_at"],
    }  # fmt: skip
    assert changed["rule"] == RULE | {"every_minutes": 1_440}
    assert changed["next_at"] != made["next_at"]
    assert get(app, made) == changed


def test_a_deleted_schedule_is_answered_once_more_and_then_gone(app: App) -> None:
    made = make(app, plan())
    assert ok(app.api("DELETE", f"{SCHEDULES}/{made['id']}"))["schedule"] == made
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "", plan()),
        ("DELETE", "", None),
        ("POST", "/run", None),
    ):
        problem(app.api(method, f"{SCHEDULES}/{made['id']}{path}", body), "not_found")
    assert ok(app.api("GET", SCHEDULES))["schedules"] == []


def test_one_app_has_one_schedule_of_a_name(server: Server, app: App) -> None:
    body = plan()
    made = make(app, body)
    problem(app.api("POST", SCHEDULES, body), "conflict")
    assert make(server, body)["app"] == "local"
    other = make(app, plan())
    problem(app.api("PUT", f"{SCHEDULES}/{other['id']}", body), "conflict")
    ok(app.api("PUT", f"{SCHEDULES}/{made['id']}", body))


def test_lists_are_paged_newest_first_and_stay_stable(app: App) -> None:
    made = [make(app, plan())["id"] for _ in range(5)]
    first = ok(app.api("GET", SCHEDULES, params={"limit": 2}))
    make(app, plan())
    second = ok(app.api("GET", SCHEDULES, params={"limit": 2, "cursor": first["next_cursor"]}))
    third = ok(app.api("GET", SCHEDULES, params={"limit": 2, "cursor": second["next_cursor"]}))
    assert [row["id"] for page in (first, second, third) for row in page["schedules"]] == made[::-1]
    assert third["next_cursor"] is None
    for bad, field in (({"cursor": "x"}, "cursor"), ({"limit": 0}, "limit"), ({"limit": 201}, "limit")):
        problem(app.api("GET", SCHEDULES, params=bad), "validation_error", field)
    problem(app.api("GET", SCHEDULES, params={"name": "x"}), "validation_error", "name")


# --- its time and out of turn -----------------------------------------------------------------------------------------


def test_at_its_time_the_user_is_notified_once(server: Server, app: App) -> None:
    user = fresh()
    made = make(app, plan(user, {"every_minutes": 30}))
    server.clock.go(minutes=29)
    server.until_told(user, 0)
    server.clock.go(minutes=1)
    server.until_told(user, 1)
    server.until_told(user, 1)
    now = get(app, made)
    assert now["last_at"] == made["next_at"]
    assert now["next_at"] > now["last_at"]


def test_run_sends_it_now_and_leaves_its_time(server: Server, app: App) -> None:
    users = [fresh(), fresh()]
    body = plan()
    body["notification"] = {"user_ids": users, "title": "Now", "message": "m"}
    made = make(app, body)
    answer = ok(app.api("POST", f"{SCHEDULES}/{made['id']}/run"), 201)
    assert [one["user_id"] for one in answer["notifications"]] == users
    for one in answer["notifications"]:
        assert set(one) == {"user_id", "notification_id", "status", "deliveries"}
        assert one["status"] == "delivered"
    assert answer["schedule"] == made | {"last_at": answer["schedule"]["last_at"]}
    assert TIME.fullmatch(answer["schedule"]["last_at"])
    assert [server.titles(user) for user in users] == [["Now"], ["Now"]]


@pytest.mark.parametrize("run", [True, False], ids=["run", "create"])
def test_a_repeated_request_under_a_key_does_it_once(server: Server, app: App, run: bool) -> None:
    user, headers = fresh(), {"Idempotency-Key": fresh("key")}
    body = plan(user)
    made = make(app, body)
    path, sent = (f"{SCHEDULES}/{made['id']}/run", None) if run else (SCHEDULES, body | {"name": fresh("other")})
    first = app.api("POST", path, sent, headers=headers)
    again = app.api("POST", path, sent, headers=headers)
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert (first.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert len(server.titles(user)) == run
    assert len(ok(app.api("GET", SCHEDULES))["schedules"]) == 2 - run


def test_a_template_that_is_gone_is_said_where_it_can_be_read(server: Server) -> None:
    user, name = fresh(), fresh("text")
    ok(server.api("POST", TEMPLATES, {"name": name, "title_template": "Hi {who}", "message_template": "m"}), 201)
    body = plan()
    body |= {"rule": {"every_minutes": 10}, "notification": {"user_id": user, "template": name}}
    problem(server.api("POST", SCHEDULES, body), "validation_error", "notification.data.who")
    body["notification"]["data"] = {"who": "Ada"}
    made = make(server, body)
    ok(server.api("DELETE", f"{TEMPLATES}/{name}"))
    problem(server.api("POST", f"{SCHEDULES}/{made['id']}/run"), "validation_error", "notification.template")
    server.clock.go(minutes=10)
    server.until_told(user, 0)
    now = eventually(lambda: (s := get(server, made))["last_error"] and s, what="the refusal's words")
    assert name in now["last_error"]
    assert (now["last_at"], now["next_at"] > made["next_at"]) == (None, True)


# --- whose ------------------------------------------------------------------------------------------------------------


def test_another_apps_schedule_is_not_there_without_admin(server: Server, app: App) -> None:
    made, other = make(app, plan()), App(server, "send", "read", "manage")  # type: ignore[arg-type]
    before = contents(server)  # type: ignore[arg-type]
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "", plan()),
        ("DELETE", "", None),
        ("POST", "/run", None),
    ):
        problem(other.api(method, f"{SCHEDULES}/{made['id']}{path}", body), "not_found")
    assert ok(other.api("GET", SCHEDULES))["schedules"] == []
    assert contents(server) == before  # type: ignore[arg-type]
    assert get(server, made) == made
    assert made in ok(server.api("GET", SCHEDULES, params={"limit": 200}))["schedules"]


def test_an_app_is_named_with_admin_only_and_never_changed(server: Server, app: App) -> None:
    body = plan()
    body["notification"]["app"] = "shop"
    problem(app.api("POST", SCHEDULES, body), "validation_error", "notification.app")
    made = make(server, body)
    assert (made["app"], "app" in made["notification"]) == ("shop", False)
    path = f"{SCHEDULES}/{made['id']}"
    assert ok(server.api("PUT", path, body))["schedule"]["app"] == "shop"
    body["notification"]["app"] = "other"
    problem(server.api("PUT", path, body), "validation_error", "notification.app")
    del body["notification"]["app"]
    assert ok(server.api("PUT", path, body))["schedule"]["app"] == "shop"
    mine = make(app, plan())
    body["notification"]["app"] = "shop"
    problem(app.api("PUT", f"{SCHEDULES}/{mine['id']}", body), "validation_error", "notification.app")


def test_every_endpoint_needs_a_key_that_may_send(server: Server, app: App) -> None:
    made = make(app, plan())
    lesser = ok(server.api("POST", KEYS, {"name": fresh("lesser"), "scopes": ["read", "track", "manage"]}), 201)["key"]
    before = contents(server)  # type: ignore[arg-type]
    for method, path, body in (
        ("GET", SCHEDULES, None),
        ("POST", SCHEDULES, plan()),
        ("GET", f"{SCHEDULES}/{made['id']}", None),
        ("PUT", f"{SCHEDULES}/{made['id']}", plan()),
        ("DELETE", f"{SCHEDULES}/{made['id']}", None),
        ("POST", f"{SCHEDULES}/{made['id']}/run", None),
    ):
        problem(server.client.request(method, path, json=body), "unauthorized")
        refused = server.api(method, path, body, headers={"Authorization": f"Bearer {lesser}"})
        assert "send" in problem(refused, "forbidden")["detail"]
    assert contents(server) == before  # type: ignore[arg-type]


# --- bad input --------------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name"),
    ({"name": "x" * 101}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": 7}, "name"),
    ({"nmae": "x"}, "nmae"),
    ({"notification": []}, "notification"),
    ({"notification": {"title": "t", "message": "m"}}, "notification.user_id"),
    ({"notification": {"user_id": "ada", "message": "m"}}, "notification.title"),
    ({"notification": {"user_id": "ada", "title": "t", "message": "\u0000"}}, "notification.message"),
    ({"notification": {"user_id": "ada", "title": "t", "message": "m", "cc": "b"}}, "notification.cc"),
    ({"notification": {"user_ids": [], "title": "t", "message": "m"}}, "notification.user_ids"),
    ({"notification": {"user_ids": ["a", " "], "title": "t", "message": "m"}}, "notification.user_ids.1"),
    (
        {"notification": {"user_id": "a", "title": "t", "message": "m", "scheduled_at": "2027-01-01T00:00:00Z"}},
        "notification.scheduled_at",
    ),
    (
        {"notification": {"user_id": "a", "title": "t", "message": "m", "expires_at": "2027-01-01T00:00:00Z"}},
        "notification.expires_at",
    ),
    ({"notification": {"user_id": "a", "title": "t", "message": "m", "channel": "pigeon"}}, "notification.channel"),
    ({"rule": {}}, "rule.at"),
    ({"rule": "daily"}, "rule"),
    ({"rule": {"at": "9:00"}}, "rule.at"),
    ({"rule": {"at": "09:00", "every_minutes": 5}}, "rule.at"),
    ({"rule": {"every_minutes": 0}}, "rule.every_minutes"),
    ({"rule": {"every_minutes": 10_081}}, "rule.every_minutes"),
    ({"rule": {"every_minutes": 5, "days": ["mon"]}}, "rule.days"),
    ({"rule": {"at": "09:00", "days": ["mon", "someday"]}}, "rule.days.1"),
    ({"rule": {"at": "09:00", "day_of_month": 32}}, "rule.day_of_month"),
    ({"rule": {"at": "09:00", "timezone": "../../../etc/passwd"}}, "rule.timezone"),
    ({"rule": {"at": "09:00", "timezone": "Mars/Olympus"}}, "rule.timezone"),
    ({"rule": {"at": "09:00", "starts_at": "2026-01-01T00:00:00"}}, "rule.starts_at"),
    ({"rule": {"at": "09:00", "ends_at": "9999-12-31T23:59:59Z"}}, "rule.ends_at"),
    ({"rule": {"at": "09:00", "ends_at": "2020-01-01T00:00:00Z"}}, "rule.ends_at"),
    ({"rule": {"at": "09:00", "cron": "* * * * *"}}, "rule.cron"),
]


@pytest.mark.parametrize(("bad", "field"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_input_is_named_by_its_field_and_changes_nothing(
    server: Server, app: App, bad: dict[str, Any], field: str
) -> None:
    made = make(app, plan())
    before = contents(server)  # type: ignore[arg-type]
    problem(app.api("POST", SCHEDULES, plan() | bad), "validation_error", field)
    problem(app.api("PUT", f"{SCHEDULES}/{made['id']}", plan() | bad), "validation_error", field)
    assert contents(server) == before  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["name", "notification", "rule"])
def test_each_part_is_required(app: App, missing: str) -> None:
    body = plan()
    del body[missing]
    problem(app.api("POST", SCHEDULES, body), "validation_error", missing)


@pytest.mark.parametrize("number", ["NaN", "1e999", "9" * 5000, "[" * 101 + "]" * 101, "[" * 50_000])
def test_data_that_could_not_be_stored_is_refused(server: Server, app: App, number: str) -> None:
    body = plan()
    body["notification"]["data"] = {"x": 0}
    before = contents(server)  # type: ignore[arg-type]
    sent = json.dumps(body).replace('"x": 0', f'"x": {number}')
    problem(app.api("POST", SCHEDULES, content=sent.encode(), headers=JSON), "validation_error")
    assert contents(server) == before  # type: ignore[arg-type]


def test_nesting_to_the_limit_is_stored_shown_and_sent(server: Server, app: App) -> None:
    user = fresh()
    body = plan(user, {"every_minutes": 1})
    body["notification"]["data"] = json.loads('{"a":' + "[" * 99 + "]" * 99 + "}")
    made = make(app, body)
    assert get(app, made)["notification"] == body["notification"]
    ok(app.api("POST", f"{SCHEDULES}/{made['id']}/run"), 201)
    server.clock.go(minutes=1)
    server.until_told(user, 2)


@pytest.mark.parametrize("name", ["x", "%F0%9F%8D%B5", "' OR 1=1 --", "0" * 300])
def test_an_id_that_is_none_is_404(app: App, name: str) -> None:
    for method, path, body in (("GET", "", None), ("PUT", "", plan()), ("DELETE", "", None), ("POST", "/run", None)):
        problem(app.api(method, f"{SCHEDULES}/{name}{path}", body), "not_found")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
near = st.fixed_dictionaries(
    {},
    optional={
        "every_minutes": st.integers(-1, 10_100) | anything,
        "at": st.from_regex(r"[0-2][0-9]:[0-6][0-9]", fullmatch=True) | anything,
        "days": st.lists(st.sampled_from(["mon", "sun", "x"]), max_size=3) | anything,
        "day_of_month": st.integers(0, 32) | anything,
        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia", "Factory", "x"]) | anything,
        "starts_at": st.datetimes().map(lambda moment: f"{moment.isoformat()}Z") | anything,
        "ends_at": st.datetimes().map(lambda moment: f"{moment.isoformat()}+14:00") | anything,
    },
)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rule=near | anything, notification=st.none() | anything)
def test_nothing_that_is_sent_is_answered_with_a_fault(app: App, rule: Any, notification: Any) -> None:
    body = plan(notification=notification) if notification is not None else plan()
    answer = app.api("POST", SCHEDULES, body | {"rule": rule})
    if answer.status_code == 201:
        made = ok(answer, 201)["schedule"]
        assert made["next_at"] > made["created_at"]
    else:
        problem(answer, "validation_error")
