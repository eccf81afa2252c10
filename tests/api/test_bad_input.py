"""Invalid input gets problem+json, changes nothing and is never a 5xx."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.api_client import (
    BATCH,
    DEVICES,
    JSON,
    KEYS,
    PREFERENCES,
    RULES,
    SEND,
    START,
    TEMPLATES,
    TRACK,
    TYPES,
    contents,
    fresh,
    ok,
    problem,
    track,
)
from tests.support.examples import examples
from tests.support.server_process import ServerProcess, serving

ADA = {"user_id": "ada"}
GOOD: dict[str, dict[str, Any]] = {
    TRACK: ADA | {"activity_type": "x"},
    BATCH: {"activities": [ADA | {"activity_type": "x"}]},
    START: ADA,
    SEND: ADA | {"title": "t", "message": "m"},
    PREFERENCES: ADA | {"notification_type": "x", "channel": "email", "enabled": True},
    TEMPLATES: {"name": "greeting", "title_template": "t", "message_template": "m"},
    f"{TEMPLATES}/known/preview": {"data": {"who": "x"}},
    TYPES: {"name": "builds"},
    DEVICES: ADA | {"token": "t", "platform": "web"},
    KEYS: {"name": "shop", "scopes": ["read"]},
    RULES: {"name": "r", "on": {"activity_type": "x"}, "send": {"title": "t", "message": "m"}},
    f"{RULES}/dry-run": {"on": {"activity_type": "x"}},
}
"""Every POST with a body, and its smallest valid body."""

OBJECTS = {
    TRACK: "metadata",
    START: "device_info",
    SEND: "data",
    DEVICES: "device_info",
    TEMPLATES: "data_schema",
    f"{TEMPLATES}/known/preview": "data",
}
"""The field of each POST that takes an arbitrary object."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("bad-input")) as running:
        text = {"name": "known", "title_template": "Hi {who}", "message_template": "m"}
        ok(running.api("POST", TEMPLATES, text), 201)
        yield running
        assert "Traceback" not in running.log
        assert "ERROR" not in running.log


@pytest.fixture
def untouched(server: ServerProcess) -> Iterator[ServerProcess]:
    """The server; fails if the test changed its databases."""
    before = contents(server)
    yield server
    assert contents(server) == before


@pytest.fixture(params=GOOD, ids=lambda path: path.removeprefix("/api/"))
def posting(request: pytest.FixtureRequest) -> str:
    path: str = request.param
    return path


DEEP = 100_000
NOT_JSON = {
    "nothing": b"",
    "spaces": b"   ",
    "a brace": b"{",
    "half": b'{"user_id": "a',
    "a word": b"hello",
    "a comma too many": b'{"user_id": "ada",}',
    "single quotes": b"{'user_id': 'ada'}",
    "a comment": b'{} // "',
    "two objects": b"{}{}",
    "trailing garbage": b'{"user_id": "ada"} x',
    "a NUL after it": b"{}\0",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"user_id": "ada"}'.encode("utf-16"),
    "bad UTF-8": b'{"user_id": "\xff\xfe"}',
    "overlong UTF-8": b'{"user_id": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"user_id": "\xed\xa0\x80"}',
    "a lone high surrogate": b'{"user_id": "\\ud800"}',
    "a lone low surrogate": b'{"user_id": "\\udc00x"}',
    "a raw newline in a string": b'{"user_id": "a\nb"}',
    "NaN": b'{"user_id": NaN}',
    "Infinity": b'{"user_id": -Infinity}',
    "lists without end": b"[" * DEEP,
    "lists": b"[" * DEEP + b"]" * DEEP,
    "objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_a_body_that_is_not_json_is_refused_everywhere(untouched: ServerProcess, body: bytes) -> None:
    for path in GOOD:
        problem(untouched.api("POST", path, content=body, headers=JSON), "validation_error")
    problem(untouched.api("PUT", f"{TEMPLATES}/known", content=body, headers=JSON), "validation_error")


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"x"', b"true"])
def test_json_that_is_no_object_is_refused_everywhere(untouched: ServerProcess, body: bytes) -> None:
    for path in (*GOOD, "/api/notifications/read/x", "/api/session/end/x", "/api/notifications/read-all/ada"):
        problem(untouched.api("POST", path, content=body, headers=JSON), "validation_error", "")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 5000, "-" + "9" * 5000, "1." + "9" * 5000, "01"])
def test_a_number_that_is_none_changes_nothing_and_is_no_5xx(server: ServerProcess, number: str) -> None:
    for path, field in OBJECTS.items():
        body = json.dumps(GOOD[path] | {field: {"who": 0}}).replace(": 0}", f": {number}}}")
        before = contents(server)
        answer = server.api("POST", path, content=body, headers=JSON)
        if answer.status_code >= 300:
            problem(answer, "validation_error")
            assert contents(server) == before
        else:
            assert number.startswith("1."), "only a long fraction can be a number"


