"""Exported notifications put back in: as they were, once, and without telling anybody anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import Backend, Config, Notification
from flashflow.backend.data.formats import jsonl
from flashflow.backend.data.import_notifications import import_notifications_write
from flashflow.backend.schemas.records import BatchResult
from flashflow.backend.settings.model import RetentionSettings
from flashflow.backend.store.privacy import export
from flashflow.backend.store.privacy.export import ExportFilter
from tests.api.test_stream import listening
from tests.support.api_client import ok, rows_in
from tests.support.fixed_clock import StillClock
from tests.support.server_process import flashflow, serving

DATABASE = "notifications.db"


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def here(tmp_path: Path, clock: StillClock) -> Iterator[Backend]:
    with Backend(Config(data_dir=tmp_path / "here", port=0, me="ada"), clock=clock) as backend:
        yield backend


@pytest.fixture
def there(tmp_path: Path, clock: StillClock) -> Iterator[Backend]:
    with Backend(Config(data_dir=tmp_path / "there", port=0, me="ada"), clock=clock) as backend:
        yield backend


def told(backend: Backend) -> list[Notification]:
    return [n for some in export.notifications(backend.notifications.store, ExportFilter()) for n in some]


def lines(backend: Backend) -> list[bytes]:
    return b"".join(jsonl(export.notifications(backend.notifications.store, ExportFilter()))).splitlines()


def take_in(backend: Backend, rows: Sequence[bytes]) -> BatchResult:
    service = backend.notifications
    return service.store.run(import_notifications_write(service.clock, rows))


def row(clock: StillClock, **other: Any) -> bytes:
    said = {
        "id": "n1", "user_id": "ada", "app": "shop", "title": "Paid", "message": "m", "status": "delivered",
        "inbox": "unread", "created_at": clock.at(days=-9).isoformat(),
    }  # fmt: skip
    return json.dumps(said | other).encode()


def live(backend: Backend, clock: StillClock) -> None:
    """Notices in every state that is over."""
    service = backend.notifications
    sent = []
    for number in range(6):
        clock.go(minutes=1)
        many = {"data": {"n": number}, "actions": [{"label": "Open", "url": "https://example.org/"}]}
        sent.append(
            service.send_notification("ada", f"title {number}", "=1+1", priority="high", **many).notification_id
        )
    service.mark_notification_as_read(sent[0])
    service.snooze_notification(sent[1], clock.at(hours=3))
    service.archive_notification(sent[2])
    service.send_notification("bob", "mail", "m", channels=["email"])  # no channel, no address: suppressed
    service.send_notification("ada", "key", "m", collapse_key="k")
    service.send_notification("ada", "key", "again", collapse_key="k")


def test_what_comes_back_is_what_left_and_a_second_import_changes_nothing(
    here: Backend, there: Backend, clock: StillClock
) -> None:
    live(here, clock)
    result = take_in(there, lines(here))
    assert (result.accepted, result.duplicates, result.rejected) == (8, 0, ())
    assert told(there) == told(here)
    for user in ("ada", "bob"):
        lists = [b.notifications.get_user_notifications(user, status="all").notifications for b in (here, there)]
        assert lists[0] == lists[1]
        assert here.notifications.unread_count(user) == there.notifications.unread_count(user)
    assert rows_in(there.data_dir / DATABASE, "SELECT COUNT(*) FROM deliveries") == [(0,)]
    before = told(there)
    result = take_in(there, lines(here))
    assert (result.accepted, result.duplicates) == (0, 8)
    assert told(there) == before


def test_they_stand_by_their_age_below_what_was_made_here(there: Backend, clock: StillClock) -> None:
    there.notifications.send_notification("ada", "made here", "m")
    days = [-3, -7, -5, -5, -1]
    rows = [row(clock, id=f"n{at}", title=f"{day}", created_at=clock.at(days=day).isoformat())
            for at, day in enumerate(days)]  # fmt: skip
    for start in (0, 2, 4):
        take_in(there, rows[start : start + 2])
    there.notifications.send_notification("ada", "the newest", "m")
    service, titles, cursor = there.notifications, [], None
    while True:
        page = service.get_user_notifications("ada", limit=2, cursor=cursor)
        titles += [n.title for n in page.notifications]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert titles == ["the newest", "made here", "-1", "-3", "-5", "-5", "-7"]
    assert [n.title for n in told(there)] == titles[::-1]


def test_two_thousand_of_one_moment_keep_their_order(there: Backend, clock: StillClock) -> None:
    rows = [row(clock, id=f"n{at}", title=str(at)) for at in range(2_500)]
    for start in range(0, 2_500, 1_000):
        take_in(there, rows[start : start + 1_000])
    assert [n.title for n in told(there)] == [str(at) for at in range(2_500)]


def test_what_cannot_be_is_refused_by_its_field_and_the_rest_lands(there: Backend, clock: StillClock) -> None:
    take_in(there, [row(clock)])
    result = take_in(
        there,
        [
            row(clock, id="good"),
            row(clock, id="s", status="scheduled"),
            row(clock, id="p", status="pending"),
            row(clock, id="f", created_at=clock.at(hours=2).isoformat()),
            row(clock, id="z", inbox="snoozed"),
            row(clock, user_id="bob"),
            row(clock, app="blog"),
            row(clock, id="x", status="lost"),
            row(clock, id="x", actions=[{"label": "run", "url": "javascript:alert(1)"}]),
            row(clock, id="x", device_tokens=["secret"]),
            row(clock, id="x", count=0),
            row(clock, id="a/b"),
            row(clock, id="x", read_at=clock.at(days=10).isoformat()),
            b"[]",
            b"{",
        ],
    )
    assert (result.accepted, result.duplicates) == (1, 0)
    fields = [(one.index, one.errors[0][0]) for one in result.rejected]
    assert fields == [
        (1, "status"), (2, "status"), (3, "created_at"), (4, "snoozed_until"), (5, "id"), (6, "id"), (7, "status"),
        (8, "actions.0.url"), (9, "device_tokens"), (10, "count"), (11, "id"), (12, "read_at"), (13, ""), (14, ""),
    ]  # fmt: skip
    assert [n.id for n in told(there)] == ["n1", "good"]


def test_nobody_is_told_and_nothing_goes_out(there: Backend, clock: StillClock) -> None:
    heard: list[str] = []
    there.bus.subscribe(lambda events: heard.extend(event.kind for event in events))
    take_in(there, [row(clock, channels=["push", "email"]), row(clock, id="n2", status="failed")])
    assert set(heard) == {"notification.updated"}
    assert rows_in(there.data_dir / DATABASE, "SELECT COUNT(*) FROM deliveries") == [(0,)]


def test_it_is_read_archived_pruned_and_erased_like_any_other(there: Backend, clock: StillClock) -> None:
    take_in(there, [row(clock, id=f"n{at}", notification_type="invoice") for at in range(4)])
    service = there.notifications
    assert service.unread_count("ada") == 4
    service.mark_notification_as_read("n0")
    service.archive_notification("n1")
    assert service.unread_count("ada") == 2
    assert "invoice" in {kind.name for kind in service.preferences.types()}
    assert service.get_notification("n0").deliveries == ()
    there.retention.settings = RetentionSettings(notifications_days=10)
    assert there.retention.enforce().notifications == 0
    clock.go(days=2)
    assert there.retention.enforce().notifications == 4
    take_in(there, [row(clock, id="later")])
    assert there.erasing.erase("ada").removed["notifications"] == 1
    (one,) = take_in(there, [row(clock, id="late")]).rejected
    assert one.errors[0][0] == "user_id"


def test_a_later_notice_of_the_same_key_updates_what_was_imported(there: Backend, clock: StillClock) -> None:
    take_in(there, [row(clock, app="local", collapse_key="build", message="3 of 9")])
    sent = there.notifications.send_notification("ada", "Paid", "9 of 9", collapse_key="build")
    (notification,) = told(there)
    assert (sent.notification_id, notification.message, notification.count) == ("n1", "9 of 9", 2)
    assert notification.status == "delivered"


def test_what_was_snoozed_comes_back_at_its_time(there: Backend, clock: StillClock) -> None:
    take_in(there, [row(clock, inbox="snoozed", snoozed_until=clock.at(minutes=30).isoformat())])
    assert there.notifications.unread_count("ada") == 0
    clock.go(minutes=31)
    assert there.notifications.release_due() == 1
    assert there.notifications.unread_count("ada") == 1


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("running", [True, False])
def test_the_command_line_takes_an_export_back(tmp_path: Path, form: str, running: bool) -> None:
    with Backend(Config(data_dir=tmp_path / "here", port=0)) as backend:
        for title in ("=1+1", "'quoted", "two\nlines"):
            backend.notifications.send_notification(
                "ada",
                title.replace("\n", " "),
                title,
                data={"a": [1]},
                actions=[{"label": "Go", "url": "https://x.example/"}],
            )
        backend.notifications.send_notification(
            "ada", "later", "m", scheduled_at=datetime.now(UTC) + timedelta(hours=1)
        )
        expected = [n for n in told(backend) if n.status != "scheduled"]
    name = str(tmp_path / f"told.{form}")
    done = flashflow("export", "--what", "notifications", name, data_dir=tmp_path / "here")
    assert done.returncode == 0, done.stderr
    command = ("import", "--what", "notifications", name)
    if running:
        with serving(tmp_path / "there") as server:
            done = flashflow(*command, data_dir=tmp_path / "there")
            again = flashflow(*command, data_dir=tmp_path / "there")
            assert len(ok(server.api("GET", "/api/notifications/user/ada"))["notifications"]) == 3
    else:
        done, again = (flashflow(*command, data_dir=tmp_path / "there") for _ in range(2))
    assert (done.returncode, done.stdout.strip()) == (1, "3 imported, 0 were there already, 1 refused.")
    assert "is “scheduled”: it is still to be sent" in done.stderr
    assert again.stdout.strip() == "0 imported, 3 were there already, 1 refused."
    with Backend(Config(data_dir=tmp_path / "there", port=0)) as backend:
        assert told(backend) == expected


def test_a_sibling_that_listens_hears_no_new_notice(tmp_path: Path, clock: StillClock) -> None:
    """The stream tells of changes; a new one would be shown to the person."""
    with serving(tmp_path) as server, listening(server) as listener:
        said = json.loads(row(clock)) | {"created_at": "2026-06-01T00:00:00Z"}
        ok(server.api("POST", "/api/import/notifications", {"notifications": [said]}))
        heard = listener.event()
        assert (heard.kind, heard.data["id"]) == ("notification.updated", "n1")


def test_the_clock_of_the_test_stands_where_the_rows_say(clock: StillClock) -> None:
    assert json.loads(row(clock))["created_at"] == (clock.now - timedelta(days=9)).isoformat()
