"""Access rights of a key: every endpoint with every scope, and one app's access to another's rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.api_client import (
    BATCH,
    DEVICES,
    KEYS,
    PREFERENCES,
    SEND,
    START,
    TEMPLATES,
    TRACK,
    TYPES,
    App,
    contents,
    fresh,
    ok,
    problem,
    send,
    track,
)
from tests.support.server_process import ServerProcess, flashflow, serving

SCOPES = ("track", "send", "read", "manage", "admin")
QUESTIONS = (
    "overview", "trend", "pages", "features", "referrers", "apps", "types", "heatmap", "retention", "funnel", "users",
)  # fmt: skip
NEEDS = {
    ("POST", "/api/activity/track"): "track",
    ("POST", "/api/activity/batch"): "track",
    ("POST", "/api/session/start"): "track",
    ("POST", "/api/session/end/{session_id}"): "track",
    ("POST", "/api/session/heartbeat/{session_id}"): "track",
    ("GET", "/api/activity"): "read",
    ("GET", "/api/sessions/user/{user_id}"): "read",
    ("GET", "/api/analytics/user/{user_id}"): "read",
    **{("GET", f"/api/analytics/{question}"): "read" for question in QUESTIONS},
    ("POST", "/api/analytics/verify"): "admin",
    ("GET", "/api/activity-types"): "admin",
    ("POST", "/api/activity-types"): "admin",
    ("POST", "/api/notifications/send"): "send",
    ("POST", "/api/notifications/cancel/{notification_id}"): "send",
    ("GET", "/api/notifications/user/{user_id}"): "read",
    ("GET", "/api/notifications/{notification_id}"): "read",
    ("POST", "/api/notifications/read/{notification_id}"): "read",
    ("POST", "/api/notifications/read-all/{user_id}"): "read",
    ("POST", "/api/notifications/unread/{notification_id}"): "read",
    ("POST", "/api/notifications/archive/{notification_id}"): "read",
    ("POST", "/api/notifications/unarchive/{notification_id}"): "read",
    ("GET", "/api/stream"): "read",
    ("POST", "/api/notifications/preferences"): "manage",
    ("GET", "/api/notifications/preferences/{user_id}"): "manage",
    ("POST", "/api/devices/register"): "manage",
    ("GET", "/api/devices/user/{user_id}"): "manage",
    ("DELETE", "/api/devices/{device_token_id}"): "manage",
    ("GET", "/api/templates"): "manage",
    ("POST", "/api/templates"): "manage",
    ("GET", "/api/templates/{name}"): "manage",
    ("PUT", "/api/templates/{name}"): "manage",
    ("DELETE", "/api/templates/{name}"): "manage",
    ("POST", "/api/templates/{name}/preview"): "manage",
    ("GET", "/api/notification-types"): "manage",
    ("POST", "/api/notification-types"): "manage",
    ("POST", "/api/notifications/retry/{notification_id}"): "send",
    ("POST", "/api/notifications/reschedule/{notification_id}"): "send",
    ("POST", "/api/notifications/snooze/{notification_id}"): "read",
    ("GET", "/api/users/{user_id}/contacts"): "manage",
    ("POST", "/api/users/{user_id}/contacts"): "manage",
    ("PUT", "/api/notifications/quiet-hours/{user_id}"): "manage",
    ("POST", "/api/notifications/do-not-disturb/{user_id}"): "manage",
    ("PUT", "/api/notifications/digest/{user_id}"): "manage",
    ("POST", "/api/notifications/digest/{user_id}/send-now"): "manage",
    ("GET", "/api/schedules"): "send",
    ("POST", "/api/schedules"): "send",
    ("GET", "/api/schedules/{schedule_id}"): "send",
    ("PUT", "/api/schedules/{schedule_id}"): "send",
    ("DELETE", "/api/schedules/{schedule_id}"): "send",
    ("POST", "/api/schedules/{schedule_id}/run"): "send",
    ("GET", "/api/rules"): "manage",
    ("POST", "/api/rules"): "manage",
    ("POST", "/api/rules/dry-run"): "manage",
    ("GET", "/api/rules/{name}"): "manage",
    ("PUT", "/api/rules/{name}"): "manage",
    ("DELETE", "/api/rules/{name}"): "manage",
    ("POST", "/api/rules/{name}/dismiss-error"): "manage",
    ("POST", "/api/rules/{name}/dry-run"): "manage",
    ("GET", "/api/channels"): "manage",
    ("POST", "/api/channels/{name}/test"): "admin",
    ("GET", "/api/web-push-key"): "manage",
    ("GET", "/api/metrics"): "manage",
    ("GET", "/api/keys"): "admin",
    ("POST", "/api/keys"): "admin",
    ("DELETE", "/api/keys/{name}"): "admin",
    ("POST", "/api/launch"): "admin",
    ("GET", "/api/export/activities"): "read",
    ("GET", "/api/export/sessions"): "read",
    ("GET", "/api/export/notifications"): "read",
    ("POST", "/api/import/activities"): "admin",
    ("POST", "/api/import/sessions"): "admin",
    ("POST", "/api/import/notifications"): "admin",
    ("POST", "/api/prune"): "admin",
    ("GET", "/api/users/{user_id}/export"): "admin",
    ("GET", "/api/users/{user_id}/consent"): "manage",
    ("POST", "/api/users/{user_id}/consent"): "manage",
    ("POST", "/api/users/{user_id}/readmit"): "admin",
    ("DELETE", "/api/users/{user_id}"): "admin",
}
"""API.md's scopes by endpoint. Marking a notification as read or archived needs ``read``."""

