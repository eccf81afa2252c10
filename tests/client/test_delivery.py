"""The client with a real FlashFlow: every call arrives once, and the server's answer comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flashflow import client as module
from flashflow.client import Client, Refused, Rejected
from tests.support.api_client import App
from tests.support.server_process import ServerProcess, eventually, flashflow, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("client")) as running:
        yield running


@pytest.fixture
def client(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client that finds the server by the data folder; its app and user are the test's name."""
    name = request.node.name.removeprefix("test_")[:60]
    with Client(app=name, user_id=name, data_dir=server.data_dir) as found:
        yield found


def test_activities_arrive_in_order_under_the_clients_app_and_user(server: ServerProcess, client: Client) -> None:
    ids = [client.track("export", {"n": n}, page_url="/x", timestamp=datetime.now(UTC)) for n in range(2_500)]
    assert client.flush(20) == 0
    rows = list(server.everything("/api/activity", "activities", app=client.app))
    assert [row["id"] for row in reversed(rows)] == ids
    assert {(row["user_id"], row["activity_type"], row["page_url"]) for row in rows} == {
        (client.user_id, "export", "/x")
    }
    assert [row["metadata"]["n"] for row in reversed(rows)] == list(range(2_500))


def test_the_sender_thread_delivers_without_flush(server: ServerProcess, client: Client) -> None:
    wanted = client.track("export")
    eventually(lambda: wanted in {r["id"] for r in server.everything("/api/activity", "activities", app=client.app)})
    eventually(lambda: client.pending == 0)


def test_a_notification_answers_with_its_deliveries_and_is_in_the_inbox(client: Client) -> None:
    sent = client.send("Build finished", "All tests passed.", channels=["in_app"], data={"n": 1}, priority="high")
    assert (sent.status, sent.deliveries[0]["channel"]) == ("delivered", "in_app")
    page = client.inbox()
    assert (page.unread_count, page.next_cursor) == (1, None)
    assert [(row["id"], row["title"], row["data"]) for row in page.notifications] == [
        (sent.notification_id, "Build finished", {"n": 1})
    ]
    assert client.mark_read(page.notifications[0]["id"])["status"] == "read"
    assert asyncio.run(client.inbox_async(status="unread")).notifications == []


def test_a_notification_that_the_server_refuses_raises_and_is_not_sent_again(client: Client) -> None:
    with pytest.raises(Refused, match="priority") as refused:
        client.send("Title", "Message", priority="loud")
    assert (refused.value.status, refused.value.code) == (400, "validation_error")
    assert (client.pending, client.rejected) == (0, [])


def test_a_refused_row_of_a_batch_is_kept_with_the_servers_words(server: ServerProcess) -> None:
    reported: list[Rejected] = []
    with Client(app="refused", user_id="ada", data_dir=server.data_dir, on_reject=reported.extend) as client:
        good = [client.track("export") for _ in range(3)]
        client.track("future", timestamp=datetime.now(UTC) + timedelta(days=3))
        good.append(client.track("export"))
        client.send("Title", "Message", priority="loud", wait=0)
        assert client.flush() == 0
        assert [(row.kind, row.status) for row in client.rejected] == [("activity", 400), ("send", 400)]
        assert "more than an hour in the future" in client.rejected[0].message
        assert "priority" in client.rejected[1].message
        assert [row.body for row in reported] == [row.body for row in client.rejected]
        rows = list(server.everything("/api/activity", "activities", app="refused"))
        assert [row["id"] for row in reversed(rows)] == good
        assert "no  client queue refused.queue: 0 pending, 2 rejected" in doctor(server.data_dir)
        assert client.clear_rejected() == 2
        assert "ok  client queue refused.queue: 0 pending, 0 rejected" in doctor(server.data_dir)


def doctor(folder: Path) -> str:
    return flashflow("doctor", data_dir=folder).stdout