@pytest.mark.parametrize("deep", [99, 100, 900, *range(960, 1000, 4), DEEP])
def test_nesting_is_accepted_to_a_hundred_levels_and_can_be_read_back(server: ServerProcess, deep: int) -> None:
    nested = '{"who":"x","a":' + "[" * (deep - 1) + "]" * (deep - 1) + "}"
    user = fresh()
    for path, field in OBJECTS.items():
        least = GOOD[path] | {name: fresh(name) for name in ("token", "name") if name in GOOD[path]}
        least |= {"user_id": user} if "user_id" in least else {}
        body = json.dumps(least | {field: 0}).replace(f'"{field}": 0', f'"{field}": {nested}')
        answer = server.api("POST", path, content=body, headers=JSON)
        if deep <= 100 and field != "data_schema":  # a schema has a tighter limit of its own
            assert answer.status_code < 300, answer.text
        elif answer.status_code >= 300:
            problem(answer, "validation_error")
        else:
            assert path.endswith("/preview"), "nothing keeps what is nested deeper"
    row = json.dumps({"activities": [ADA | {"activity_type": "x", "metadata": 0}]}).replace("0}", nested + "}")
    answer = server.api("POST", BATCH, content=row, headers=JSON)
    assert answer.status_code in {200, 400}
    assert deep <= 100 or answer.status_code == 400 or answer.json()["accepted"] == 0
    for path in (
        f"/api/activity?user_id={user}",
        f"/api/sessions/user/{user}",
        f"/api/notifications/user/{user}",
        f"/api/devices/user/{user}",
        TEMPLATES,
    ):
        ok(server.api("GET", path))


# --- fields

STRINGS = {
    TRACK: {
        "user_id": 255, "activity_type": 100, "session_id": 200, "page_url": 2048, "referrer": 2048, "user_agent": 512,
        "activity_id": 200,
    },
    START: {"user_id": 255, "session_id": 200},
    SEND: {"user_id": 255, "title": 300, "message": 10_000, "notification_type": 100, "collapse_key": 100},
    PREFERENCES: {"user_id": 255, "notification_type": 100},
    TEMPLATES: {"name": 100, "title_template": 300, "message_template": 10_000, "category": 100},
    TYPES: {"name": 100, "label": 100},
    DEVICES: {"user_id": 255, "token": 4096},
    KEYS: {"name": 64},
}  # fmt: skip
"""Every string field of a request, and its maximum length."""


@pytest.mark.parametrize("path", STRINGS, ids=lambda path: path.removeprefix("/api/"))
@pytest.mark.parametrize(
    "value",
    ["", " ", " \t ", "\0", "a\0b", "LONG", 1, 1.5, True, [], {}, ["x"], "\n"],
    ids=["empty", "space", "blank", "NUL", "NUL inside", "too long", "int", "float", "bool", "list", "object",
         "list of it", "newline"],
)  # fmt: skip
def test_a_string_that_will_not_do_is_refused_by_its_name(untouched: ServerProcess, path: str, value: Any) -> None:
    for field, most in STRINGS[path].items():
        if value == "" and field not in GOOD[path]:
            continue  # an empty optional string counts as absent: tests/test_empty_strings.py
        bad = "x" * (most + 1) if value == "LONG" else value
        problem(untouched.api("POST", path, GOOD[path] | {field: bad}), "validation_error", field)


