"""The OpenAPI document describes every response, and client generators can read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import pytest

from flashflow.backend.api.app import ENDPOINTS
from flashflow.backend.api.framework.responses import error_response
from flashflow.backend.api.http.problem_json import MEDIA_TYPE as PROBLEM_JSON
from flashflow.backend.core.errors import SchemaTooNew, Stopping, StorageError, StorageFull
from tests.support.api_client import (
    BATCH,
    DEVICES,
    JSON,
    KEYS,
    PREFERENCES,
    RULES,
    SCHEDULES,
    SEND,
    START,
    TEMPLATES,
    TRACK,
    TYPES,
    App,
)
from tests.support.described_answers import DOCUMENT, check, operations, path_of, schemas, seen
from tests.support.raw_http import Peer
from tests.support.server_process import ServerProcess, eventually, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("openapi")) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def document(server: ServerProcess) -> dict[str, Any]:
    described: dict[str, Any] = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    return described


# --- what generators stumble over


def test_every_route_is_described_and_has_an_operation_id_of_words(document: dict[str, Any]) -> None:
    assert len(operations()) == len(ENDPOINTS)
    assert all(e.responses or e.media_types != ("application/json",) for e in ENDPOINTS)
    names = [operation["operationId"] for operation in operations().values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)


def test_the_server_is_named_by_its_address(server: ServerProcess, document: dict[str, Any]) -> None:
    assert [one["url"] for one in document["servers"]] == [server.url]
    assert document == DOCUMENT | {"servers": document["servers"]}


def test_every_body_has_an_example_and_every_tag_a_description(document: dict[str, Any]) -> None:
    assert [e.path for e in ENDPOINTS if (e.body is None) is not (e.example is None)] == []
    used = {tag for operation in operations().values() for tag in operation["tags"]}
    assert {tag["name"] for tag in document["tags"]} == used


def test_numbers_have_their_size(document: dict[str, Any]) -> None:
    for schema in schemas([document["components"]["schemas"], document["paths"]]):
        if schema.get("type") == "integer":
            largest = 2**31 if schema.get("format") == "int32" else 2**63
            assert schema.get("maximum", 2**63 - 1) < largest, schema
        if schema.get("type") == "number":
            assert schema["format"] == "double"


def test_no_schema_has_a_form_that_generators_misread(document: dict[str, Any]) -> None:
    for schema in schemas(document["components"]["schemas"]):
        assert "default" not in schema, "generated TypeScript would take the field for a required one"
        if schema.get("type") == "array":
            assert schema["items"], "without item types"
        if schema.get("type") == "object":
            assert "properties" in schema or "additionalProperties" in schema
        if "enum" in schema:
            assert schema["type"] == "string"
    for operation in operations().values():
        for parameter in operation["parameters"]:
            assert {"type": "null"} not in parameter["schema"].get("anyOf", [])
            assert "required" in parameter


def test_names_are_those_of_types(document: dict[str, Any]) -> None:
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in document["components"]["schemas"])


def test_only_optional_fields_are_not_required(document: dict[str, Any]) -> None:
    known = document["components"]["schemas"]
    assert set(known["Notification"]["required"]) == set(known["Notification"]["properties"])
    assert known["TrackAnswer"]["required"] == ["success", "activity_id"]
    assert known["SendIn"].get("required", []) == []


def test_every_answer_has_its_media_type(document: dict[str, Any]) -> None:
    def media(path: str) -> list[str]:
        return list(document["paths"][path]["get"]["responses"]["200"]["content"])

    assert media("/api/export/activities") == ["application/jsonl", "text/csv", "application/vnd.apache.parquet"]
    assert media("/api/stream") == ["text/event-stream"]
    assert media("/api/metrics") == ["text/plain"]
    assert media("/api/users/{user_id}/export") == ["application/json"]


# --- what is answered is what was promised


class Client:
    """Requests by the document's paths. ``ServerProcess.api`` compares each answer with the document."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server

    def __call__(self, method: str, template: str, body: Any = None, /, **options: Any) -> Any:
        """``options``: path parameters by name, and ``query`` and ``headers``."""
        query, headers = options.pop("query", None), options.pop("headers", {})
        answer = self.server.api(method, template.format(**options), body, params=query, headers=headers)
        assert path_of(answer.url.path) == template
        return answer.json() if answer.headers["content-type"].endswith("json") else answer.text


