"""What the tests of the HTTP API share: apps with keys of their own, raw requests, the one error shape, the files."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
import uuid
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.support.server_process import ServerProcess

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
JSON = {"Content-Type": "application/json"}

SEND = "/api/notifications/send"
TRACK = "/api/activity/track"
BATCH = "/api/activity/batch"
START = "/api/session/start"
PREFERENCES = "/api/notifications/preferences"
TEMPLATES = "/api/templates"
TYPES = "/api/notification-types"
DEVICES = "/api/devices/register"
SCHEDULES = "/api/schedules"
RULES = "/api/rules"
KEYS = "/api/keys"

STATUS = {
    "validation_error": 400,
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "erased": 410,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "idempotency_mismatch": 422,
}

_numbers = itertools.count(1)


def fresh(word: str = "user") -> str:
    """A name that no other test has used."""
    return f"{word}-{next(_numbers)}-{uuid.uuid4().hex[:8]}"


class App:
    """A sibling app: the server, asked with a key of its own."""

    def __init__(self, server: ServerProcess, *scopes: str, name: str | None = None) -> None:
        self.name = name or fresh("app")
        self._server = server
        made = server.api("POST", KEYS, {"name": self.name, "scopes": list(scopes)})
        assert made.status_code == 201, made.text
        self.key: str = made.json()["key"]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def api(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        options["headers"] = self.headers | options.get("headers", {})
        return self._server.api(method, path, json, **options)


def ok(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """The body of a success, its shape asserted."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body["success"] is True
    return body


def problem(answer: httpx.Response | Raw, code: str, *fields: str) -> dict[str, Any]:
    """The body of a refusal: the one shape, this code, these fields named."""
    status = answer.status if isinstance(answer, Raw) else answer.status_code
    body: dict[str, Any] = json.loads(answer.text)
    assert (status, body["code"]) == (STATUS[code], code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    expected = ["type", "title", "status", "detail", "success", "code"]
    assert [name for name in body if name != "errors"] == expected
    assert body["status"] == status
    assert body["success"] is False
    assert body["type"] == f"/docs#errors-{code}"
    assert body["title"]
    assert body["detail"]
    assert "Traceback" not in answer.text
    if code == "validation_error":
        assert all(set(error) == {"field", "message"} and error["message"] for error in body["errors"])
        assert body["errors"]
    if fields:
        assert [error["field"] for error in body["errors"]] == list(fields), body["errors"]
    return body


class Raw(NamedTuple):
    """An answer as it came, for requests that httpx would tidy up first."""

    status: int
    headers: dict[str, str]
    text: str


def raw(
    server: ServerProcess,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    key: str | None = None,
) -> Raw:
    """One request whose path and headers go out as they are, with the local key unless ``headers`` brings one."""
    sent = {"Authorization": f"Bearer {key or server.key}"} | (headers or {})
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.putrequest(method, path, skip_host="Host" in sent, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read().decode()
    return Raw(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)


def contents(server: ServerProcess) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of both files, to hold that nothing changed."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for path in sorted(server.data_dir.glob("*.db")):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
            tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                found[f"{path.name}:{table}"] = sorted(conn.execute(f"SELECT * FROM {table}"), key=repr)
    assert len(found) > 10
    return found


def rows_in(path: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What a file says, read beside whoever has it open."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
        return conn.execute(query, values).fetchall()


def send(caller: App | ServerProcess, user_id: str, title: str = "Hello", **fields: Any) -> str:
    """The id of a notification that was sent."""
    body = ok(caller.api("POST", SEND, {"user_id": user_id, "title": title, "message": "It works."} | fields), 201)
    return str(body["notification_id"])


def track(caller: App | ServerProcess, user_id: str, activity_type: str = "click", **fields: Any) -> str:
    """The id of an activity that was stored."""
    answer = caller.api("POST", TRACK, {"user_id": user_id, "activity_type": activity_type} | fields)
    return str(ok(answer, 201)["activity_id"])
