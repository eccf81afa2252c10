"""The event stream: live events, and no gap across a reconnect."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.api_client import KEYS, SEND, START, TEMPLATES, App, fresh, ok, problem, send, track
from tests.support.server_process import ServerProcess, serving

PATIENCE = 10.0


class Event(NamedTuple):
    kind: str
    id: str
    data: dict[str, Any]

    @property
    def about(self) -> tuple[str, str]:
        return self.kind, self.data["id"]


class Listener:
    """A client of the stream; ``last`` is the id for its Last-Event-ID."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.last = ""

    def event(self) -> Event:
        """Return the next event, skipping comments."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line:
                self.last = fields.get("id", self.last)
                if "data" in fields:
                    return Event(fields["event"], fields["id"], json.loads(fields["data"]))
                fields = {}
                continue
            name, _, value = line.partition(": ")
            if name in {"event", "id", "data"}:
                assert name not in fields
                fields[name] = value
        raise AssertionError("the stream ended")

    def events(self, count: int) -> list[Event]:
        return [self.event() for _ in range(count)]

    def until(self, wanted: Callable[[Event], bool]) -> list[Event]:
        """Return every event up to the matching one, included."""
        found = [self.event()]
        while not wanted(found[-1]):
            found.append(self.event())
        return found

    def ends(self) -> bool:
        """Whether the server ends the stream without another event."""
        return not [line for line in self._lines if line.startswith("data")]


@contextmanager
def listening(
    server: ServerProcess, key: str | None = None, last: str | None = None, user: str | None = None
) -> Iterator[Listener]:
    """Open a stream and wait for its first bytes: later events reach it."""
    headers = {"Authorization": f"Bearer {key or server.key}"} | ({} if last is None else {"Last-Event-ID": last})
    query = {} if user is None else {"user_id": user}
    with (
        httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as client,
        client.stream("GET", "/api/stream", headers=headers, params=query) as answer,
    ):
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = answer.iter_lines()
        assert next(lines).startswith("retry: ")
        yield Listener(lines)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("stream")) as running:
        yield running
        assert "Traceback" not in running.log


def move(caller: App | ServerProcess, verb: str, given: str) -> None:
    ok(caller.api("POST", f"/api/notifications/{verb}/{given}"))


# --- what is heard


def test_each_kind_of_event_arrives_with_the_row_as_the_lists_show_it(server: ServerProcess) -> None:
    user = fresh()
    with listening(server, user=user) as stream:
        activity = track(server, user, metadata={"line": "a\nb"})
        opened = {event.kind: event for event in stream.events(2)}
        notice = send(server, user, message="line one\nline two\r\n\r\ndata: no")
        sent = stream.event()
        move(server, "read", notice)
        read = stream.event()
        ok(server.api("POST", f"/api/session/end/{opened['session'].data['id']}"))
        ended = stream.event()
    assert set(opened) == {"session", "activity"}
    assert [opened["activity"].data] == ok(server.api("GET", "/api/activity", params={"user_id": user}))["activities"]
    assert opened["activity"].data["id"] == activity
    assert (sent.about, read.about) == (("notification", notice), ("notification.updated", notice))
    assert sent.data["status"] == "delivered"
    assert [read.data] == ok(server.api("GET", f"/api/notifications/user/{user}"))["notifications"]
    assert (ended.kind, ended.data["end_reason"]) == ("session", "ended")
    assert [ended.data] == ok(server.api("GET", f"/api/sessions/user/{user}"))["sessions"]


def test_every_state_change_of_a_notification_is_an_event(server: ServerProcess) -> None:
    user = fresh()
    with listening(server, user=user) as stream:
        notice = send(server, user)
        assert stream.event().about == ("notification", notice)
        for verb, inbox in (("read", "read"), ("unread", "unread"), ("archive", "archived"), ("unarchive", "unread")):
            move(server, verb, notice)
            event = stream.event()
            assert (event.about, event.data["inbox"]) == (("notification.updated", notice), inbox)
        ok(server.api("POST", f"/api/notifications/read-all/{user}"))
        assert stream.event().data["inbox"] == "read"


def test_events_of_a_kind_come_in_order_each_with_its_own_id(server: ServerProcess) -> None:
    user = fresh()
    with listening(server, user=user) as stream:
        given = [send(server, user) for _ in range(30)]
        events = stream.events(30)
    assert [event.about for event in events] == [("notification", notice) for notice in given]
    assert len({event.id for event in events}) == 30


def test_only_the_requested_users_events_arrive(server: ServerProcess) -> None:
    user, other = fresh(), fresh()
    with listening(server, user=user) as stream:
        send(server, other)
        track(server, other)
        notice = send(server, user)
        assert stream.event().about == ("notification", notice)


def test_every_users_events_arrive_without_a_user_filter(server: ServerProcess) -> None:
    users = [fresh(), fresh()]
    with listening(server) as stream:
        given = {send(server, user) for user in users}
        assert {event.data["id"] for event in stream.events(2)} == given


def test_an_app_hears_its_own_rows_alone_and_admin_hears_all(server: ServerProcess) -> None:
    one, other = App(server, "read", "send", "track"), App(server, "read", "send", "track")
    user = fresh()
    with listening(server, one.key) as own, listening(server, user=user) as all_:
        foreign = send(other, user)
        track(other, user)
        ok(other.api("POST", START, {"user_id": user}), 201)
        notice = send(one, user)
        assert own.event().about == ("notification", notice)
        heard = all_.until(lambda event: event.data["id"] == notice)
        assert foreign in {event.data["id"] for event in heard}
    with listening(server, one.key, last="0-0-0-0") as own:
        assert {event.data["app"] for event in own.until(lambda event: event.data["id"] == notice)} == {one.name}


def test_reading_all_as_admin_is_an_event_for_every_sending_app(server: ServerProcess) -> None:
    apps = [App(server, "read", "send") for _ in range(3)]
    user = fresh()
    given = [send(app, user) for app in apps]
    with (
        listening(server, apps[0].key) as first,
        listening(server, apps[1].key) as second,
        listening(server, apps[2].key) as third,
    ):
        assert ok(server.api("POST", f"/api/notifications/read-all/{user}"))["updated"] == 3
        heard = [stream.event().about for stream in (first, second, third)]
    assert heard == [("notification.updated", notice) for notice in given]


# --- coming back


def test_a_reconnect_goes_on_where_it_stood_and_misses_and_doubles_nothing(server: ServerProcess) -> None:
    user = fresh()
    with listening(server, user=user) as stream:
        first = send(server, user)
        assert stream.event().data["id"] == first
        place = stream.last
    missed = [send(server, user) for _ in range(3)]
    activity = track(server, user)
    with listening(server, user=user, last=place) as stream:
        events = stream.events(5)
        later = send(server, user)
        assert stream.event().data["id"] == later
    assert [event.data["id"] for event in events if event.kind == "notification"] == missed
    assert [event.data["id"] for event in events if event.kind == "activity"] == [activity]
    assert [event.kind for event in events].count("session") == 1


def test_any_event_is_a_place_to_go_on_from(server: ServerProcess) -> None:
    user = fresh()
    with listening(server, user=user) as stream:
        given = [send(server, user) for _ in range(6)]
        events = stream.events(6)
    for number, event in enumerate(events[:-1]):
        with listening(server, user=user, last=event.id) as stream:
            assert [e.data["id"] for e in stream.events(5 - number)] == given[number + 1 :]


def test_a_notice_that_changed_meanwhile_is_still_new_to_who_comes_back(server: ServerProcess) -> None:
    user = fresh()
    with listening(server, user=user) as stream:
        send(server, user)
        stream.event()
        place = stream.last
    older, newer = send(server, user), send(server, user)
    move(server, "read", older)
    with listening(server, user=user, last=place) as stream:
        events = stream.events(2)
        move(server, "read", newer)
        update = stream.event()
    assert {event.about for event in events} == {("notification", older), ("notification", newer)}
    assert update.about == ("notification.updated", newer)
    with listening(server, user=user, last=update.id) as stream:
        move(server, "unread", older)
        assert stream.event().about == ("notification.updated", older)


def test_more_than_a_page_was_missed_and_all_of_it_comes(server: ServerProcess) -> None:
    user = fresh()
    with listening(server, user=user) as stream:
        send(server, user)
        stream.event()
        place = stream.last
    body = {"user_ids": [user], "title": "t", "message": "m"}
    given = [ok(server.api("POST", SEND, body), 201)["notifications"][0]["notification_id"] for _ in range(450)]
    move(server, "read", given[0])
    with listening(server, user=user, last=place) as stream:
        events = stream.events(450)
        move(server, "read", given[7])
        assert stream.event().about == ("notification.updated", given[7])
    assert [event.kind for event in events] == ["notification"] * 450
    assert [event.data["id"] for event in events] == [*given[1:], given[0]]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_nothing_is_missed_over_a_restart(tmp_path: Path, how: str) -> None:
    with serving(tmp_path) as server:
        with listening(server, user="ada") as stream:
            first = send(server, "ada")
            assert stream.event().data["id"] == first
            place = stream.last
        before = send(server, "ada")
        getattr(server, how)()
    with serving(tmp_path) as server:
        after = send(server, "ada")
        with listening(server, user="ada", last=place) as stream:
            later = send(server, "ada")
            heard = [event.about for event in stream.events(3)]
        assert heard == [("notification", notice) for notice in (before, after, later)]


def test_a_stop_ends_the_stream_as_http_says(tmp_path: Path) -> None:
    with serving(tmp_path) as server, listening(server) as stream:
        send(server, "ada")
        stream.event()
        assert server.stop() == 0
        assert stream.ends()


def test_a_place_further_on_than_the_files_are_is_now(server: ServerProcess) -> None:
    """After a restored backup, ids repeat that clients have already received."""
    user = fresh()
    with listening(server, user=user, last="-".join(["9" * 18] * 4)) as stream:
        notice = send(server, user)
        assert stream.event().about == ("notification", notice)


@pytest.mark.parametrize(
    "last", ["x", "1", "1-2-3", "1-2-3-4-5", "-1-0-0-0", "1.0-0-0-0", "٣-0-0-0", "9" * 19 + "-0-0-0", "0-0-0-0\t1"]
)
def test_a_place_that_this_stream_never_gave_is_refused(server: ServerProcess, last: str) -> None:
    answer = server.api("GET", "/api/stream", headers={"Last-Event-ID": last.encode()})
    problem(answer, "validation_error", "Last-Event-ID")


# --- who holds whom up


def test_a_client_that_does_not_read_delays_no_other(server: ServerProcess) -> None:
    user = fresh()
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", server.port))
        host, key = f"Host: 127.0.0.1:{server.port}", f"Authorization: Bearer {server.key}"
        lazy.sendall(f"GET /api/stream?user_id={user} HTTP/1.1\r\n{host}\r\n{key}\r\n\r\n".encode())
        lazy.settimeout(PATIENCE)
        assert lazy.recv(15).startswith(b"HTTP/1.1 200")
        with listening(server, user=user) as stream:
            # More than any buffer between here and there holds.
            given = [send(server, user, message="x" * 10_000) for _ in range(900)]
            assert [event.data["id"] for event in stream.events(900)] == given
            ok(server.api("GET", "/api/health"))


def test_a_stream_ends_with_its_key(server: ServerProcess) -> None:
    app, user = App(server, "read", "send"), fresh()
    with listening(server, app.key) as stream:
        send(app, user)
        stream.event()
        ok(server.api("DELETE", f"{KEYS}/{app.name}"))
        send(server, user, app=app.name)
        assert stream.ends()


def test_the_head_of_the_stream_leaves_the_connection_free(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        headers = {"Authorization": f"Bearer {server.key}"}
        answer = client.head("/api/stream", headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert client.get("/api/health").status_code == 200


def test_events_without_a_row_are_not_on_the_stream(server: ServerProcess) -> None:
    with listening(server) as stream:
        text = {"name": fresh("template"), "title_template": "t", "message_template": "m"}
        ok(server.api("POST", TEMPLATES, text), 201)
        notice = send(server, fresh())
        assert stream.event().about == ("notification", notice)