def test_calls_in_a_session_belong_to_it_and_its_times_are_the_blocks(server: ServerProcess, client: Client) -> None:
    with client.session("bea", device_info={"os": "linux"}) as session:
        client.track("inside")
        with client.session("bea") as inner:
            client.track("deeper")
        client.track("inside")
    client.track("outside")
    client.flush()
    rows = {row["id"]: row for row in server.everything("/api/sessions/user/bea", "sessions")}
    assert (rows[session]["activities"], rows[inner]["activities"]) == (2, 1)
    assert rows[session]["end_reason"] == "ended"
    assert rows[session]["device_info"] == {"os": "linux"}
    outside = server.api("GET", f"/api/activity?activity_type=outside&app={client.app}").json()["activities"][0]
    assert (outside["user_id"], outside["session_id"] not in rows) == (client.user_id, True)


def test_a_session_that_ended_while_the_server_was_away_has_the_times_of_its_activities(
    server: ServerProcess, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_start", lambda: None)
    with client.session("late") as session:
        client.track("inside", timestamp=datetime.now(UTC) - timedelta(hours=3))
        client.track("inside", timestamp=datetime.now(UTC) - timedelta(hours=3, seconds=-30))
    monkeypatch.setattr(module, "LATE_MS", -1)
    assert client.flush() == 0
    (row,) = server.everything("/api/sessions/user/late", "sessions")
    assert (row["id"], round(row["duration"])) == (session, 30)


def test_an_open_session_is_kept_alive(server: ServerProcess, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)

    def seen() -> str:
        (row,) = server.everything("/api/sessions/user/beating", "sessions")
        return str(row["last_seen"])

    with client.session("beating"):
        client.flush()
        first = seen()
        eventually(lambda: seen() > first)


def test_a_stream_yields_events_and_a_durable_one_continues_after_the_last_handled(
    server: ServerProcess, client: Client
) -> None:
    user = client.user_id
    first = client.send("First", "Message").notification_id
    events = client.stream(user, last_event_id="0-0-0-0", durable=True)
    event = next(events)
    assert (event.event, event.data["id"]) == ("notification", first)
    second = client.send("Second", "Message").notification_id
    assert next(events).data["id"] == second
    events.close()
    again = client.stream(user, durable=True)
    assert next(again).data["id"] == second, "its handling may have been interrupted"
    third = client.send("Third", "Message").notification_id
    assert next(again).data["id"] == third

    async def follow() -> str:
        async for found in client.stream_async(user, durable=True):
            return str(found.data["id"])
        raise AssertionError("the stream ended")

    assert asyncio.run(follow()) == third


def test_an_apps_own_key_needs_no_app_and_its_missing_scope_holds_nothing_else_up(
    server: ServerProcess, tmp_path: Path
) -> None:
    app = App(server, "track")
    with Client(app="other-name", user_id="ada", url=server.url, key=app.key, data_dir=tmp_path) as client:
        assert client.send("Title", "Message", wait=0).status == "queued"
        tracked = client.track("export")
        assert client.flush(2) == 1, "the notification waits for a key with the scope"
        rows = list(server.everything("/api/activity", "activities", app=app.name))
        assert [row["id"] for row in rows] == [tracked]
        assert client.rejected == []


def test_a_stream_without_the_scope_is_refused(server: ServerProcess, tmp_path: Path) -> None:
    app = App(server, "track")
    with (
        Client(app="x", url=server.url, key=app.key, data_dir=tmp_path) as client,
        pytest.raises(Refused, match="read"),
    ):
        next(client.stream("ada"))


def test_rows_queued_while_flashflow_was_closed_arrive_once_it_runs(tmp_path: Path) -> None:
    with Client(app="todo", user_id="ada", data_dir=tmp_path) as client:
        ids = [client.track("export") for _ in range(10)]
        assert client.send("Title", "Message").status == "queued"
        with serving(tmp_path) as server:
            eventually(lambda: client.pending == 0, deadline=15)
            rows = list(server.everything("/api/activity", "activities", app="todo"))
            assert [row["id"] for row in reversed(rows)] == ids
            assert [row["title"] for row in client.inbox().notifications] == ["Title"]
            server.stop()
        with serving(tmp_path):
            client.track("export")
            assert client.flush(20) == 0, "a connection to a server that ended is not used again"
