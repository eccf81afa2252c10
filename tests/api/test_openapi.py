"""The OpenAPI document describes every response, and client generators can read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from flashflow.backend.api.app import ENDPOINTS
from tests.support.api_client import (
    BATCH,
    DEVICES,
    KEYS,
    PREFERENCES,
    RULES,
    SCHEDULES,
    SEND,
    START,
    TEMPLATES,
    TRACK,
    TYPES,
)
from tests.support.server_process import ServerProcess, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("openapi")) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def document(server: ServerProcess) -> dict[str, Any]:
    described: dict[str, Any] = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    return described


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside ``node``, at any depth."""
    if isinstance(node, list):
        for one in node:
            yield from schemas(one)
    elif isinstance(node, dict):
        yield node
        for name, one in node.items():
            if name == "properties":
                for inner in one.values():
                    yield from schemas(inner)
            elif name not in {"enum", "const", "required"}:
                yield from schemas(one)


# --- what generators stumble over


def test_every_route_is_described_and_has_an_operation_id_of_words(document: dict[str, Any]) -> None:
    assert len(operations(document)) == len(ENDPOINTS)
    assert all(e.responses or e.media_types != ("application/json",) for e in ENDPOINTS)
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)


def test_the_server_is_named_by_its_address(server: ServerProcess, document: dict[str, Any]) -> None:
    assert [one["url"] for one in document["servers"]] == [server.url]


def test_no_schema_has_a_form_that_generators_misread(document: dict[str, Any]) -> None:
    for schema in schemas(document["components"]["schemas"]):
        assert "default" not in schema, "generated TypeScript would take the field for a required one"
        if schema.get("type") == "array":
            assert schema["items"], "without item types"
        if schema.get("type") == "object":
            assert "properties" in schema or "additionalProperties" in schema
        if "enum" in schema:
            assert schema["type"] == "string"
    for operation in operations(document):
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


class Recorder:
    """Requests the server and validates status, media type and body of each response against the document."""

    def __init__(self, server: ServerProcess, document: dict[str, Any]) -> None:
        self.seen: set[tuple[str, str, int]] = set()
        self._server, self._document = server, document
        self._closed = deepcopy(document["components"]["schemas"])
        for schema in schemas(self._closed):  # a field that is not described is a fault here
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)

    def __call__(self, method: str, template: str, body: Any = None, /, **options: Any) -> Any:
        """``options``: path parameters by name, and ``query`` and ``headers``."""
        query, headers = options.pop("query", None), options.pop("headers", {})
        answer = self._server.api(method, template.format(**options), body, params=query, headers=headers)
        responses = self._document["paths"][template][method.lower()]["responses"]
        assert str(answer.status_code) in responses, (method, template, answer.status_code, answer.text)
        content = responses[str(answer.status_code)]["content"]
        media = answer.headers["content-type"].partition(";")[0]
        assert media in content, (method, template, media)
        self.seen.add((method, template, answer.status_code))
        if not media.endswith("json"):
            return answer.text
        found = answer.json()
        schema = content[media]["schema"] | {"components": {"schemas": self._closed}}
        validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        faults = [f"{list(fault.absolute_path)}: {fault.message[:300]}" for fault in validator.iter_errors(found)]
        assert faults == [], (method, template, answer.status_code)
        return found


@pytest.fixture(scope="module")
def ask(server: ServerProcess, document: dict[str, Any]) -> Recorder:
    return Recorder(server, document)


ADA = {"user_id": "ada"}
MESSAGE = {"title": "t", "message": "m"}


def test_every_answer_is_described_with_its_status_and_its_body(ask: Recorder) -> None:
    _activities(ask)
    _notifications(ask)
    _texts_and_devices(ask)
    _rules_and_schedules(ask)
    _settings(ask)
    _owner(ask)
    successes = {
        (method.upper(), path, int(status))
        for path, methods in ask._document["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
        if status.startswith("2")
    }
    assert successes - ask.seen == {
        ("GET", "/api/stream", 200),  # tests/test_api_stream.py
        ("GET", "/api/web-push-key", 200),  # needs a configured channel: tests/test_webpush_channel.py
        ("POST", "/api/channels/{name}/test", 200),
        ("POST", "/api/notifications/retry/{notification_id}", 200),  # tests/test_retrying.py
        ("POST", "/api/launch", 201),  # needs the screens
        ("POST", "/api/proof", 200),  # tests/test_server_proof.py
    }


def _activities(ask: Recorder) -> None:
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


def _notifications(ask: Recorder) -> None:
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


def _texts_and_devices(ask: Recorder) -> None:
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


def _rules_and_schedules(ask: Recorder) -> None:
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


def _settings(ask: Recorder) -> None:
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


def _owner(ask: Recorder) -> None:
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
