"""API.md's promises for the whole API: health, OpenAPI, keys and idempotency."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from html.parser import HTMLParser
from http.client import HTTPConnection
from threading import Barrier
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from flashflow.backend.api.server import PortTaken
from flashflow.backend.core.config import VERSION
from flashflow.backend.core.errors import FlashFlowError
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
    contents,
    fresh,
    ok,
    problem,
)
from tests.support.described_answers import response_of
from tests.support.server_process import ServerProcess, serving

MISSION = {
    ("POST", "/api/activity/track"),
    ("POST", "/api/session/start"),
    ("POST", "/api/session/end/{session_id}"),
    ("GET", "/api/analytics/user/{user_id}"),
    ("POST", "/api/notifications/send"),
    ("POST", "/api/notifications/preferences"),
    ("GET", "/api/notifications/user/{user_id}"),
    ("POST", "/api/notifications/read/{notification_id}"),
    ("POST", "/api/devices/register"),
}
BESIDE_THEM = {
    ("POST", "/api/activity/batch"),
    ("GET", "/api/activity"),
    ("POST", "/api/session/heartbeat/{session_id}"),
    ("GET", "/api/sessions/user/{user_id}"),
    ("GET", "/api/notifications/preferences/{user_id}"),
    ("GET", "/api/notifications/{notification_id}"),
    ("POST", "/api/notifications/read-all/{user_id}"),
    *(("POST", f"/api/notifications/{verb}/{{notification_id}}") for verb in ("unread", "archive", "unarchive")),
    ("POST", "/api/notifications/cancel/{notification_id}"),
    ("GET", "/api/templates"),
    ("POST", "/api/templates"),
    ("GET", "/api/templates/{name}"),
    ("PUT", "/api/templates/{name}"),
    ("DELETE", "/api/templates/{name}"),
    ("POST", "/api/templates/{name}/preview"),
    ("GET", "/api/notification-types"),
    ("POST", "/api/notification-types"),
    ("GET", "/api/devices/user/{user_id}"),
    ("DELETE", "/api/devices/{device_token_id}"),
    ("GET", "/api/stream"),
    ("GET", "/api/health"),
    ("POST", "/api/proof"),
    ("GET", "/api/keys"),
    ("POST", "/api/keys"),
    ("DELETE", "/api/keys/{name}"),
}

CREATING: dict[str, Callable[[str], dict[str, Any]]] = {
    TRACK: lambda word: {"user_id": word, "activity_type": "x"},
    BATCH: lambda word: {"activities": [{"user_id": word, "activity_type": "x"}]},
    START: lambda word: {"user_id": word},
    SEND: lambda word: {"user_id": word, "title": "t", "message": "m"},
    TEMPLATES: lambda word: {"name": word, "title_template": "t", "message_template": "m"},
    TYPES: lambda word: {"name": word},
    DEVICES: lambda word: {"user_id": word, "token": word, "platform": "web"},
    SCHEDULES: lambda word: {
        "name": word, "rule": {"at": "09:00"}, "notification": {"user_id": word, "title": "t", "message": "m"},
    },
    RULES: lambda word: {"name": word, "on": {"activity_type": word}, "send": {"title": "t", "message": "m"}},
}  # fmt: skip
"""Every POST that creates a row, and a body for it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("contract")) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: ServerProcess) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/openapi.json", trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    described: dict[str, Any] = answer.json()
    return described


@pytest.fixture(params=CREATING, ids=lambda path: path.removeprefix("/api/"))
def creating(request: pytest.FixtureRequest) -> str:
    path: str = request.param
    return path


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


# --- health and the API's own description


def test_health_needs_no_key_and_tells_nothing_private(server: ServerProcess) -> None:
    answer = httpx.get(f"{server.url}/api/health", trust_env=False)
    body = ok(answer)
    parts = {"storage", "damaged_rows", "threads", "flow"}
    assert set(body) == {"success", "status", "version", "uptime_seconds", *parts}
    assert (body["status"], body["version"], body["storage"]) == ("ok", VERSION, "ok")
    assert body["uptime_seconds"] > 0
    assert str(server.data_dir) not in answer.text


def test_every_endpoint_asked_for_is_described(document: dict[str, Any]) -> None:
    assert operations(document).keys() >= MISSION | BESIDE_THEM


