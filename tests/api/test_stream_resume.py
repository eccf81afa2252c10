"""The event stream for reconnecting clients: ids, line breaks, and reads that fail meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashflow.backend import Backend, Config
from flashflow.backend.api.framework.serializers import activity_row_json, to_json_types
from flashflow.backend.schemas.records import Activity
from tests.api.test_stream import listening
from tests.support.api_client import fresh, ok, send, track
from tests.support.server_process import ServerProcess, eventually, serving

SEPARATORS = "a\u2028b\u2029c\u0085d"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("resume")) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with Backend(Config(data_dir=tmp_path, port=0)) as backend:
        backend.start()
        yield backend


@contextmanager
def opened(
    running: Backend | ServerProcess, headers: dict[str, str] | None = None, **query: str
) -> Iterator[Iterator[str]]:
    """The lines of a stream."""
    with (
        httpx.Client(base_url=str(running.url), headers=key_of(running), trust_env=False, timeout=10) as client,
        client.stream("GET", "/api/stream", headers=headers, params=query) as answer,
    ):
        assert answer.status_code == 200
        yield answer.iter_lines()


def key_of(running: Backend | ServerProcess) -> dict[str, str]:
    """The header with the local key."""
    return {"Authorization": f"Bearer {(running.data_dir / 'local.key').read_text('ascii').strip()}"}


def block(lines: Iterator[str]) -> dict[str, str]:
    """The fields up to the next empty line; a comment is the field with the empty name."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            return fields
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    raise AssertionError("the stream ended")


# --- ids


@pytest.mark.parametrize("last", [None, "", "0-0-0-0", "9-9-9-9"])
@pytest.mark.parametrize("filtered", [False, True])
def test_a_client_that_heard_nothing_has_an_id_to_come_back_with(
    server: ServerProcess, last: str | None, filtered: bool
) -> None:
    user = fresh()
    if last == "9-9-9-9":  # of a client that was there before
        with listening(server, user=user) as stream:
            send(server, user)
            stream.event()
            last = stream.last
    headers = {} if last is None else {"Last-Event-ID": last}
    query = {"user_id": user} if filtered else {}
    with opened(server, headers, **query) as lines:
        place = block(lines)["id"]
    missed = [send(server, user), track(server, user)]
    with listening(server, user=user, last=place) as stream:
        heard = {event.data["id"] for event in stream.events(3)}
    assert heard >= set(missed)


