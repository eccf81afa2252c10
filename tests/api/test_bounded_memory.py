"""Memory stays bounded when many clients request large rows and do not read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.store.engine.sql import PAGE_BYTES
from tests.support.api_client import DEVICES, SCHEDULES, SEND, START, TEMPLATES, TRACK, App, ok, send, track
from tests.support.raw_http import Peer
from tests.support.server_process import ServerProcess, eventually, serving

MIB = 1024 * 1024
USER = "ada"
ROWS = 12
LARGE = {"k": "x" * 900_000}
UNREAD_MIB = 160
"""MiB that unread streams, lists and exports may add to the process, with 12 rows of 0.9 MB of each kind."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("memory")) as running:
        for number in range(ROWS):
            send(running, USER, data=LARGE)
            ok(running.api("POST", START, {"user_id": USER, "device_info": LARGE}), 201)
            track(running, USER, metadata=LARGE)  # in that session
            device = {"user_id": USER, "token": f"token-{number}", "platform": "ios", "device_info": LARGE}
            ok(running.api("POST", DEVICES, device), 201)
            schema = {"type": "object", "description": "x" * 60_000}
            text = {"name": f"t{number}", "title_template": "t", "message_template": "m", "data_schema": schema}
            ok(running.api("POST", TEMPLATES, text), 201)
            notification = {"user_id": USER, "title": "t", "message": "m", "data": LARGE}
            plan = {"name": f"s{number}", "notification": notification, "rule": {"at": "08:00", "timezone": "UTC"}}
            ok(running.api("POST", SCHEDULES, plan), 201)
        yield running
        assert "Traceback" not in running.log


LISTS = {
    "notifications": f"/api/notifications/user/{USER}",
    "notifications, filtered": f"/api/notifications/user/{USER}?q=Hello",
    "activities": "/api/activity",
    "activities of a user": f"/api/activity?user_id={USER}",
    "sessions": f"/api/sessions/user/{USER}",
    "devices": f"/api/devices/user/{USER}",
    "templates": "/api/templates",
    "schedules": "/api/schedules",
}


@pytest.mark.parametrize("path", LISTS.values(), ids=LISTS.keys())
def test_a_page_of_large_rows_ends_early_and_its_cursor_leads_on(server: ServerProcess, path: str) -> None:
    name = {"activity": "activities"}.get(path.split("/")[2].split("?", maxsplit=1)[0], path.split("/")[2])
    found: list[str] = []
    query: dict[str, Any] = {"limit": 200}
    while True:
        answer = server.api(
            "GET", path + ("&" if "?" in path else "?") + "&".join(f"{k}={v}" for k, v in query.items())
        )
        assert len(answer.content) <= PAGE_BYTES + MIB
        body = ok(answer)
        assert body[name]
        found += [row["id"] for row in body[name]]
        if body["next_cursor"] is None:
            break
        query["cursor"] = body["next_cursor"]
    assert (len(found), len(set(found))) == (ROWS, ROWS)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("what", ["activities", "sessions", "notifications"])
@pytest.mark.parametrize("user", [None, USER])
def test_an_export_of_large_rows_has_all_of_them(server: ServerProcess, what: str, kind: str, user: str | None) -> None:
    query = {"format": kind} | ({} if user is None else {"user_id": user})
    lines = server.api("GET", f"/api/export/{what}", params=query).text.splitlines()
    assert len(lines) == ROWS + (kind == "csv")


def memory(server: ServerProcess, what: str) -> int:
    """Return a line of /proc/PID/status in MiB."""
    text = Path(f"/proc/{server.pid}/status").read_text("ascii")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(what))) // 1024