def test_every_described_operation_is_answered_and_asks_for_its_key(
    server: ServerProcess, document: dict[str, Any]
) -> None:
    for (method, path), operation in operations(document).items():
        body = b"{}" if "requestBody" in operation else b""
        answer = httpx.request(
            method, server.url + re.sub(r"\{\w+\}", "x", path), content=body, headers=JSON, trust_env=False
        )
        if operation["security"]:
            problem(answer, "unauthorized")
        else:
            assert answer.status_code == (400 if "requestBody" in operation else 200), (method, path)


def test_the_description_is_valid_and_whole_openapi_3_1(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"] == "FlashFlow"
    assert document["info"]["version"] == VERSION
    schemas = document["components"]["schemas"]
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(names)) == len(names)
    for (method, path), operation in operations(document).items():
        in_path = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert sorted(in_path) == sorted(re.findall(r"\{(\w+)\}", path))
        places = [(one["in"], one["name"]) for one in operation["parameters"]]
        assert len(set(places)) == len(places)
        assert all("schema" in one for one in operation["parameters"])
        assert all(one["required"] for one in operation["parameters"] if one["in"] == "path")
        assert operation["summary"]
        assert {"default"} < set(operation["responses"])
        assert all(response_of(operation, status)["description"] for status in operation["responses"])  # type: ignore[arg-type, index]
        assert ("requestBody" in operation) <= (method in {"POST", "PUT"})
    for reference in references(document):
        assert reference.removeprefix("#/components/").split("/")[1] in document["components"][reference.split("/")[2]]
    for schema in schemas.values():
        for pattern in patterns(schema):
            assert re.compile(pattern)
            assert "(?=" not in pattern, "RE2 has no look-ahead"
            assert "(?!" not in pattern
            assert r"\Z" not in pattern, "in ECMA-262 this is a Z"


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from references(part)


def patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from patterns(part)


def test_required_fields_are_described_as_required(document: dict[str, Any]) -> None:
    required = {
        path: set(schema(document, operations(document)["POST", path]).get("required", ())) for path in CREATING
    }
    assert required == {
        TRACK: {"user_id", "activity_type"},
        BATCH: {"activities"},
        START: {"user_id"},
        SEND: set(),
        TEMPLATES: {"name", "title_template", "message_template"},
        TYPES: {"name"},
        DEVICES: {"user_id", "token", "platform"},
        SCHEDULES: {"name", "rule", "notification"},
        RULES: {"name", "send"},
    }