def test_strings_are_taken_to_their_last_character(server: ServerProcess) -> None:
    user = "🎉" * 255
    given = track(server, user, activity_type="x" * 100, page_url="/" * 2048, user_agent="x" * 512)
    (row,) = ok(server.api("GET", "/api/activity", params={"user_id": user}))["activities"]
    assert (row["id"], row["user_id"], len(row["page_url"])) == (given, user, 2048)
    ok(server.api("POST", SEND, {"user_id": user, "title": "x" * 300, "message": "x" * 10_000}), 201)


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        *((TRACK, "metadata", value) for value in ([], "x", 1, True)),
        *((START, "device_info", value) for value in ([], "x", 1)),
        *((SEND, "data", value) for value in ([], "x", 1)),
        *((SEND, "priority", value) for value in ("HIGH", "asap", 1, [])),
        *((SEND, "channel", value) for value in ("*", "pigeon", 1, ["email"])),
        *((SEND, "channels", value) for value in ([], "email", {}, 1)),
        (SEND, "actions", {}),
        (SEND, "device_tokens", []),
        (SEND, "user_ids", "ada"),
        *((PREFERENCES, "enabled", value) for value in ("true", 1, 0, "", [])),
        *((PREFERENCES, "channel", value) for value in ("", "pigeon", 1, [])),
        *((TEMPLATES, "channels", value) for value in ("email", 1)),
        (TEMPLATES, "name", "a/b"),
        (TEMPLATES, "name", ".."),
        (TEMPLATES, "locale", "not a locale"),
        *((DEVICES, "platform", value) for value in ("", "IOS", "windows", 1)),
        *((TYPES, "digest", value) for value in ("weekly", 1)),
        *((TYPES, "critical", value) for value in ("yes", 1)),
        (BATCH, "activities", {}),
        (BATCH, "activities", "x"),
        (BATCH, "sent_at", "yesterday"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(
    untouched: ServerProcess, path: str, field: str, value: Any
) -> None:
    problem(untouched.api("POST", path, GOOD[path] | {field: value}), "validation_error", field)


def test_an_unknown_field_is_refused_by_its_name(untouched: ServerProcess, posting: str) -> None:
    problem(untouched.api("POST", posting, GOOD[posting] | {"colour": 1}), "validation_error", "colour")
    problem(untouched.api("POST", posting, GOOD[posting] | {"": 1}), "validation_error")


def test_a_body_where_none_is_asked_for_holds_no_fields(untouched: ServerProcess) -> None:
    for path in ("/api/notifications/read/x", "/api/session/end/x", "/api/notifications/read-all/ada"):
        problem(untouched.api("POST", path, {"colour": 1}), "validation_error", "colour")


TIMES = [
    " ", "now", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01 00:00:00", "2026-13-01T00:00:00Z",
    "2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z", "2026-01-01T00:00:00+99:00", "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59.999Z", "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59", "12026-01-01T00:00:00Z", "2201-01-01T00:00:00Z",
]  # fmt: skip
MOMENTS = [(TRACK, "timestamp"), (BATCH, "sent_at"), (SEND, "scheduled_at"), (SEND, "expires_at")]


@pytest.mark.parametrize("value", [*TIMES, 0, 1_790_000_000, 1e12, True, [], {}])
def test_a_time_that_is_none_or_cannot_be_meant_is_refused(untouched: ServerProcess, value: Any) -> None:
    for path, field in MOMENTS:
        problem(untouched.api("POST", path, GOOD[path] | {field: value}), "validation_error", field)
    if isinstance(value, str):
        for list_ in ("/api/activity", "/api/notifications/user/ada"):
            for field in ("since", "until"):
                problem(untouched.api("GET", list_, params={field: value}), "validation_error", field)


def test_a_text_that_fails_at_its_end_is_refused_at_once(untouched: ServerProcess) -> None:
    """A pattern that backtracks from every position would block the server for a second."""
    body = GOOD[SEND] | {"message": "a" * 9_999 + "\0"}
    began = time.monotonic()
    for _ in range(5):
        problem(untouched.api("POST", SEND, body), "validation_error", "message")
    assert time.monotonic() - began < 2.5


# --- any JSON at all

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))
names = st.sampled_from(
    [
        "user_id", "activity_type", "session_id", "metadata", "timestamp", "activity_id", "app", "activities",
        "sent_at", "device_info", "title", "message", "template", "locale", "notification_type", "channel", "channels",
        "data", "priority", "scheduled_at", "expires_at", "actions", "device_tokens", "enabled", "preferences", "name",
        "title_template", "message_template", "data_schema", "category", "label", "critical", "digest", "token",
        "platform", "scopes", "user_ids",
    ]
)  # fmt: skip
telling = st.sampled_from(
    ["*", "in_app", "push", "web", "ada", "known", "2026-01-01T00:00:00Z", "{who}", "read", [], {}, [{}], {"who": 1}]
)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.removeprefix("/api/"))
@settings(
    max_examples=examples(40),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(changes=st.dictionaries(names, telling | values, max_size=4), kept=st.booleans())
@example(changes={"metadata": {"\ud800": 1}}, kept=True)
def test_any_json_gets_a_json_answer_and_never_a_5xx(
    server: ServerProcess, path: str, changes: dict[str, Any], kept: bool
) -> None:
    content = json.dumps((GOOD[path] if kept else {}) | changes)
    answer = server.api("POST", path, content=content, headers=JSON)
    assert answer.status_code < 500, (content, answer.text)
    assert answer.json()["success"] is (answer.status_code < 300)
    if answer.status_code >= 400:
        problem(answer, answer.json()["code"])


@settings(max_examples=examples(60), deadline=None, database=None, derandomize=True)
@given(rows=st.lists(st.dictionaries(names, telling | values, max_size=3), min_size=1, max_size=5), kept=st.booleans())
def test_every_row_of_any_batch_is_accounted_for(server: ServerProcess, rows: list[dict[str, Any]], kept: bool) -> None:
    least = ADA | {"activity_type": "x"} if kept else {}
    answer = server.api("POST", BATCH, content=json.dumps({"activities": [least | row for row in rows]}), headers=JSON)
    if answer.status_code != 200:
        problem(answer, "validation_error")  # what is no JSON at all spoils the whole of it
        return
    body = answer.json()
    assert body["accepted"] + body["duplicates"] + len(body["rejected"]) == len(rows)
    indices = [row["index"] for row in body["rejected"]]
    assert indices == sorted(set(indices))
    assert all(row["errors"] for row in body["rejected"])
