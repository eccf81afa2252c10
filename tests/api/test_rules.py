"""Rules over HTTP: create, show, change, dry-run and delete by the owning app; and rules firing in the server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_client import BATCH, RULES, TEMPLATES, TIME, UUID7, App, fresh, ok, problem, track
from tests.support.server_process import ServerProcess, eventually, serving

FIELDS = {
    "id", "name", "app", "watches", "enabled", "on", "alert", "send", "to", "cooldown_minutes", "fired",
    "last_fired_at", "last_error", "last_error_at", "created_at", "updated_at",
}  # fmt: skip
SEND_BACK = ("name", "enabled", "on", "alert", "send", "to", "cooldown_minutes")
FELL = {"metric": "active_users", "change_percent": -50, "check_at": "18:00"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("rules")) as running:
        yield running
        assert "Traceback" not in running.log
        assert "ERROR" not in running.log


@pytest.fixture
def app(server: ServerProcess) -> App:
    return App(server, "manage", "send", "track", "read")


def rule(kind: str = "x", **more: Any) -> dict[str, Any]:
    send = {"title": "Oh", "message": "{user_id} did {activity_type}"}
    return {"name": fresh("rule"), "on": {"activity_type": kind}, "send": send, "cooldown_minutes": 0} | more


def make(caller: Any, body: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = ok(caller.api("POST", RULES, body), 201)["rule"]
    return made


def get(caller: Any, name: str, **query: str) -> dict[str, Any]:
    found: dict[str, Any] = ok(caller.api("GET", f"{RULES}/{name}", params=query))["rule"]
    return found


def inbox(caller: Any, user: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ok(caller.api("GET", f"/api/notifications/user/{user}", params={"limit": 200}))[
        "notifications"
    ]
    return rows


# --- one by one -------------------------------------------------------------------------------------------------------


def test_a_rule_is_answered_and_read_back_whole(app: App) -> None:
    where = [{"field": "metadata.plan", "op": "in", "value": ["pro", 1, True]}, {"field": "page_url", "op": "exists"}]
    on = {"activity_type": "checkout_failed", "where": where, "times": 3, "within_minutes": 10}
    body = rule(on=on, to=["eve", "bob"], enabled=False, cooldown_minutes=60)
    made = make(app, body)
    assert set(made) == FIELDS
    assert UUID7.fullmatch(made["id"])
    assert TIME.fullmatch(made["created_at"])
    assert made["on"] == on
    assert (made["send"], made["to"], made["alert"]) == (body["send"], ["eve", "bob"], None)
    assert (made["app"], made["watches"], made["fired"], made["last_error"]) == (app.name, app.name, 0, None)
    assert get(app, made["name"]) == made
    assert ok(app.api("GET", RULES)) == {"success": True, "rules": [made], "next_cursor": None}


def test_a_shown_rule_can_be_sent_back_and_changes_nothing(app: App) -> None:
    text = {"title": "t", "message": "{now}"}
    for body in (rule(), rule(on=None, alert=FELL, to=["eve"], send=text)):
        made = make(app, {name: value for name, value in body.items() if value is not None})
        assert made["alert"] is None or made["alert"]["compare"] == "same_weekday"
        changed = ok(app.api("PUT", f"{RULES}/{made['name']}", {name: made[name] for name in SEND_BACK}))["rule"]
        assert changed == made | {"updated_at": changed["updated_at"]}


def test_a_change_replaces_and_a_deleted_rule_is_answered_once_more(app: App) -> None:
    made = make(app, rule())
    path = f"{RULES}/{made['name']}"
    changed = ok(app.api("PUT", path, {"on": {"activity_type": "y"}, "send": made["send"], "enabled": False}))["rule"]
    assert (changed["id"], changed["on"]["activity_type"], changed["enabled"]) == (made["id"], "y", False)
    assert ok(app.api("DELETE", path))["rule"] == changed
    for method, address in (("GET", path), ("DELETE", path), ("POST", f"{path}/dry-run")):
        problem(app.api(method, address), "not_found")
    problem(app.api("PUT", path, {"on": {"activity_type": "y"}, "send": made["send"]}), "not_found")


def test_a_name_that_is_taken_is_a_conflict(app: App) -> None:
    made, other = make(app, rule()), make(app, rule())
    problem(app.api("POST", RULES, rule(name=made["name"])), "conflict")
    body = {"name": made["name"], "on": {"activity_type": "y"}, "send": made["send"]}
    problem(app.api("PUT", f"{RULES}/{other['name']}", body), "conflict")


def test_the_list_is_paged_newest_first(app: App) -> None:
    names = [make(app, rule())["name"] for _ in range(5)]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = ok(app.api("GET", RULES, params={"limit": 2} | cursor))
        found += [one["name"] for one in page["rules"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == names[::-1]
    problem(app.api("GET", RULES, params={"cursor": "nope"}), "validation_error", "cursor")


TEXT = {"title": "t", "message": "m"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"on": {"activity_type": "x", "where": [{"field": "metadata.a", "op": "like", "value": 1}]}},
         "on.where.0.op"),
        ({"on": {"activity_type": "x", "where": [{"field": "metadata.a", "op": "lt", "value": None}]}},
         "on.where.0.value"),
        ({"on": {"activity_type": "x", "where": "all"}}, "on.where"),
        ({"on": {"activity_type": "x", "times": 2}}, "on.within_minutes"),
        ({"on": {}}, "on.activity_type"),
        ({"on": None}, "on"),
        ({"alert": FELL, "to": ["a"]}, "on"),
        ({"on": None, "alert": FELL | {"metric": "money"}, "to": ["a"], "send": TEXT}, "alert.metric"),
        ({"on": None, "alert": FELL | {"check_at": "24:00"}, "to": ["a"], "send": TEXT}, "alert.check_at"),
        ({"on": None, "alert": FELL, "send": TEXT}, "to"),
        ({"to": "everyone"}, "to"),
        ({"to": [""]}, "to.0"),
        ({"send": {"title": "t"}}, "send.message"),
        ({"send": {"template": "never made"}}, "send.template"),
        ({"send": {"title": "t", "message": "{secret}"}}, "send.message"),
        ({"send": {"title": "t", "message": "m", "channels": ["pigeon"]}}, "send.channels"),
        ({"send": {"title": "t", "message": "m", "scheduled_at": "2026-01-01T00:00:00Z"}}, "send.scheduled_at"),
        ({"name": "dry-run"}, "name"),
        ({"name": "a b"}, "name"),
        ({"app": "another"}, "app"),
    ],
)  # fmt: skip
def test_an_invalid_rule_is_refused_by_its_field_and_not_created(app: App, change: dict[str, Any], field: str) -> None:
    problem(app.api("POST", RULES, rule() | change), "validation_error", field)
    assert ok(app.api("GET", RULES))["rules"] == []


def test_data_may_be_a_hundred_levels_deep_and_no_deeper(app: App) -> None:
    for levels, good in ((100, True), (101, False)):
        deep: Any = 1
        for _ in range(levels - 1):
            deep = [deep]
        answer = app.api("POST", RULES, rule(send={"title": "t", "message": "m", "data": {"d": deep}}))
        assert answer.status_code == (201 if good else 400), answer.text


# --- whose ------------------------------------------------------------------------------------------------------------


def test_writing_a_rule_needs_send_too_and_reading_trying_and_ending_one_does_not(server: ServerProcess) -> None:
    name = fresh("app")
    full = App(server, "manage", "send", name=name)
    made = make(full, rule())
    ok(server.api("DELETE", f"/api/keys/{name}"))
    manager = App(server, "manage", name=name)
    assert "“send”" in problem(manager.api("POST", RULES, rule()), "forbidden")["detail"]
    body = {"on": {"activity_type": "y"}, "send": made["send"]}
    problem(manager.api("PUT", f"{RULES}/{made['name']}", body), "forbidden")
    assert get(manager, made["name"]) == made
    ok(manager.api("POST", f"{RULES}/{made['name']}/dry-run"))
    ok(manager.api("POST", f"{RULES}/dry-run", {"on": {"activity_type": "x"}}))
    ok(manager.api("DELETE", f"{RULES}/{made['name']}"))


def test_another_apps_rule_is_404_and_an_admin_sees_all_and_says_whose(server: ServerProcess, app: App) -> None:
    other = App(server, "manage", "send", "track")
    made = make(app, rule())
    twin = make(other, rule(name=made["name"]))
    path = f"{RULES}/{made['name']}"
    assert get(other, made["name"])["id"] == twin["id"]
    only = make(app, rule())
    address = f"{RULES}/{only['name']}"
    for method, place in (("GET", address), ("DELETE", address), ("POST", f"{address}/dry-run")):
        problem(other.api(method, place), "not_found")
    problem(other.api("PUT", address, {"on": {"activity_type": "y"}, "send": made["send"]}), "not_found")
    problem(other.api("GET", address, params={"app": app.name}), "forbidden")
    assert get(server, only["name"])["id"] == only["id"]
    assert app.name in problem(server.api("GET", path), "conflict")["detail"]
    assert get(server, made["name"], app=other.name)["id"] == twin["id"]
    problem(server.api("GET", path, params={"app": "nobody"}), "not_found")
    assert {only["id"], made["id"], twin["id"]} <= {row["id"] for row in server.everything(RULES, "rules")}


def test_an_admins_rule_watches_every_app_unless_it_names_one(server: ServerProcess, app: App) -> None:
    kind, user = fresh("kind"), fresh()
    everywhere = make(server, rule(kind))
    here = make(server, rule(kind, app=app.name))
    assert (everywhere["app"], everywhere["watches"]) == ("local", None)
    assert (here["app"], here["watches"]) == (app.name, app.name)
    track(server, user, kind)
    track(app, user, kind)
    eventually(lambda: len(inbox(server, user)) == 3)
    assert (get(server, everywhere["name"])["fired"], get(app, here["name"])["fired"]) == (2, 1)


# --- at work ----------------------------------------------------------------------------------------------------------


def test_the_third_failure_tells_the_user_once_in_the_cool_down(app: App) -> None:
    kind, user = fresh("failed"), fresh()
    ok(app.api("POST", TEMPLATES, {
        "name": kind, "title_template": "Trouble, {user_id}?", "message_template": "{times} times on {page_url}",
    }), 201)  # fmt: skip
    where = [{"field": "metadata.plan", "op": "eq", "value": "pro"}]
    on = {"activity_type": kind, "where": where, "times": 3, "within_minutes": 10}
    made = make(app, rule(on=on, send={"template": kind, "channels": ["in_app"]}, cooldown_minutes=60))
    for plan in ("pro", "free", "pro", "free", "free"):
        track(app, user, kind, metadata={"plan": plan}, page_url="/pay")
    other = fresh()
    for _ in range(3):
        track(app, other, kind, metadata={"plan": "pro"}, page_url="/pay")
    eventually(lambda: len(inbox(app, other)) == 1)
    assert inbox(app, user) == []
    for _ in range(6):
        track(app, user, kind, metadata={"plan": "pro"}, page_url="/pay")
    eventually(lambda: len(inbox(app, user)) == 1)
    (notice,) = inbox(app, user)
    assert (notice["title"], notice["message"]) == (f"Trouble, {user}?", "3 times on /pay")
    assert notice["data"]["metadata"] == {"plan": "pro"}
    now = get(app, made["name"])
    assert (now["fired"], now["last_error"]) == (2, None)
    assert TIME.fullmatch(now["last_fired_at"])
    tried = ok(app.api("POST", f"{RULES}/{made['name']}/dry-run"))
    assert (tried["would_have_fired"], tried["judged"], tried["days"], tried["complete"]) == (2, 14, 7, True)


def test_a_rule_that_is_sent_back_as_it_was_goes_on_counting(app: App) -> None:
    kind, user = fresh("kind"), fresh()
    on = {"activity_type": kind, "where": [{"field": "app", "op": "ne", "value": "z"}], "times": 2, "within_minutes": 5}
    made = make(app, rule(on=on))
    track(app, user, kind)
    ok(app.api("PUT", f"{RULES}/{made['name']}", {name: made[name] for name in SEND_BACK}))
    track(app, user, kind)
    eventually(lambda: len(inbox(app, user)) == 1)


def test_a_rule_whose_template_is_gone_says_so_and_stops_no_other(app: App) -> None:
    kind, user = fresh("kind"), fresh()
    ok(app.api("POST", TEMPLATES, {"name": kind, "title_template": "t", "message_template": "m"}), 201)
    bad, good = make(app, rule(kind, send={"template": kind})), make(app, rule(kind))
    ok(app.api("DELETE", f"{TEMPLATES}/{kind}"))
    track(app, user, kind)
    eventually(lambda: len(inbox(app, user)) == 1)
    assert get(app, bad["name"])["last_error"] == f"template: there is no template “{kind}”"
    assert (get(app, bad["name"])["fired"], get(app, good["name"])["fired"]) == (0, 1)


def test_hostile_and_deep_metadata_is_only_ever_text(app: App) -> None:
    kind, user = fresh("kind"), fresh()
    send = {"title": "t", "message": "{metadata_a}", "data": {"kept": True}}
    where = [{"field": "metadata.b.c.d.e", "op": "ne", "value": 1}]
    made = make(app, rule(on={"activity_type": kind, "where": where}, send=send))
    deep: Any = {"x": 1}
    for _ in range(90):
        deep = {"b": deep}
    for hostile in ("{user_id} $title {0.__class__}", "'; DROP TABLE rules; --", "\u202eabc 🙂", "<b>x</b>"):
        track(app, user, kind, metadata={"a": hostile, "b": deep})
    eventually(lambda: len(inbox(app, user)) == 4)
    assert [row["message"] for row in reversed(inbox(app, user))] == [
        "{user_id} $title {0.__class__}", "'; DROP TABLE rules; --", "\u202eabc 🙂", "<b>x</b>",
    ]  # fmt: skip
    assert all("metadata" not in row["data"] and row["data"]["kept"] for row in inbox(app, user))
    assert get(app, made["name"])["fired"] == 4


def test_a_draft_is_tried_without_being_made(app: App) -> None:
    kind, user = fresh("kind"), fresh()
    now = time.time()
    stamps = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - hours * 3600)) for hours in range(0, 300, 12)]
    rows = [{"user_id": user, "activity_type": kind, "timestamp": stamp} for stamp in stamps]
    assert ok(app.api("POST", BATCH, {"activities": rows}))["accepted"] == 25
    tried = ok(app.api("POST", f"{RULES}/dry-run", rule(kind)))
    assert (tried["would_have_fired"], tried["judged"], len(tried["examples"])) == (14, 14, 10)
    assert set(tried["examples"][0]) == {"at", "user_id", "activity_id"}
    assert tried["examples"][0]["at"] > tried["examples"][1]["at"]
    pairs = {"activity_type": kind, "times": 2, "within_minutes": 60 * 12}
    assert ok(app.api("POST", f"{RULES}/dry-run", {"on": pairs, "cooldown_minutes": 0}))["would_have_fired"] == 7
    assert ok(app.api("POST", f"{RULES}/dry-run", {"alert": FELL | {"min_before": 1}}))["judged"] == 7
    problem(app.api("POST", f"{RULES}/dry-run", {}), "validation_error", "on")
    assert ok(app.api("GET", RULES))["rules"] == []
    assert inbox(app, user) == []


def test_a_server_killed_while_it_judges_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    users = [f"user{number}" for number in range(20)]
    each = rule("deed", name="each")
    once = rule("deed", name="once", to=["eve"], cooldown_minutes=60)
    with serving(tmp_path) as server:
        make(server, each)
        make(server, once)
        for _ in range(5):
            rows = [{"user_id": user, "activity_type": "deed"} for user in users] * 10
            ok(server.api("POST", BATCH, {"activities": rows}))
        server.kill()
    for _ in range(2):
        with serving(tmp_path) as server:
            rows = [{"user_id": user, "activity_type": "deed"} for user in users]
            ok(server.api("POST", BATCH, {"activities": rows}))
            server.kill()
    with serving(tmp_path) as server:
        eventually(lambda: get(server, "each")["fired"] == 20 * 52)
        for user in users:
            told = [row["data"]["activity_id"] for row in inbox(server, user)]
            assert len(told) == len(set(told)) == 52
        assert Counter(row["data"]["user_id"] for row in inbox(server, "eve")) == dict.fromkeys(users, 1)
        assert get(server, "once")["fired"] == 20