@pytest.fixture(scope="module")
def ask(server: ServerProcess) -> Client:
    return Client(server)


ADA = {"user_id": "ada"}
MESSAGE = {"title": "t", "message": "m"}


def test_every_described_status_is_answered_as_described(ask: Client) -> None:
    seen.clear()
    _examples(ask)
    _activities(ask)
    _notifications(ask)
    _texts_and_devices(ask)
    _rules_and_schedules(ask)
    _settings(ask)
    _owner(ask)
    _refusals(ask)
    _limits(ask)
    described = {
        (*operation, int(status))
        for operation, content in operations().items()
        for status in content["responses"]
        if status != "default" and int(status) not in FAULTS
    }
    assert described - seen == {
        ("GET", "/api/stream", 200),  # tests/api/test_stream.py
        ("GET", "/api/web-push-key", 200),  # needs a configured channel: tests/delivery/test_webpush.py
        ("POST", "/api/channels/{name}/test", 200),
        ("POST", "/api/channels/{name}/test", 409),
        ("POST", "/api/notifications/retry/{notification_id}", 200),  # tests/notifications/test_retry.py
        ("POST", "/api/launch", 201),  # needs the screens
        ("POST", "/api/proof", 200),  # tests/api/test_server_proof.py
        ("POST", "/api/schedules/{schedule_id}/run", 410),  # while an erasure goes on
    }


FAULTS = {429, 500, 503, 504, 507}
"""Statuses that are the same on every route: 429 for a long answer, and those of the next test."""


@pytest.mark.parametrize(
    "error",
    [RuntimeError("x"), TimeoutError(), StorageError("x"), StorageFull("x"), Stopping("x"), SchemaTooNew("x")],
    ids=lambda error: type(error).__name__,
)
def test_the_answer_of_a_failing_server_is_as_described(error: Exception) -> None:
    for (method, path), operation in operations().items():
        answer = error_response(error, method, path)
        if answer.status != 507 or "507" in operation["responses"]:
            check(method, path, answer.status, dict(answer.headers).get(b"content-type", b"").decode() or PROBLEM_JSON,
                  answer.body)  # fmt: skip


def _path(template: str, user: str = "ada") -> str:
    return re.sub(r"\{\w+\}", "x", template.replace("{user_id}", user))


def _examples(ask: Client) -> None:
    """Every example of the document is a valid request."""
    made = {}
    for (method, path), operation in sorted(operations().items(), key=lambda one: len(one[0][1])):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None or path == "/api/proof":  # a proof of a key that is not in use
            continue
        names = {"{name}": "greeting" if "templates" in path else "checkout-trouble", "{schedule_id}": "{schedule}"}
        for name, value in (names | made).items():
            path = path.replace(name, value)  # noqa: PLW2901 the same path
        answer = ask.server.api(method, _path(path), content["example"])
        if "{notification_id}" in path or "/channels/" in path:
            assert answer.status_code == 404
            continue
        assert answer.status_code in {200, 201}, (method, path, answer.text)
        assert answer.json().get("rejected", []) == []
        if path == SCHEDULES:
            made["{schedule}"] = answer.json()["schedule"]["id"]