UNREAD: dict[str, tuple[int, str, str]] = {
    "streams": (12, "/api/stream", "Last-Event-ID: 0-0-0-0\r\n"),
    "notifications": (24, f"/api/notifications/user/{USER}?limit=200", ""),
    "activities": (24, "/api/activity?limit=200", ""),
    "sessions": (24, f"/api/sessions/user/{USER}?limit=200", ""),
    "devices": (24, f"/api/devices/user/{USER}?limit=200", ""),
    "templates": (24, "/api/templates?limit=200", ""),
    "export": (24, "/api/export/notifications", ""),
    "CSV": (24, "/api/export/activities?format=csv", ""),
    "everything of a user": (12, f"/api/users/{USER}/export", ""),
}


def ask(server: ServerProcess, path: str, more: str = "", key: str | None = None) -> Peer:
    """Send a request and do not read the response."""
    peer = Peer(server.port, receive_buffer=4096)
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {key or server.key}\r\n"
    return peer.send(f"{head}{more}\r\n".encode())


@pytest.mark.parametrize(("count", "path", "more"), UNREAD.values(), ids=UNREAD.keys())
def test_clients_that_do_not_read_do_not_fill_the_memory(
    server: ServerProcess, count: int, path: str, more: str
) -> None:
    before = memory(server, "VmRSS")
    Path(f"/proc/{server.pid}/clear_refs").write_text("5", "ascii")  # the peak counts from here
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(closing(ask(server, path, more)))
        first = stack.enter_context(closing(ask(server, "/api/activity?limit=1&activity_type=none")))
        assert first.read().status == 200  # the readers have come round to it
        ok(server.api("POST", "/api/activity/track", {"user_id": "honest", "activity_type": "x"}), 201)
        assert memory(server, "VmHWM") - before < UNREAD_MIB


def test_a_key_that_reads_nothing_is_refused_and_no_other_key_is(server: ServerProcess) -> None:
    greedy, other = App(server, "admin"), App(server, "admin")
    path = f"/api/notifications/user/{USER}?limit=200"

    def refused() -> bool:
        return greedy.api("GET", path).status_code == 429

    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(closing(ask(server, path, key=greedy.key)))
        assert eventually(refused)
        answer = greedy.api("GET", path)
        problem = json.loads(answer.text)
        assert (problem["status"], problem["code"], problem["success"]) == (429, "rate_limited", False)
        assert answer.headers["retry-after"] == "1"
        assert greedy.api("GET", "/api/export/activities").status_code == 429
        assert greedy.api("GET", "/api/activity", params={"activity_type": "none"}).status_code == 200
        assert other.api("GET", path).status_code == 200
        assert other.api("GET", "/api/export/activities").status_code == 200
    assert eventually(lambda: greedy.api("GET", path).status_code == 200)


def test_the_info_of_open_sessions_is_not_kept(server: ServerProcess) -> None:
    sessions: Callable[[], Any] = lambda: ok(server.api("GET", f"/api/sessions/user/{USER}", params={"limit": 1}))  # noqa: E731
    assert sessions()["sessions"][0]["device_info"] == LARGE
    ok(server.api("POST", f"/api/session/end/{sessions()['sessions'][0]['id']}"))
    assert sessions()["sessions"][0]["device_info"] == LARGE


def test_nothing_is_kept_of_large_requests_that_were_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        requests: list[tuple[str, dict[str, Any], int]] = [
            (SEND, {"user_id": USER, "title": "t", "message": "m", "data": LARGE}, 201),
            (TRACK, {"user_id": USER, "activity_type": "x", "metadata": LARGE}, 201),
            (START, {"user_id": USER, "device_info": LARGE}, 201),
            (TRACK, {"user_id": USER, "metadata": LARGE}, 400),
            ("/api/nothing", LARGE, 404),
        ]
        for path, body, status in requests:
            for _ in range(20):  # buffers and caches grow to their size
                assert server.api("POST", path, body).status_code == status
        before = memory(server, "VmRSS")
        for path, body, status in requests:
            for _ in range(30):
                assert server.api("POST", path, body).status_code == status
        assert memory(server, "VmRSS") - before < 60