OPEN = {("GET", "/api/health"), ("POST", "/api/proof")}
ANSWERED = [place for place in NEEDS if place[1] != "/api/stream"]
"""Every endpoint but the stream, whose response does not end."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("scopes")) as running:
        yield running


@pytest.fixture(scope="module")
def apps(server: ServerProcess) -> dict[str, App]:
    """One app per scope."""
    return {scope: App(server, scope) for scope in SCOPES}


@pytest.fixture(scope="module")
def stranger(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client on this machine without a key."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
        yield client


def address(path: str) -> str:
    return re.sub(r"\{\w+\}", "nobody", path)


def test_every_endpoint_stands_in_the_table_of_scopes(server: ServerProcess) -> None:
    document = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == NEEDS.keys() | OPEN
    for (method, path), scope in NEEDS.items():
        assert f"`{scope}`" in document["paths"][path][method.lower()]["description"]


@pytest.mark.parametrize(("method", "path"), NEEDS, ids=map(" ".join, NEEDS))
def test_without_a_good_key_it_is_401_and_says_how_to_get_one(
    server: ServerProcess, stranger: httpx.Client, method: str, path: str
) -> None:
    key = server.key
    wrong = [
        None, "", key, "Bearer", f"Basic {key}", f"Bearer {key}x", f"Bearer {key[:-1]}", f"Token {key}",
        "Bearer é", f"Bearer {key.upper()}", f"Bearer {key} {key}", "Bearer null",
    ]  # fmt: skip
    before = contents(server)
    for header in wrong:
        headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
        answer = stranger.request(method, address(path), headers=headers, json={})
        body = problem(answer, "unauthorized")
        assert "flashflow key" in body["detail"]
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert key not in answer.text
    assert contents(server) == before


def test_a_key_in_the_address_or_a_cookie_opens_nothing(server: ServerProcess) -> None:
    for query in (f"key={server.key}", f"access_token={server.key}", f"api_key={server.key}", f"token={server.key}"):
        problem(httpx.get(f"{server.url}/api/activity?{query}", trust_env=False), "unauthorized")
    for headers in ({"Cookie": f"key={server.key}"}, {"X-Api-Key": server.key}):
        problem(httpx.get(f"{server.url}/api/activity", headers=headers, trust_env=False), "unauthorized")


def test_the_word_bearer_may_be_spelled_as_one_likes(server: ServerProcess) -> None:
    for word in ("Bearer", "bearer", "BEARER"):
        ok(server.api("GET", "/api/activity", headers={"Authorization": f"{word} {server.key}"}))


@pytest.mark.parametrize(("method", "path"), NEEDS, ids=map(" ".join, NEEDS))
def test_a_key_without_the_scope_is_403_and_the_scope_is_named(
    server: ServerProcess, apps: dict[str, App], method: str, path: str
) -> None:
    needed = NEEDS[method, path]
    before = contents(server)
    for scope in SCOPES:
        if scope in {needed, "admin"}:
            continue
        body = problem(apps[scope].api(method, address(path), {} if method != "GET" else None), "forbidden")
        assert f"“{needed}”" in body["detail"]
    assert contents(server) == before


@pytest.mark.parametrize(("method", "path"), ANSWERED, ids=map(" ".join, ANSWERED))
def test_a_key_with_the_scope_or_with_admin_is_let_in(apps: dict[str, App], method: str, path: str) -> None:
    for scope in (NEEDS[method, path], "admin"):
        answer = apps[scope].api(method, address(path), {"colour": 1} if method in {"POST", "PUT"} else None)
        assert answer.status_code in {200, 400, 404}, answer.text


def test_the_scope_is_asked_before_the_body(server: ServerProcess, apps: dict[str, App]) -> None:
    problem(apps["read"].api("POST", SEND, content=b"{"), "forbidden")
    problem(httpx.post(server.url + SEND, content=b"{", trust_env=False), "unauthorized")


def test_a_revoked_key_is_401_at_once_and_its_name_can_be_given_again(server: ServerProcess) -> None:
    app = App(server, "send", "read")
    user = fresh()
    given = send(app, user)
    ok(server.api("DELETE", f"{KEYS}/{app.name}"))
    problem(app.api("POST", SEND, {"user_id": user, "title": "t", "message": "m"}), "unauthorized")
    problem(app.api("GET", f"/api/notifications/{given}"), "unauthorized")
    again = App(server, "send", name=app.name)
    assert again.key != app.key
    problem(app.api("GET", f"/api/notifications/{given}"), "unauthorized")
    problem(again.api("GET", f"/api/notifications/{given}"), "forbidden")


def test_keys_that_come_and_go_at_once_are_each_as_good_as_their_own_word(server: ServerProcess) -> None:
    def come_and_go(_: int) -> list[int]:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
            admin, name, answers = {"Authorization": f"Bearer {server.key}"}, fresh("app"), []
            for _ in range(25):
                key = client.post(KEYS, json={"name": name, "scopes": ["read"]}, headers=admin).json()["key"]
                own = {"Authorization": f"Bearer {key}"}
                answers.append(client.get("/api/activity?limit=1", headers=own).status_code)
                client.delete(f"{KEYS}/{name}", headers=admin).raise_for_status()
                answers.append(client.get("/api/activity?limit=1", headers=own).status_code)
            return answers

    with ThreadPoolExecutor(6) as pool:
        for answers in pool.map(come_and_go, range(6)):
            assert answers == [200, 401] * 25


def test_the_command_line_gives_and_revokes_keys_of_a_running_server(server: ServerProcess) -> None:
    name = fresh("app")
    added = flashflow("keys", "add", name, "--scope", "send", data_dir=server.data_dir)
    assert added.returncode == 0, added.stderr
    headers = {"Authorization": f"Bearer {added.stdout.splitlines()[-1]}"}
    body = {"user_id": fresh(), "title": "t", "message": "m"}
    ok(server.api("POST", SEND, body, headers=headers), 201)
    problem(server.api("GET", "/api/activity", headers=headers), "forbidden")
    assert flashflow("keys", "revoke", name, data_dir=server.data_dir).returncode == 0
    problem(server.api("POST", SEND, body, headers=headers), "unauthorized")


# --- one app and another


@pytest.fixture(scope="module")
def two(server: ServerProcess) -> tuple[App, App]:
    return App(server, "track", "send", "read", "manage"), App(server, "track", "send", "read", "manage")


def test_lists_and_analytics_hold_only_the_apps_own_rows(server: ServerProcess, two: tuple[App, App]) -> None:
    user = fresh()
    kept: dict[str, list[Any]] = {}
    for app in two:
        session = ok(app.api("POST", START, {"user_id": user}), 201)["session_id"]
        row = {"user_id": user, "activity_type": "x"}
        kept[app.name] = [track(app, user, session_id=session, page_url=f"/{app.name}"), send(app, user), session]
        ok(app.api("POST", BATCH, {"activities": [row | {"session_id": session}]}))
    for app in two:
        activity, notice, session = kept[app.name]
        rows = ok(app.api("GET", "/api/activity", params={"user_id": user}))["activities"]
        assert rows[-1]["id"] == activity
        assert [row["app"] for row in rows] == [app.name] * 2
        page = ok(app.api("GET", f"/api/notifications/user/{user}"))
        assert ([row["id"] for row in page["notifications"]], page["unread_count"]) == ([notice], 1)
        sessions = ok(app.api("GET", f"/api/sessions/user/{user}"))["sessions"]
        assert [row["id"] for row in sessions] == [session]
        figures = ok(app.api("GET", f"/api/analytics/user/{user}"))["analytics"]
        assert (figures["total_sessions"], figures["total_activities"]) == (1, 2)
        assert figures["most_visited_pages"] == [{"name": f"/{app.name}", "count": 1}]
    everything = ok(server.api("GET", f"/api/analytics/user/{user}"))["analytics"]
    assert (everything["total_sessions"], everything["total_activities"]) == (2, 4)
    page = ok(server.api("GET", f"/api/notifications/user/{user}"))
    assert (len(page["notifications"]), page["unread_count"]) == (2, 2)
    assert len(ok(server.api("GET", "/api/activity", params={"user_id": user, "app": two[0].name}))["activities"]) == 2


def test_another_apps_row_is_404_to_read_and_to_change(server: ServerProcess, two: tuple[App, App]) -> None:
    one, other = two
    user, name = fresh(), fresh("template")
    notice, later = send(one, user), send(one, user, scheduled_at="2199-01-01T00:00:00Z")
    session = ok(one.api("POST", START, {"user_id": user}), 201)["session_id"]
    device = {"user_id": user, "token": fresh("token"), "platform": "web"}
    device_id = ok(one.api("POST", DEVICES, device), 201)["device_token_id"]
    text = {"title_template": "mine", "message_template": "mine"}
    ok(one.api("POST", TEMPLATES, text | {"name": name}), 201)
    before = contents(server)
    for method, path in (
        ("GET", f"/api/notifications/{notice}"),
        *(("POST", f"/api/notifications/{verb}/{notice}") for verb in ("read", "unread", "archive", "unarchive")),
        ("POST", f"/api/notifications/cancel/{later}"),
        ("POST", f"/api/session/end/{session}"),
        ("POST", f"/api/session/heartbeat/{session}"),
        ("DELETE", f"/api/devices/{device_id}"),
        ("GET", f"{TEMPLATES}/{name}"),
        ("DELETE", f"{TEMPLATES}/{name}"),
        ("POST", f"{TEMPLATES}/{name}/preview"),
    ):
        problem(other.api(method, path, {} if path.endswith("preview") else None), "not_found")
    problem(other.api("PUT", f"{TEMPLATES}/{name}", text | {"title_template": "yours"}), "not_found")
    assert ok(other.api("POST", f"/api/notifications/read-all/{user}"))["updated"] == 0
    assert ok(other.api("GET", f"/api/devices/user/{user}"))["devices"] == []
    assert name not in {row["name"] for row in ok(other.api("GET", TEMPLATES))["templates"]}
    assert contents(server) == before
    ok(one.api("POST", f"/api/notifications/read/{notice}"))
    ok(server.api("POST", f"/api/notifications/cancel/{later}"))


def test_another_apps_template_cannot_be_sent_and_so_not_be_read(two: tuple[App, App]) -> None:
    one, other = two
    user, name = fresh(), fresh("template")
    text = {"name": name, "title_template": "secret", "message_template": "secret"}
    ok(one.api("POST", TEMPLATES, text), 201)
    problem(other.api("POST", SEND, {"user_id": user, "template": name}), "validation_error", "template")
    ok(other.api("POST", TEMPLATES, text | {"locale": "de", "title_template": "other"}), 201)
    sent = ok(one.api("POST", SEND, {"user_id": user, "template": name, "locale": "de"}), 201)["notification_id"]
    assert ok(one.api("GET", f"/api/notifications/{sent}"))["notification"]["title"] == "secret"


def test_another_apps_ids_cannot_be_taken(server: ServerProcess, two: tuple[App, App]) -> None:
    one, other = two
    user, kind, own = fresh(), fresh("type"), fresh("own")
    track(one, user, activity_id=own, session_id=own)
    ok(one.api("POST", TYPES, {"name": kind}), 201)
    row = {"user_id": user, "activity_type": "x"}
    before = contents(server)
    problem(other.api("POST", TRACK, row | {"activity_id": own}), "conflict")
    problem(other.api("POST", TRACK, row | {"session_id": own}), "conflict")
    problem(other.api("POST", START, {"user_id": user, "session_id": own}), "conflict")
    problem(other.api("POST", TYPES, {"name": kind, "label": "Mine now"}), "conflict")
    body = ok(other.api("POST", BATCH, {"activities": [row | {"activity_id": own}, row | {"session_id": own}]}))
    assert (body["accepted"], body["duplicates"]) == (0, 0)
    assert [[error["field"] for error in bad["errors"]] for bad in body["rejected"]] == [
        ["activity_id"],
        ["session_id"],
    ]
    assert contents(server) == before


def test_another_app_cannot_be_named_without_admin(server: ServerProcess, two: tuple[App, App]) -> None:
    one, other = two
    user = fresh()
    for path, body in (
        (TRACK, {"user_id": user, "activity_type": "x"}),
        (START, {"user_id": user}),
        (SEND, {"user_id": user, "title": "t", "message": "m"}),
    ):
        problem(one.api("POST", path, body | {"app": other.name}), "validation_error", "app")
        ok(one.api("POST", path, body | {"app": one.name}), 201)
        ok(server.api("POST", path, body | {"app": other.name}), 201)
    problem(one.api("GET", "/api/activity", params={"app": other.name}), "forbidden")
    own = ok(one.api("GET", "/api/activity", params={"app": one.name, "user_id": user}))["activities"]
    assert {row["app"] for row in own} == {one.name}


def test_read_all_with_admin_reads_every_apps_notices_and_with_an_apps_key_its_own(
    server: ServerProcess, two: tuple[App, App]
) -> None:
    user = fresh()
    for app in two:
        send(app, user)
    assert ok(two[0].api("POST", f"/api/notifications/read-all/{user}"))["updated"] == 1
    assert ok(server.api("GET", f"/api/notifications/user/{user}"))["unread_count"] == 1
    assert ok(server.api("POST", f"/api/notifications/read-all/{user}"))["updated"] == 1


def test_a_users_choices_are_the_users_and_not_an_apps(two: tuple[App, App]) -> None:
    user = fresh()
    choice = {"user_id": user, "notification_type": "*", "channel": "email", "enabled": False}
    ok(two[0].api("POST", PREFERENCES, choice))
    assert len(ok(two[1].api("GET", f"{PREFERENCES}/{user}"))["preferences"]) == 1