def _refusals(ask: Client) -> None:
    """Refusals that depend on the route only by its key, its parameters and its erased users."""
    api = ask.server.api
    stranger = App(ask.server, "read")
    ask("POST", TRACK, {"user_id": "gone", "activity_type": "x"})
    ask("DELETE", "/api/users/{user_id}", user_id="gone")
    for (method, path), operation in operations().items():
        target, body = _path(path), operation.get("requestBody")
        api(method, f"{target}?colour=1", {"colour": 1} if body else None)  # 400
        api(method, target, headers={"Authorization": "Bearer nope"})  # 401
        api(method, target, headers={"Host": "evil.example"})  # 403
        api(method, target, content=b" " * (1024 * 1024 + 1))  # 413
        api(method, target, content=b"{}")  # 415
        if "404" in operation["responses"]:
            example = body["content"]["application/json"]["example"] if body else None
            api(method, _path(path, ""), example)
        if "410" in operation["responses"]:
            example = body["content"]["application/json"]["example"] if body else None
            if example and "user_id" in example:
                example = example | {"user_id": "gone"}
            api(method, _path(path, "gone"), example)
        if "422" in operation["responses"] and body:
            example = body["content"]["application/json"]["example"]
            for ending in ("", " "):
                content = json.dumps(example | {"name": "another"} if "name" in example else example) + ending
                api(method, target, content=content, headers=JSON | {"Idempotency-Key": path})
    assert stranger.api("GET", "/api/keys").json()["code"] == "forbidden"
    _conflicts(ask)


def _conflicts(ask: Client) -> None:
    """Refusals by the state of one row."""
    one, other = App(ask.server, "admin"), App(ask.server, "send", "manage", "track")
    third = App(ask.server, "send", "manage")
    rule = {"name": "twice", "on": {"activity_type": "x"}, "send": MESSAGE}
    for app in (other, third):  # an admin has to name the app
        assert app.api("POST", RULES, rule).status_code == 201
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/dismiss-error"), ("POST", "/dry-run")):
        assert one.api(method, f"{RULES}/twice{path}", rule if method == "PUT" else None).status_code == 409
    sent = ask("POST", SEND, ADA | MESSAGE)["notification_id"]
    when = {"scheduled_at": "2198-01-01T00:00:00Z"}
    for verb, body in (("reschedule", when), ("retry", None), ("cancel", None)):
        ask("POST", f"/api/notifications/{verb}/{{notification_id}}", body, notification_id=sent)
    later = ask("POST", SEND, ADA | MESSAGE | when)["notification_id"]
    until = {"until": "2199-01-01T00:00:00Z"}
    for verb, body in (*((v, None) for v in ("read", "archive", "unread", "unarchive")), ("snooze", until)):
        ask("POST", f"/api/notifications/{verb}/{{notification_id}}", body, notification_id=later)
    schedule = {"rule": {"at": "08:00"}, "notification": MESSAGE | {"user_id": "late"}}
    names = ("first", "second")
    made = [ask("POST", SCHEDULES, schedule | {"name": name})["schedule"]["id"] for name in names]
    ask("POST", SCHEDULES, schedule | {"name": "first"})
    ask("PUT", f"{SCHEDULES}/{{schedule_id}}", schedule | {"name": "first"}, schedule_id=made[1])
    ask("DELETE", "/api/users/{user_id}", user_id="late", query={"even_if_unknown": "true"})
    ask("POST", SCHEDULES, schedule | {"name": "third"})
    mine = ask("POST", SCHEDULES, schedule | {"name": "x", "notification": ADA | MESSAGE})["schedule"]["id"]
    ask("PUT", f"{SCHEDULES}/{{schedule_id}}", schedule | {"name": "x"}, schedule_id=mine)
    key = {"Idempotency-Key": "used"}
    ask("POST", SEND, ADA | MESSAGE, headers=key)
    ask("POST", f"{SCHEDULES}/{{schedule_id}}/run", schedule_id=mine, headers=key)
    ask("POST", SEND, {"user_ids": ["late"]} | MESSAGE)
    ask("POST", TRACK, {"user_id": "bob", "activity_type": "x", "session_id": "of-one"})
    for path, body in ((TRACK, {"activity_type": "x"}), (START, {})):
        assert other.api("POST", path, {"user_id": "bob", "session_id": "of-one"} | body).status_code == 409
    assert one.api("POST", TYPES, {"name": "theirs"}).status_code == 201
    other.api("POST", TYPES, {"name": "theirs"})


