"""Sources of the controls over HTTP and in process: the same promises for both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import NotificationService
from flashflow.client import Client, Refused
from flashflow.controls import (
    InboxSource,
    NotificationBell,
    NotificationSettings,
    PreferenceSource,
    connect,
    in_process,
)
from flashflow.views.controls import http_sources
from tests.support.server_process import ServerProcess, serving

pytestmark = pytest.mark.anyio


class Side:
    """One way to FlashFlow: its sources, and how an app sends through it."""

    def __init__(self, sources: Any, send: Callable[..., str]) -> None:
        self.sources = sources
        self.send = send

    def inbox(self, user_id: str) -> InboxSource:
        found: InboxSource = self.sources.inbox(user_id)
        return found

    def preferences(self, user_id: str) -> PreferenceSource:
        found: PreferenceSource = self.sources.preferences(user_id)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(params=["http", "in process"])
def side(request: pytest.FixtureRequest, tmp_path: Path, server: ServerProcess) -> Iterator[Side]:
    if request.param == "in process":
        with NotificationService(tmp_path / "notifications.db") as service:
            yield Side(
                in_process(service), lambda user, **more: service.send_notification(user, **more).notification_id
            )
        return

    def send(user: str, **fields: Any) -> str:
        answer = server.api("POST", "/api/notifications/send", {"user_id": user, **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["notification_id"])

    client = Client(app="shop", url=server.url, key=server.key, data_dir=tmp_path)
    connection = connect(client)
    yield Side(connection, send)
    connection.close()
    client.close()


@pytest.fixture
async def heard() -> asyncio.Queue[None]:
    return asyncio.Queue()


def new_user() -> str:
    return f"ada/ü {datetime.now(UTC).timestamp()}"


async def test_a_source_reads_marks_and_restores_an_inbox(side: Side) -> None:
    user, threads = new_user(), asyncio.to_thread
    source = side.inbox(user)
    ids = [await threads(side.send, user, title=f"Build {n}", message="Done.") for n in range(3)]
    inbox = await threads(source.newest, 2)
    assert [(n.id, n.title, n.inbox, n.count) for n in inbox.notifications] == [
        (ids[2], "Build 2", "unread", 1), (ids[1], "Build 1", "unread", 1),
    ]  # fmt: skip
    assert inbox.unread == 3
    assert abs(inbox.notifications[0].listed_at - datetime.now(UTC)) < timedelta(minutes=1)
    await threads(source.mark_read, ids[0])
    assert (await threads(source.newest, 10)).unread == 2
    marked = await threads(source.mark_all_read)
    assert sorted(marked) == sorted(ids[1:])
    assert (await threads(source.newest, 10)).unread == 0
    await threads(source.mark_unread, marked)
    assert (await threads(source.newest, 10)).unread == 2


async def test_do_not_disturb_is_set_and_ended(side: Side) -> None:
    source = side.inbox(new_user())
    await asyncio.to_thread(source.set_do_not_disturb, 60)
    until = (await asyncio.to_thread(source.newest, 1)).quiet_until
    assert until is not None
    assert timedelta(minutes=58) < until - datetime.now(UTC) <= timedelta(minutes=60)
    await asyncio.to_thread(source.set_do_not_disturb, None)
    assert (await asyncio.to_thread(source.newest, 1)).quiet_until is None


async def test_a_source_announces_notifications_of_its_user_only(side: Side, heard: asyncio.Queue[None]) -> None:
    user = new_user()
    loop = threading.current_thread()
    calls: list[threading.Thread] = []

    def on_change() -> None:
        calls.append(threading.current_thread())
        heard.put_nowait(None)

    unsubscribe = side.inbox(user).subscribe(on_change)
    await _until_it_hears(side, user, heard)
    while not heard.empty():
        heard.get_nowait()
    await asyncio.to_thread(side.send, new_user(), title="Other", message="Not hers.")
    await asyncio.to_thread(side.send, user, title="Hers", message="Yes.")
    await asyncio.wait_for(heard.get(), 10)
    assert set(calls) == {loop}, "controls are not thread-safe: only their own loop may call them"
    unsubscribe()
    count = len(calls)
    await asyncio.to_thread(side.send, user, title="Later", message="Nobody listens.")
    again: asyncio.Queue[None] = asyncio.Queue()
    end = side.inbox(user).subscribe(lambda: again.put_nowait(None))
    await _until_it_hears(side, user, again)
    end()
    assert len(calls) == count


async def _until_it_hears(side: Side, user: str, heard: asyncio.Queue[None]) -> None:
    """Send until the first event arrives: a stream over HTTP begins some time after ``subscribe``."""
    for _ in range(100):
        await asyncio.to_thread(side.send, user, title="First", message="Begin.")
        try:
            await asyncio.wait_for(heard.get(), 0.2)
        except TimeoutError:
            continue
        return
    raise AssertionError("no event arrived")


async def test_preferences_are_read_and_saved(side: Side) -> None:
    user, threads = new_user(), asyncio.to_thread
    await threads(side.send, user, title="Build", message="Done.", notification_type="builds")
    source = side.preferences(user)
    await threads(source.set_preference, "builds", "email", False)
    await threads(source.set_digest, "builds", "daily", "07:30")
    matrix = await threads(source.matrix)
    row = next(row for row in matrix.types if row.name == "builds")
    assert (row.channels["email"], row.channels["in_app"]) == (False, True)
    assert (row.digest.frequency, row.digest.at, row.digest.chosen) == ("daily", "07:30", True)
    assert [(c.notification_type, c.channel, c.enabled) for c in matrix.preferences] == [("builds", "email", False)]
    await threads(source.set_digest, "builds", None, None)
    row = next(row for row in (await threads(source.matrix)).types if row.name == "builds")
    assert (row.digest.frequency, row.digest.chosen) == ("off", False)


async def test_a_key_that_may_only_read_shows_the_inbox_without_do_not_disturb(
    server: ServerProcess, tmp_path: Path
) -> None:
    made = server.api("POST", "/api/keys", {"name": f"reader{datetime.now(UTC).timestamp():.0f}", "scopes": ["read"]})
    assert made.status_code == 201, made.text
    client = Client(app="reader", url=server.url, key=made.json()["key"], data_dir=tmp_path)
    source = connect(client).inbox("ada")
    inbox = await asyncio.to_thread(source.newest, 10)
    assert (inbox.may_pause, inbox.quiet_until) == (False, None)
    with pytest.raises(Refused):
        await asyncio.to_thread(source.set_do_not_disturb, 60)
    bell = NotificationBell(source=source)
    await bell.refresh()
    assert bell.unread == 0
    client.close()


async def test_a_bell_shows_that_flashflow_is_not_running_and_returns(tmp_path: Path) -> None:
    client = Client(app="shop", url="http://127.0.0.1:9", key="k" * 32, data_dir=tmp_path)
    bell = NotificationBell(source=connect(client).inbox("ada"))
    await bell.refresh()
    assert "The inbox could not be read" in str(bell._error)
    client.close()


async def test_controls_refresh_now_and_then_without_an_event(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: asyncio.Queue[None]
) -> None:
    monkeypatch.setattr(http_sources, "POLL_S", 0.02)
    client = Client(app="shop", url=server.url, key=server.key, data_dir=tmp_path)
    end = connect(client).inbox("ada").subscribe(lambda: heard.put_nowait(None))
    await asyncio.wait_for(heard.get(), 10)
    await asyncio.wait_for(heard.get(), 10)
    end()
    client.close()


@pytest.mark.parametrize("control", [NotificationBell, NotificationSettings])
async def test_a_control_needs_no_more_than_a_user(
    control: type[NotificationBell | NotificationSettings],
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASHFLOW_DATA_DIR", str(server.data_dir))
    http_sources.local_connection.cache_clear()
    shown = control(user_id="ada")
    assert control(user_id="eve")._source._connection is shown._source._connection  # type: ignore[union-attr]
    await shown.refresh()
    assert shown._error is None
    http_sources.local_connection()._client.close()
    http_sources.local_connection.cache_clear()
    with pytest.raises(ValueError, match="Give the control a source or a user_id"):
        control()