def schema(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def test_every_post_that_creates_is_described_with_its_idempotency_key(document: dict[str, Any]) -> None:
    described = {
        path
        for (_, path), operation in operations(document).items()
        if any(parameter["name"] == "Idempotency-Key" for parameter in operation["parameters"])
    }
    assert described == {*CREATING, f"{SCHEDULES}/{{schedule_id}}/run"}


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if name in {"src", "href"} and value:
                self.sources.append(value)


def test_the_docs_page_names_every_endpoint_and_error_and_loads_nothing_from_elsewhere(
    server: ServerProcess, document: dict[str, Any]
) -> None:
    answer = httpx.get(f"{server.url}/docs", trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = Page()
    page.feed(answer.text)
    for method, path in operations(document):
        assert f"{method} {path}" in answer.text
    assert {f"errors-{code}" for code in ("validation_error", "unauthorized", "forbidden", "not_found")} <= page.ids
    assert page.sources == ["/openapi.json"]
    assert "script" not in page.tags


def test_the_type_of_every_problem_leads_to_its_paragraph(server: ServerProcess) -> None:
    page = Page()
    page.feed(httpx.get(f"{server.url}/docs", trust_env=False).text)
    for answer in (
        server.api("GET", "/api/nothing"),
        server.api("PUT", TRACK),
        server.api("POST", TRACK, content=b"{", headers=JSON),
        server.api("POST", TRACK, content=b"{}"),
        httpx.get(f"{server.url}/api/keys", trust_env=False),
        server.api("GET", "/api/health", headers={"Host": "evil.example"}),
        server.api("GET", "/api/notifications/user/%"),
    ):
        path, _, paragraph = answer.json()["type"].partition("#")
        assert path == "/docs"
        assert paragraph in page.ids
    told = codes(FlashFlowError) - {PortTaken.code}  # who hears of that one has no server to ask
    assert {f"errors-{code}" for code in told} <= page.ids


def codes(kind: type[FlashFlowError]) -> set[str]:
    """Return the codes of all error classes below ``kind``."""
    return {sub.code for sub in kind.__subclasses__()}.union(*map(codes, kind.__subclasses__())) - {"error"}


# --- safe repetition


def test_a_repeated_request_gets_the_first_answer_byte_for_byte(server: ServerProcess, creating: str) -> None:
    body = CREATING[creating](fresh())
    headers = {"Idempotency-Key": fresh("key")}
    first = server.api("POST", creating, body, headers=headers)
    ok(first, 200 if creating == BATCH else 201)
    assert "idempotency-replayed" not in first.headers
    before = contents(server)
    for _ in range(2):
        again = server.api("POST", creating, body, headers=headers)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["content-type"] == first.headers["content-type"]
    assert contents(server) == before


def test_a_key_that_was_used_with_another_body_is_422_and_nothing_is_created(
    server: ServerProcess, creating: str
) -> None:
    headers = {"Idempotency-Key": fresh("key")}
    ok(server.api("POST", creating, CREATING[creating](fresh()), headers=headers), 200 if creating == BATCH else 201)
    before = contents(server)
    problem(server.api("POST", creating, CREATING[creating](fresh()), headers=headers), "idempotency_mismatch")
    assert contents(server) == before


def test_two_requests_at_once_with_one_key_create_once(server: ServerProcess, creating: str) -> None:
    word, headers = fresh(), {"Idempotency-Key": fresh("key")}
    together = Barrier(6)

    def post(_: int) -> httpx.Response:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
            together.wait(10)
            authorization = {"Authorization": f"Bearer {server.key}"}
            return client.post(creating, json=CREATING[creating](word), headers=headers | authorization)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, range(6)))
    assert {(answer.status_code, answer.content) for answer in answers} == {
        (answers[0].status_code, answers[0].content)
    }
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    tables = ("user_activities", "user_sessions", "notifications", "notification_templates", "notification_types")
    rows = [
        row
        for table, found in contents(server).items()
        if table.partition(":")[2] in (*tables, "device_tokens", "schedules", "rules")
        for row in found
        if word in row
    ]
    assert len({row[0] for row in rows}) == len(rows) == (2 if creating in {TRACK, BATCH} else 1)


def test_after_a_day_a_key_is_as_good_as_new(server: ServerProcess, creating: str) -> None:
    body, headers = CREATING[creating](fresh()), {"Idempotency-Key": fresh("key")}
    server.api("POST", creating, body, headers=headers)
    a_day_ms = 24 * 60 * 60 * 1000
    for path in server.data_dir.glob("*.db"):
        with closing(sqlite3.connect(path, timeout=10)) as conn, conn:
            conn.execute(
                "UPDATE idempotency_keys SET created_at = created_at - ? WHERE key = ?",
                (a_day_ms, headers["Idempotency-Key"]),
            )
    again = server.api("POST", creating, body, headers=headers)
    assert "idempotency-replayed" not in again.headers
    other = server.api("POST", creating, CREATING[creating](fresh()), headers=headers)
    if again.status_code == 409:
        ok(other, 201)  # a template's name is still taken: a refusal uses no key up
    else:
        problem(other, "idempotency_mismatch")


def test_an_idempotency_key_is_one_for_all_routes_whichever_file_they_write(server: ServerProcess) -> None:
    for first, second in ((TRACK, SEND), (SEND, TRACK)):
        headers = {"Idempotency-Key": fresh("key")}
        assert server.api("POST", first, CREATING[first](fresh()), headers=headers).status_code == 201
        problem(server.api("POST", second, CREATING[second](fresh()), headers=headers), "idempotency_mismatch")