def _limits(ask: Client) -> None:
    """Refusals of the connection, and of a key whose answers stay unread."""
    port = ask.server.port
    head = "{} {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\n"
    with ExitStack() as stack:
        slow = []
        for method, path in operations():
            start = head.format(method, _path(path), port, ask.server.key)
            long = stack.enter_context(closing(Peer(port))).send(f"{start}X: {'x' * 17_000}\r\n\r\n".encode()).read()
            check(method, _path(path), long.status, long.headers["content-type"], long.body)  # 431
            peer = stack.enter_context(closing(Peer(port, deadline=20)))
            slow.append((method, path, peer.send(f"{start}Content-Length: 2\r\n\r\n".encode())))
        for method, path, peer in slow:
            late = peer.read()
            check(method, _path(path), late.status, late.headers["content-type"], late.body)  # 408
    greedy = App(ask.server, "admin")
    for _ in range(3):
        ask("POST", SEND, {"user_id": "long"} | MESSAGE | {"data": {"k": "x" * 900_000}})
    with ExitStack() as stack:
        for _ in range(24):
            start = head.format("GET", "/api/notifications/user/long", port, greedy.key)
            stack.enter_context(closing(Peer(port, receive_buffer=4096))).send(f"{start}\r\n".encode())
        assert eventually(lambda: greedy.api("GET", "/api/notifications/user/long").status_code == 429)
        for path in ("/api/users/long/export", "/api/export/notifications"):
            assert greedy.api("GET", path).status_code == 429
    with ExitStack() as stack:
        for _ in range(128):
            start = head.format("GET", "/api/stream", port, greedy.key)
            stack.enter_context(closing(Peer(port))).send(f"{start}\r\n".encode())
        assert eventually(lambda: _streams(ask) == 128)
        assert greedy.api("GET", "/api/stream").status_code == 429


def _streams(ask: Client) -> int:
    found = re.search(r"^flashflow_event_stream_clients (\d+)", ask("GET", "/api/metrics"), re.MULTILINE)
    return int(found[1]) if found else 0


def _activities(ask: Client) -> None:
    one = ADA | {"activity_type": "x", "activity_id": "one", "page_url": "/", "metadata": {"a": [1, {"b": None}]}}
    for _ in range(2):  # 201, then 200 and duplicate
        ask("POST", "/api/activity/track", one)
        ask("POST", "/api/activity/track", ADA | {"activity_type": "y"}, headers={"Idempotency-Key": "k"})
        ask("POST", "/api/session/start", ADA | {"session_id": "s", "device_info": {"os": "x"}})
    ask("POST", "/api/activity/track", {"user_id": "", "activity_type": 5, "colour": 1})
    ask("POST", "/api/activity/track", ADA | {"activity_type": "z"}, headers={"Idempotency-Key": "k"})
    ask("POST", "/api/activity/batch", {"activities": [one, ADA, {}]})
    ask("GET", "/api/activity", query={"limit": 1})
    ask("POST", "/api/session/heartbeat/{session_id}", session_id="s")
    for _ in range(2):
        ask("POST", "/api/session/end/{session_id}", session_id="s")
    ask("POST", "/api/session/heartbeat/{session_id}", session_id="s")
    ask("POST", "/api/session/end/{session_id}", session_id="nope")
    ask("GET", "/api/sessions/user/{user_id}", user_id="ada")
    for user in ("ada", "never"):
        ask("GET", "/api/analytics/user/{user_id}", user_id=user)
    for kind in (
        "overview",
        "trend",
        "pages",
        "features",
        "referrers",
        "apps",
        "types",
        "heatmap",
        "retention",
        "users",
    ):
        ask("GET", f"/api/analytics/{kind}")
    ask("GET", "/api/analytics/trend", query={"interval": "hour", "compare": "none"})
    ask("GET", "/api/analytics/funnel", query={"steps": "x,y", "dropped_at": 2})
    ask("GET", "/api/analytics/funnel")
    ask("POST", "/api/activity-types", {"name": "x", "key": True})
    ask("GET", "/api/activity-types")
    ask("POST", "/api/analytics/verify", {"rebuild": True})