def test_every_ping_carries_the_place_of_this_client(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashflow.backend.api.routes.stream.PING_S", 0.05)
    with opened(backend, user_id="ada") as lines:
        places = [block(lines)["id"]]
        ping = block(lines)
        assert ping == {"": "ping", "id": places[0]}
        backend.notifications.send_notification(user_id="ada", title="t", message="m")
        while "data" not in (fields := block(lines)):
            assert fields["id"] == places[0]
        places.append(fields["id"])
        assert block(lines) == {"": "ping", "id": places[1]}
    assert places[0] != places[1]


def test_a_place_may_have_many_rows_of_other_users_behind_it(server: ServerProcess) -> None:
    user = fresh()
    with listening(server, user=user) as stream:
        track(server, user)
        place = stream.event().id
    rows = [{"user_id": "crowd", "activity_type": "x"} for _ in range(1_000)]
    for _ in range(21):  # LOOK is 20,000
        assert ok(server.api("POST", "/api/activity/batch", {"activities": rows}))["accepted"] == 1_000
    mine = track(server, user)
    with listening(server, user=user, last=place) as stream:
        assert mine in {event.data["id"] for event in stream.events(2)}


# --- lines


def test_no_character_of_a_value_ends_a_line_of_the_stream(server: ServerProcess) -> None:
    user = fresh(SEPARATORS)
    values = {
        "page_url": SEPARATORS,
        "referrer": SEPARATORS,
        "activity_type": "x",
        "metadata": {SEPARATORS: [SEPARATORS]},
    }
    texts = {
        "title": SEPARATORS,
        "message": SEPARATORS,
        "data": {SEPARATORS: {"k": SEPARATORS}},
        "collapse_key": SEPARATORS,
    }
    texts["actions"] = [{"label": SEPARATORS, "url": "https://example.org/"}]
    with listening(server, user=user) as stream:
        track(server, user, **values)
        session, activity = sorted((stream.event() for _ in range(2)), key=lambda event: event.kind, reverse=True)
        notice = send(server, user, **texts)
        notification = stream.event()
    assert session.data["user_id"] == user
    assert (activity.data["user_id"], activity.data["metadata"]) == (user, {SEPARATORS: [SEPARATORS]})
    assert activity.data["page_url"] == activity.data["referrer"] == SEPARATORS
    assert notification.about == ("notification", notice)
    assert {name: notification.data[name] for name in texts} == texts


@pytest.mark.parametrize("what", ["activities", "sessions", "notifications"])
def test_no_character_of_a_value_ends_a_line_of_an_export(server: ServerProcess, what: str) -> None:
    user = fresh(SEPARATORS)
    track(server, user, metadata={"k": SEPARATORS})
    send(server, user, message=SEPARATORS)
    answer = server.api("GET", f"/api/export/{what}", params={"user_id": user})
    (line,) = answer.text.splitlines()
    assert json.loads(line)["user_id"] == user


@pytest.mark.parametrize("metadata", [{}, {"a": {"b": [1, None, 2.5, "é\u2028"]}}])
def test_an_activity_is_written_the_same_from_its_row_and_from_its_record(
    backend: Backend, metadata: dict[str, Any]
) -> None:
    from flashflow.backend.api.framework.responses import encode
    from flashflow.backend.store.activity.activities import activities_after, to_activity

    backend.activity.track_activity(
        user_id="ada", activity_type="x", metadata=metadata, page_url="/p", user_agent="a", ip_address="::1"
    )
    (row,) = backend.activity.store.read(lambda conn: list(activities_after(conn, 0, 9, None, None)))
    record: Activity = to_activity(row)
    assert encode(activity_row_json(row)) == encode(to_json_types(record))


# --- reads that take too long


@contextmanager
def busy_readers(backend: Backend) -> Iterator[threading.Event]:
    """Block every reading thread until the event is set, so that reads time out."""
    go = threading.Event()
    assert backend._readers is not None
    waiting = [backend._readers.short.submit(go.wait, 10) for _ in range(2)]
    try:
        yield go
    finally:
        go.set()
        for one in waiting:
            one.result()


READS = [
    ("GET", "/api/stream"), ("HEAD", "/api/stream"), ("GET", "/api/activity"), ("GET", "/api/templates"),
    ("GET", "/api/sessions/user/ada"), ("GET", "/api/notifications/user/ada?q=x"), ("GET", "/api/analytics/user/ada"),
    ("GET", "/api/export/activities"), ("GET", "/api/users/ada/export"), ("GET", "/api/schedules"),
    ("GET", "/api/rules"),
]  # fmt: skip


def test_every_read_that_takes_too_long_is_a_504_in_the_one_shape(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flashflow.backend.api.framework.api_request.ANSWER_S", 0.1)
    url, key = str(backend.url), key_of(backend)
    with busy_readers(backend), httpx.Client(base_url=url, headers=key, trust_env=False, timeout=10) as client:
        for method, path in READS:
            answer = client.request(method, path)
            assert answer.status_code == 504, (path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert method == "HEAD" or answer.json()["code"] == "timeout"
    assert not [record for record in caplog.records if record.exc_info]


def test_a_stream_that_has_begun_goes_on_after_a_read_that_took_too_long(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flashflow.backend.api.framework.api_request.ANSWER_S", 0.1)
    monkeypatch.setattr("flashflow.backend.api.routes.stream.RETRY_S", 0.05)
    with opened(backend, user_id="ada") as lines:
        block(lines)
        with busy_readers(backend) as go:
            sent = backend.notifications.send_notification(user_id="ada", title="t", message="m")
            eventually(lambda: "event stream read failed" in caplog.text)
            go.set()
            assert json.loads(block(lines)["data"])["id"] == sent.notification_id
    assert not [record for record in caplog.records if record.exc_info]