@pytest.mark.parametrize(
    ("path", "name", "make"),
    [
        (TEMPLATES, "templates", lambda n: (TEMPLATES, {"name": n, "title_template": "a", "message_template": "b"})),
        (TYPES, "notification_types", lambda n: (TYPES, {"name": n})),
        (KEYS, "keys", lambda n: (KEYS, {"name": n, "scopes": ["send"]})),
        (
            "/api/devices/user/paged",
            "devices",
            lambda n: (DEVICES, {"user_id": "paged", "token": n, "platform": "web"}),
        ),
    ],
)
def test_the_short_lists_are_paged_newest_first_too(server: ServerProcess, path: str, name: str, make: Any) -> None:
    field = "id" if name == "devices" else "name"
    made = []
    for _ in range(5):
        word = fresh("paged")
        answer = server.api("POST", *make(word))
        assert answer.status_code == 201
        made.append(answer.json()["device_token_id"] if name == "devices" else word)
    first = server.api("GET", path, params={"limit": 2}).json()
    assert [row[field] for row in first[name]] == made[:-3:-1]
    late = server.api("POST", *make(fresh("late")))
    assert late.status_code == 201
    second = server.api("GET", path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [row[field] for row in second[name]] == made[-3:-5:-1]
    everything = [row[field] for row in server.everything(path, name, limit=2)]
    assert len(everything) == len(set(everything)) >= 6
    problem(server.api("GET", path, params={"cursor": "nope"}), "validation_error", "cursor")


def test_keys_of_two_apps_do_not_meet(server: ServerProcess) -> None:
    one, two = App(server, "send"), App(server, "send")
    headers = {"Idempotency-Key": "the same"}
    bodies = [CREATING[SEND](fresh()) for _ in range(2)]
    given = [
        ok(app.api("POST", SEND, body, headers=headers), 201)["notification_id"]
        for app, body in zip((one, two), bodies, strict=True)
    ]
    assert given[0] != given[1]
    again = one.api("POST", SEND, bodies[0], headers=headers)
    assert ok(again, 201)["notification_id"] == given[0]


def test_a_refused_request_does_not_use_its_key_up(server: ServerProcess) -> None:
    body, headers = CREATING[SEND](fresh()), {"Idempotency-Key": fresh("key")}
    problem(server.api("POST", SEND, body | {"template": fresh("missing")}, headers=headers), "validation_error")
    ok(server.api("POST", SEND, body, headers=headers), 201)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_no_key_is_refused(server: ServerProcess, key: str) -> None:
    answer = server.api("POST", SEND, CREATING[SEND](fresh()), headers={"Idempotency-Key": key})
    problem(answer, "validation_error", "Idempotency-Key")


def test_an_answer_under_a_key_outlives_a_kill(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, headers = tmp_path_factory.mktemp("killed"), {"Idempotency-Key": "k"}
    body = CREATING[SEND]("ada")
    with serving(folder) as server:
        first = server.api("POST", SEND, body, headers=headers)
        ok(first, 201)
        server.kill()
    with serving(folder) as server:
        again = server.api("POST", SEND, body, headers=headers)
        assert again.content == first.content
        assert again.headers["idempotency-replayed"] == "true"
        assert len(server.api("GET", "/api/notifications/user/ada").json()["notifications"]) == 1


# --- the rest of the ground rules


def test_a_get_can_be_asked_for_its_head_alone(server: ServerProcess) -> None:
    for path in ("/api/activity", "/api/notifications/user/ada", "/api/health", "/docs", "/openapi.json"):
        answer = server.api("HEAD", path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == str(len(server.api("GET", path).content)) or path == "/api/health"


def test_no_answer_of_the_api_is_kept_by_a_cache(server: ServerProcess) -> None:
    for answer in (server.api("GET", "/api/activity"), server.api("GET", "/api/nothing"), server.api("GET", KEYS)):
        assert answer.headers["cache-control"] == "no-store"


def test_choices_are_safe_to_repeat_without_a_key(server: ServerProcess) -> None:
    body = {"user_id": fresh(), "notification_type": "*", "channel": "push", "enabled": False}
    for _ in range(2):
        ok(server.api("POST", PREFERENCES, body))
    assert len(ok(server.api("GET", f"{PREFERENCES}/{body['user_id']}"))["preferences"]) == 1


def test_an_answer_in_one_piece_is_a_whole_http_answer_whether_the_connection_stays_or_not(
    server: ServerProcess,
) -> None:
    for keep, ends in (("keep-alive", False), ("close", True)):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        with closing(connection):
            headers = {"Authorization": f"Bearer {server.key}", "Connection": keep}
            connection.request("GET", "/api/activity?limit=1", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            assert (answer.status, answer.getheader("content-type")) == (200, "application/json")
            assert int(answer.getheader("content-length") or -1) == len(body)
            assert answer.getheader("cache-control") == "no-store"
            assert answer.getheader("date")
            assert answer.getheader("connection") == ("close" if ends else None)
            assert answer.will_close is ends
            connection.request("HEAD", "/api/activity?limit=1", headers=headers)
            assert connection.getresponse().read() == b""