def _notifications(ask: Client) -> None:
    full = ADA | MESSAGE | {"data": {"a": {"b": 1}}, "actions": [{"label": "x", "url": "https://x.y"}]}
    sent = ask("POST", SEND, full | {"channels": ["in_app", "email", "push"]})["notification_id"]
    later = ask("POST", SEND, full | {"scheduled_at": "2199-01-01T00:00:00Z"})["notification_id"]
    failed = ask("POST", SEND, full | {"channel": "sms"})["notification_id"]
    ask("POST", SEND, MESSAGE | {"user_ids": ["ada", "bob"]})
    for who in (ADA, {"user_ids": ["ada", "bob"]}):
        ask("POST", SEND, MESSAGE | who, query={"dry_run": "true"})
    ask("POST", SEND, {"titel": "x"})
    ask("GET", "/api/notifications/{notification_id}", notification_id=sent)
    ask("GET", "/api/notifications/{notification_id}", notification_id="nope")
    for verb in ("read", "unread", "archive", "unarchive"):
        ask("POST", f"/api/notifications/{verb}/{{notification_id}}", notification_id=sent)
    when = {"until": "2199-01-01T00:00:00Z"}
    ask("POST", "/api/notifications/snooze/{notification_id}", when, notification_id=sent)
    again = {"scheduled_at": "2198-01-01T00:00:00Z"}
    ask("POST", "/api/notifications/reschedule/{notification_id}", again, notification_id=later)
    for _ in range(2):  # 200, then 409
        ask("POST", "/api/notifications/cancel/{notification_id}", notification_id=later)
    ask("POST", "/api/notifications/retry/{notification_id}", notification_id=failed)
    ask("GET", "/api/notifications/user/{user_id}", user_id="ada", query={"status": "all"})
    ask("POST", "/api/notifications/read-all/{user_id}", user_id="ada")


def _texts_and_devices(ask: Client) -> None:
    text = {
        "name": "greeting",
        "title_template": "Hi {who}",
        "message_template": "m",
        "data_schema": {"type": "object"},
    }
    for _ in range(2):  # 201, then 409
        ask("POST", TEMPLATES, text | {"channels": ["email"], "category": "c"})
    ask("GET", TEMPLATES)
    ask("GET", f"{TEMPLATES}/{{name}}", name="greeting")
    ask("PUT", f"{TEMPLATES}/{{name}}", {"title_template": "Hi {who}", "message_template": "m"}, name="greeting")
    ask("POST", f"{TEMPLATES}/{{name}}/preview", {"data": {"who": "x"}}, name="greeting")
    ask("POST", f"{TEMPLATES}/{{name}}/preview", {"data": {}}, name="greeting")
    ask("DELETE", f"{TEMPLATES}/{{name}}", name="greeting")
    ask("DELETE", f"{TEMPLATES}/{{name}}", name="greeting")
    kind = {"name": "builds", "throttle": {"limit": 5}, "failover": [{"channel": "push", "after_minutes": 5}]}
    for _ in range(2):
        ask("POST", TYPES, kind | {"digest": "daily", "digest_at": "08:00"})
    ask("GET", TYPES)
    for _ in range(2):
        device = ask("POST", DEVICES, ADA | {"token": "t", "platform": "android"})["device_token_id"]
    ask("GET", "/api/devices/user/{user_id}", user_id="ada")
    ask("DELETE", "/api/devices/{device_token_id}", device_token_id=device)


