"""Requests wrong in media type, method, address, query or size; and unusual but valid user ids."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.api_client import (
    DEVICES,
    JSON,
    PREFERENCES,
    SEND,
    START,
    TRACK,
    Raw,
    contents,
    fresh,
    ok,
    problem,
    raw,
    send,
    track,
)
from tests.support.examples import examples
from tests.support.raw_http import Peer
from tests.support.server_process import ServerProcess, eventually, serving

MIB = 1024 * 1024
UNKNOWN = "01a203d4-46cd-7000-a0fd-17c6c75a6818"
LISTS = ["/api/activity", "/api/sessions/user/ada", "/api/notifications/user/ada"]
GOOD = json.dumps({"user_id": "ada", "activity_type": "x"}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("bad-requests")) as running:
        yield running
        assert "Traceback" not in running.log
        assert "ERROR" not in running.log


@pytest.fixture
def untouched(server: ServerProcess) -> Iterator[ServerProcess]:
    """The server; fails if the test changed its databases."""
    before = contents(server)
    yield server
    assert contents(server) == before


# --- media type


@pytest.mark.parametrize(
    "declared",
    [
        None, "", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
        "application/problem+json", "application/json-patch+json", "application/jsonp", "*/*", "json",
        "application/json; charset=latin-1", "application/json; charset=utf-16", "application/json, text/plain",
    ],
)  # fmt: skip
def test_a_body_that_is_not_declared_as_json_is_415(untouched: ServerProcess, declared: str | None) -> None:
    headers = {} if declared is None else {"Content-Type": declared}
    for path in (TRACK, SEND, "/api/notifications/read/x"):
        problem(raw(untouched, "POST", path, GOOD, headers), "unsupported_media_type")


def test_a_body_is_asked_for_even_where_it_is_not_declared(untouched: ServerProcess) -> None:
    problem(raw(untouched, "POST", TRACK), "unsupported_media_type")
    problem(raw(untouched, "POST", TRACK, b"", JSON), "validation_error")


@pytest.mark.parametrize(
    "declared",
    [
        "application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8",
        'application/json; charset="utf-8"', "application/json ;charset=utf-8", "application/json;",
    ],
)  # fmt: skip
def test_json_may_be_declared_in_every_usual_spelling(server: ServerProcess, declared: str) -> None:
    assert raw(server, "POST", TRACK, GOOD, {"Content-Type": declared}).status == 201


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "aes128gcm"])
def test_a_body_that_is_encoded_is_415_and_not_read_as_if_it_were_not(untouched: ServerProcess, encoding: str) -> None:
    answer = raw(untouched, "POST", TRACK, GOOD, JSON | {"Content-Encoding": encoding})
    problem(answer, "unsupported_media_type")


# --- methods and addresses


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (TRACK, {"POST"}),
        (SEND, {"POST"}),
        (START, {"POST"}),
        (PREFERENCES, {"POST"}),
        (DEVICES, {"POST"}),
        ("/api/activity", {"GET", "HEAD"}),
        ("/api/health", {"GET", "HEAD"}),
        ("/api/stream", {"GET", "HEAD"}),
        ("/openapi.json", {"GET", "HEAD"}),
        ("/docs", {"GET", "HEAD"}),
        ("/api/templates", {"GET", "HEAD", "POST"}),
        ("/api/templates/x", {"GET", "HEAD", "PUT", "DELETE"}),
        ("/api/templates/x/preview", {"POST"}),
        ("/api/keys", {"GET", "HEAD", "POST"}),
        ("/api/keys/x", {"DELETE"}),
        ("/api/notifications/x", {"GET", "HEAD"}),
        ("/api/notifications/read/x", {"POST"}),
        ("/api/notifications/user/ada", {"GET", "HEAD"}),
        ("/api/session/end/x", {"POST"}),
        ("/api/analytics/user/ada", {"GET", "HEAD"}),
        ("/api/devices/x", {"DELETE"}),
    ],
)
def test_a_wrong_method_is_405_and_names_the_right_ones(untouched: ServerProcess, path: str, allowed: set[str]) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - allowed:
        answer = raw(untouched, method, path, None if method == "GET" else GOOD, JSON)
        problem(answer, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == allowed, method


@pytest.mark.parametrize(
    "path",
    [
        "/api", "/api/", "/api/nothing", "/api/activity/", "/api//activity", "/API/activity", "/api/activity/track/",
        "/api/notifications", "/api/notifications/", "/api/notifications/a/b/c",
        "/api/templates/a/b", "/api/v1/activity", "/docs/", "/openapi.json/", "/docsx", "/",
        "/nothing", "/api/../etc/passwd", "/..%2f..%2fetc/passwd", "/api/activity;x=1",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_404(untouched: ServerProcess, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = raw(untouched, method, path, None if method == "GET" else GOOD, JSON)
        problem(answer, "not_found")


def test_a_list_for_an_empty_user_id_is_404(untouched: ServerProcess) -> None:
    for path in ("/api/notifications/user/", "/api/analytics/user/", "/api/sessions/user/", "/api/devices/user/"):
        problem(raw(untouched, "GET", path), "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/notifications/{}"),
        ("POST", "/api/notifications/read/{}"),
        ("POST", "/api/notifications/unread/{}"),
        ("POST", "/api/notifications/archive/{}"),
        ("POST", "/api/notifications/unarchive/{}"),
        ("POST", "/api/notifications/cancel/{}"),
        ("POST", "/api/session/end/{}"),
        ("POST", "/api/session/heartbeat/{}"),
        ("GET", "/api/templates/{}"),
        ("DELETE", "/api/templates/{}"),
        ("DELETE", "/api/devices/{}"),
        ("DELETE", "/api/keys/{}"),
    ],
)
@pytest.mark.parametrize("given", [UNKNOWN, UNKNOWN.upper(), "x", "%20", "a%27b%22", "%F0%9F%8E%89", "0", "-1", "null"])
def test_an_unknown_id_is_404(untouched: ServerProcess, method: str, path: str, given: str) -> None:
    problem(raw(untouched, method, path.format(given)), "not_found")


@pytest.mark.parametrize("path", ["/api/notifications/user/%", "/api/notifications/user/%zz", "/api/keys/%ff", "/%00"])
def test_an_address_that_is_no_text_is_400(untouched: ServerProcess, path: str) -> None:
    problem(raw(untouched, "GET", path), "bad_request")


@pytest.mark.parametrize("user", ["%0a", "%7f", "%20", "x" * 256, quote("🎉" * 256), "a%0db"])
def test_a_user_id_in_an_address_is_held_to_the_rules_of_one_in_a_body(untouched: ServerProcess, user: str) -> None:
    for list_ in ("/api/notifications/user", "/api/sessions/user", "/api/analytics/user", "/api/devices/user",
                  "/api/notifications/preferences"):  # fmt: skip
        problem(raw(untouched, "GET", f"{list_}/{user}"), "validation_error", "user_id")
    problem(raw(untouched, "POST", f"/api/notifications/read-all/{user}"), "validation_error", "user_id")


# --- the query


@pytest.mark.parametrize("limit", ["0", "201", "-1", "abc", "1.0", "1e1", "٣", "+5", "9" * 5000, "null", "true", " 5"])
def test_a_limit_that_is_none_is_refused_by_its_name(untouched: ServerProcess, limit: str) -> None:
    for path in LISTS:
        problem(untouched.api("GET", path, params={"limit": limit}), "validation_error", "limit")


@pytest.mark.parametrize(
    "cursor",
    ["abc", "W10", "WzFd", "WzEsMiwzXQ", "bnVsbA", "e30", "!!!!", "é", "x" * 201, "WzFlOTlXQ", "Wy0xLCJhIl0"],
)
def test_a_cursor_that_no_list_gave_is_refused_by_its_name(untouched: ServerProcess, cursor: str) -> None:
    for path in LISTS:
        problem(untouched.api("GET", path, params={"cursor": cursor}), "validation_error", "cursor")


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        *((path, "colour=red", "colour") for path in (*LISTS, "/api/health", "/api/keys", "/api/stream")),
        *((path, "limit=1&limit=1", "limit") for path in LISTS),
        *((path, "limit", "") for path in LISTS),
        *((path, "limit=%ff", "") for path in LISTS),
        *((path, "&".join(f"a{n}=1" for n in range(60)), "") for path in LISTS),
        ("/api/activity", "user_id=%00", "user_id"),
        ("/api/activity", "activity_type=" + "x" * 101, "activity_type"),
        ("/api/activity", "app=a%20b", "app"),
        ("/api/activity", "since=2026", "since"),
        ("/api/activity", "since=null", "since"),
        ("/api/activity", "until=2026-01-01T00:00:00%2002:00", "until"),
        ("/api/notifications/user/ada", "status=new", "status"),
        ("/api/notifications/user/ada", "status=null", "status"),
        ("/api/notifications/user/ada", "channel=pigeon", "channel"),
        ("/api/notifications/user/ada", "q=" + "x" * 201, "q"),
        ("/api/notifications/user/ada", "since=1700000000", "since"),
        ("/api/stream", "user_id=%00", "user_id"),
    ],
)
def test_a_query_that_will_not_do_is_refused_by_its_name(
    untouched: ServerProcess, path: str, query: str, field: str
) -> None:
    problem(raw(untouched, "GET", f"{path}?{query}"), "validation_error", field)


PLACES = [
    "/api/notifications/user/{}", "/api/notifications/{}", "/api/sessions/user/{}", "/api/analytics/user/{}",
    "/api/devices/user/{}", "/api/notifications/preferences/{}", "/api/templates/{}", "/api/activity", "/api/keys/{}",
]  # fmt: skip
parameters = st.sampled_from(
    ["limit", "cursor", "status", "q", "since", "until", "user_id", "app", "channel", "session_id", "locale"]
)


@settings(max_examples=examples(200), deadline=None, database=None, derandomize=True)
@given(
    place=st.sampled_from(PLACES),
    word=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    query=st.dictionaries(parameters, st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)),
)
def test_any_address_and_query_gets_a_json_answer_and_never_a_5xx(
    server: ServerProcess, place: str, word: str, query: dict[str, str]
) -> None:
    words = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    answer = raw(server, "GET", place.format(quote(word, safe="")) + (f"?{words}" if words else ""))
    assert answer.status < 500, answer.text
    if answer.status >= 400:
        problem(answer, json.loads(answer.text)["code"])
    else:
        assert json.loads(answer.text)["success"] is True


def test_a_users_filter_may_be_called_null(server: ServerProcess) -> None:
    track(server, "null")
    track(server, fresh())
    rows = ok(server.api("GET", "/api/activity", params={"user_id": "null"}))["activities"]
    assert [row["user_id"] for row in rows] == ["null"]


# --- size


@pytest.mark.parametrize("size", [MIB + 1, 3 * MIB])
@pytest.mark.parametrize(
    "path", [TRACK, SEND, "/api/notifications/read/x", "/api/nothing", "/api/activity", "/launch/x"]
)
def test_a_body_over_a_mebibyte_is_refused_declared_or_chunked(untouched: ServerProcess, path: str, size: int) -> None:
    body = b'{"x":"' + b"x" * (size - 8) + b'"}'
    for content in (body, (body[start : start + 65_536] for start in range(0, size, 65_536))):
        answer = untouched.api("POST", path, content=content, headers=JSON)
        codes = {"/api/nothing": "not_found", "/api/activity": "method_not_allowed", "/launch/x": "unauthorized"}
        problem(answer, codes.get(path, "payload_too_large"))


def test_a_body_of_exactly_a_mebibyte_is_taken(server: ServerProcess) -> None:
    empty = json.dumps({"user_id": fresh(), "activity_type": "x", "metadata": {"x": ""}})
    body = empty.replace('"x": ""', '"x": "' + "y" * (MIB - len(empty)) + '"').encode()
    assert len(body) == MIB
    for content in (body, (body[start : start + 65_536] for start in range(0, MIB, 65_536))):
        ok(server.api("POST", TRACK, content=content, headers=JSON), 201)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (TRACK, "Content-Type: text/plain", 415),
        (TRACK, "Content-Type: application/json\r\nOrigin: http://evil.example", 403),
        (TRACK, "Content-Type: application/json\r\nAuthorization: Bearer wrong", 401),
        ("/api/nothing", "Content-Type: application/json", 404),
        ("/api/activity", "Content-Type: application/json", 405),
        ("/launch/x", "Content-Type: application/json", 401),
        ("/openapi.json", "Content-Type: application/json", 405),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_the_body_of_a_refused_request_is_never_taken_for_the_next_request(
    untouched: ServerProcess, path: str, headers: str, status: int, chunked: bool
) -> None:
    host = f"Host: 127.0.0.1:{untouched.port}\r\n"
    key = f"Authorization: Bearer {untouched.key}\r\n"
    hidden = f"POST {TRACK} HTTP/1.1\r\n{host}{key}Content-Type: application/json\r\n".encode()
    hidden += b"Content-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)
    own_key = "" if "Authorization" in headers else key
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(hidden)}"
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden) if chunked else hidden
    start = f"POST {path} HTTP/1.1\r\n{host}{own_key}{headers}\r\n{framing}\r\n\r\n"
    after = f"GET /api/health HTTP/1.1\r\n{host}\r\n"
    with closing(Peer(untouched.port)) as peer:
        peer.send(start.encode())
        peer.send(body + after.encode())
        assert peer.read().status == status
        healthy = peer.read()
    assert (healthy.status, json.loads(healthy.body)["status"]) == (200, "ok")


def test_after_a_413_the_connection_ends_and_nothing_behind_it_is_served(untouched: ServerProcess) -> None:
    head = f"POST {TRACK} HTTP/1.1\r\nHost: 127.0.0.1:{untouched.port}\r\nAuthorization: Bearer {untouched.key}\r\n"
    with closing(Peer(untouched.port)) as peer:
        peer.send(f"{head}Content-Type: application/json\r\nContent-Length: {2 * MIB}\r\n\r\n".encode())
        answer = peer.read()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert peer.is_closed()


# --- user ids are the caller's own

ODD = [
    "a/b", "/", "/a//b/", "..", "../../etc/passwd", ".", "a%2Fb", "%", "100%", "a b", "a+b", "a?b=c#d", "a&b=c", "'",
    '"; DROP TABLE notifications; --', "' OR 1=1 --", "\\", "{}", "<script>alert(1)</script>", "🎉👩‍👩‍👧", "e\u0301",
    "\u202eabc", "שלום", "user", "all", "read-all", "true", "1", "01a203d4-46cd-7000-a0fd-17c6c75a6818",
    "01A203D4-46CD-7000-A0FD-17C6C75A6818", "\u2028", "x" * 255, "ÿ", " a ",
]  # fmt: skip


@pytest.mark.parametrize("word", ODD, ids=ascii)
def test_any_user_id_leads_to_its_own_rows_and_no_others(server: ServerProcess, word: str) -> None:
    path = quote(word, safe="")
    activity, notice = track(server, word), send(server, word)
    session = ok(server.api("POST", START, {"user_id": word}), 201)["session_id"]
    device = {"user_id": word, "token": fresh("token"), "platform": "web"}
    device_id = ok(server.api("POST", DEVICES, device), 201)["device_token_id"]
    ok(server.api("POST", PREFERENCES, {"user_id": word, "notification_type": "*", "channel": "sms", "enabled": True}))

    def get(address: str) -> dict[str, Any]:
        answer = raw(server, "GET", address)
        assert answer.status == 200, answer.text
        found: dict[str, Any] = json.loads(answer.text)
        return found

    listed = ok(server.api("GET", "/api/activity", params={"user_id": word}))["activities"]
    assert [row["id"] for row in listed] == [activity]
    assert [row["id"] for row in get(f"/api/notifications/user/{path}")["notifications"]] == [notice]
    assert session in [row["id"] for row in get(f"/api/sessions/user/{path}")["sessions"]]
    assert [row["id"] for row in get(f"/api/devices/user/{path}")["devices"]] == [device_id]
    assert [row["user_id"] for row in get(f"{PREFERENCES}/{path}")["preferences"]] == [word]
    assert get(f"/api/analytics/user/{path}")["analytics"]["user_id"] == word
    assert json.loads(raw(server, "POST", f"/api/notifications/read-all/{path}").text)["updated"] == 1


@pytest.mark.parametrize("word", ["own id", "a/b", "..", "%2F", "🎉", "'", "UUID", UNKNOWN.upper()], ids=ascii)
def test_any_id_of_the_callers_own_is_found_under_it(server: ServerProcess, word: str) -> None:
    user, own = fresh(), fresh(word) if word != UNKNOWN.upper() else word
    assert track(server, user, activity_id=own) == own
    assert ok(server.api("POST", START, {"user_id": user, "session_id": own}), 201)["session_id"] == own
    ended = raw(server, "POST", f"/api/session/end/{quote(own, safe='')}")
    assert (ended.status, json.loads(ended.text)["session"]["id"]) == (200, own)


def test_http_that_is_none_is_400_in_the_same_shape(untouched: ServerProcess) -> None:
    for request in (b"hello\r\n\r\n", b"GET /api/health HTTP/9.9\r\n\r\n", b"GET /api/health HTTP/1.1\r\n\r\n"):
        with closing(Peer(untouched.port)) as peer:
            answer = peer.send(request).read()
            problem(Raw(answer.status, answer.headers, answer.body.decode()), "bad_request")


def open_files(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def test_a_client_that_leaves_in_the_middle_leaves_no_trace(untouched: ServerProcess) -> None:
    ok(untouched.api("GET", "/api/health"))
    before = open_files(untouched)
    for path in (TRACK, "/api/nothing", "/launch/x", "/api/stream", "/"):
        connection = http.client.HTTPConnection("127.0.0.1", untouched.port, timeout=10)
        connection.putrequest("POST" if path != "/api/stream" else "GET", path)
        connection.putheader("Authorization", f"Bearer {untouched.key}")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "100")
        connection.endheaders(b"{")
        connection.close()
    ok(untouched.api("GET", "/api/health"))
    eventually(lambda: open_files(untouched) <= before, what="the connections to be closed")