def _rules_and_schedules(ask: Client) -> None:
    on = {"activity_type": "x", "where": [{"field": "metadata.a", "op": "exists"}], "times": 2, "within_minutes": 5}
    alert = {"metric": "activities", "change_percent": -50}
    for _ in range(2):
        ask("POST", RULES, {"name": "r", "on": on, "send": MESSAGE})
    ask("POST", RULES, {"name": "a", "alert": alert, "send": MESSAGE, "to": ["ada"]})
    ask("GET", RULES)
    ask("PUT", f"{RULES}/{{name}}", {"on": {"activity_type": "x"}, "send": MESSAGE}, name="r")
    for draft in ({"on": {"activity_type": "x"}}, {"alert": alert}):
        ask("POST", f"{RULES}/dry-run", draft)
    for verb, path in (("GET", ""), ("POST", "/dry-run"), ("POST", "/dismiss-error"), ("DELETE", ""), ("DELETE", "")):
        ask(verb, f"{RULES}/{{name}}{path}", name="r")
    schedule = {"name": "s", "rule": {"at": "08:00", "days": ["mon"]}, "notification": ADA | MESSAGE}
    made = ask("POST", SCHEDULES, schedule)["schedule"]["id"]
    ask("GET", SCHEDULES)
    ask("PUT", f"{SCHEDULES}/{{schedule_id}}", schedule | {"rule": {"every_minutes": 5}}, schedule_id=made)
    ask("POST", f"{SCHEDULES}/{{schedule_id}}/run", schedule_id=made)
    for verb in ("GET", "DELETE", "DELETE"):
        ask(verb, f"{SCHEDULES}/{{schedule_id}}", schedule_id=made)


def _settings(ask: Client) -> None:
    ask("POST", PREFERENCES, ADA | {"notification_type": "x", "channel": "email", "enabled": False})
    ask("POST", "/api/users/{user_id}/contacts", {"email": "ada@example.org"}, user_id="ada")
    for user in ("ada", "never"):
        ask("GET", "/api/users/{user_id}/contacts", user_id=user)
    ask("PUT", "/api/notifications/quiet-hours/{user_id}", {"enabled": True}, user_id="ada")
    for minutes in ({"minutes": 5}, {"until": None}, {}):
        ask("POST", "/api/notifications/do-not-disturb/{user_id}", minutes, user_id="ada")
    digest = {"notification_type": "*", "frequency": "daily", "at": "08:00"}
    ask("PUT", "/api/notifications/digest/{user_id}", digest, user_id="ada")
    ask("POST", SEND, ADA | MESSAGE | {"channel": "email"})
    ask("POST", "/api/notifications/digest/{user_id}/send-now", user_id="ada")
    ask("GET", "/api/notifications/preferences/{user_id}", user_id="ada")
    ask("GET", "/api/channels")
    ask("GET", "/api/web-push-key")
    ask("POST", "/api/channels/{name}/test", name="email")
    ask("POST", "/api/users/{user_id}/consent", {"tracking": False}, user_id="eve")
    ask("GET", "/api/users/{user_id}/consent", user_id="eve")
    ask("POST", TRACK, {"user_id": "eve", "activity_type": "x"})
    ask("POST", START, {"user_id": "eve"})


def _owner(ask: Client) -> None:
    ask("GET", "/api/health")
    ask("GET", "/api/metrics")
    for what in ("activities", "sessions", "notifications"):
        for format_ in ("jsonl", "csv"):
            text = ask("GET", f"/api/export/{what}", query={"format": format_})
            if format_ == "jsonl":
                rows = [json.loads(line) for line in text.splitlines()][:5]
                ask("POST", f"/api/import/{what}", {what: [*rows, {}]})
    ask("GET", "/api/users/{user_id}/export", user_id="ada")
    for _ in range(2):
        ask("POST", KEYS, {"name": "shop", "scopes": ["read"]})
    ask("GET", KEYS)
    for _ in range(2):
        ask("DELETE", f"{KEYS}/{{name}}", name="shop")
    ask("POST", "/api/launch")
    ask("POST", "/api/prune", {"before": "2020-01-01T00:00:00Z", "dry_run": True})
    ask("POST", "/api/prune", {"before": "2020-01-01T00:00:00Z"})
    ask("DELETE", "/api/users/{user_id}", user_id="nobody")
    ask("DELETE", "/api/users/{user_id}", user_id="ada")
    ask("POST", TRACK, ADA | {"activity_type": "x"})
    ask("POST", SEND, MESSAGE | {"user_ids": ["ada", "bob"]})
    ask("POST", BATCH, {"activities": [ADA | {"activity_type": "x"}]})
    for _ in range(2):
        ask("POST", "/api/users/{user_id}/readmit", user_id="ada")
