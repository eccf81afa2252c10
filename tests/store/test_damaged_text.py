"""One byte that is not UTF-8, in any text of any table: everything else goes on, and the owner is told."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashflow.backend import Backend, Conflict, DigestIn, build, given
from flashflow.backend.analytics.query import Filters
from flashflow.backend.core.config import ACTIVITY_FILE, NOTIFICATION_FILE, Config
from flashflow.backend.schemas.delivery_settings import ContactsIn, QuietHoursIn
from flashflow.backend.store.engine import damaged_text
from flashflow.backend.store.notifications.notifications import notifications_after
from flashflow.backend.store.privacy.export import ExportFilter
from flashflow.backend.store.privacy.export import notifications as exported_notifications
from tests.support.api_client import SEND, ok, rows_in, send, track
from tests.support.fixed_clock import StillClock
from tests.support.server_process import ServerProcess, eventually, serving

REPLACED = "\N{REPLACEMENT CHARACTER}"
LATER = StillClock(datetime(2026, 6, 11, 12, tzinfo=UTC))
FILES = (ACTIVITY_FILE, NOTIFICATION_FILE)


def fill(backend: Backend) -> None:
    """Something in nearly every table."""
    notes, activity = backend.notifications, backend.activity
    notes.declare_type(
        "builds", channels=["in_app", "email"], digest="daily", digest_at="08:00", throttle={"limit": 5, "minutes": 60},
        failover=[{"channel": "in_app"}, {"channel": "email", "after_minutes": 5}], category="ci", description="Builds",
    )  # fmt: skip
    notes.create_notification_template("hello", "Hello {name}", "You came {n} times.", data_schema={"type": "object"})
    notes.store.run(
        notes.delivery_settings.contact_write("ada", build(ContactsIn, email="ada@example.test", locale="de"))
    )
    quiet = {"enabled": True, "start": "22:00", "end": "07:00", "timezone": "Europe/Berlin", "days": ["mon", "tue"]}
    notes.store.run(notes.delivery_settings.quiet_hours_write("ada", build(QuietHoursIn, **quiet)))
    notes.store.run(
        notes.delivery_settings.digest_write("ada", given(DigestIn, notification_type="news", frequency="daily"))
    )
    notes.update_notification_preference("ada", "news", "email", enabled=False)
    notes.register_device_token("ada", "token", "ios", {"name": "phone"})
    notes.send_notification(
        "ada", "Build finished", "All tests passed.", "builds", data={"text": "a"}, channels=["in_app", "email"],
        collapse_key="key", actions=[{"label": "Open", "url": "https://example.test/"}],
    )  # fmt: skip
    notes.schedules.create(
        "tea", {"user_id": "ada", "title": "Tea", "message": "Is ready."}, {"every_minutes": 60}, "a"
    )
    backend.rules.create("rule", on={"activity_type": "click"}, send={"title": "a", "message": "b"})
    backend.keys.add("app", ["send", "read"])
    activity.track_activity(
        "ada", "click", page_url="/a", referrer="https://a.test/", user_agent="Mozilla", metadata={"feature": "x"},
    )  # fmt: skip
    activity.start_session("ada", device_info={"os": "Linux"})
    activity.settle_metrics()


def look_at_everything(backend: Backend) -> None:
    """What a person or an app may ask while a row is damaged."""
    notes, activity = backend.notifications, backend.activity
    for status in (None, "all"):
        notes.get_user_notifications("ada", status)
    notes.get_user_notifications("ada", q="tests", channel="in_app")
    notes.store.read(lambda conn: notifications_after(conn, 0, None, None, 10))
    for notice in notes.get_user_notifications("ada", "all").notifications:
        notes.get_notification(notice.id)
        with suppress(Conflict):  # of a status that is damaged nothing is known until it is mended
            notes.mark_notification_as_read(notice.id)
    for listed in (notes.preferences.types, notes.templates.all, lambda: notes.list_devices("ada"), backend.keys.list):
        listed()
    notes.get_preferences("ada")
    notes.delivery_settings.contact("ada")
    notes.delivery_settings.digests("ada")
    notes.delivery_settings.quiet_hours("ada")
    notes.schedules.page(None)
    backend.rules.page(None)
    for kind in ("builds", "news"):
        for channels in (["in_app"], ["email", "push"]):
            notes.send_notification("ada", "Hello", "Again.", kind, channels=channels, collapse_key="key")
    notes.schedules.run_due()
    notes.release_due()
    activity.list_activities()
    activity.list_activities(user_id="ada")
    activity.get_user_sessions("ada")
    activity.get_user_analytics("ada")
    activity.track_activity("ada", "click")
    activity.settle_metrics()
    backend.analytics.overview(Filters())
    backend.analytics.top(Filters(), "pages", 10)
    backend.analytics.user_list(Filters())
    wanted = ExportFilter(user_id=None, app=None, since=None, until=None)
    for rows in exported_notifications(notes.store, wanted):
        assert rows is not None


def text_columns(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as conn:
        tables = conn.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' "
            "AND name NOT LIKE 'sqlite_%' AND sql NOT LIKE '%VIRTUAL%'"
        ).fetchall()
        return [
            (table, column)
            for (table,) in tables
            for _, column, *_ in conn.execute(f"PRAGMA table_info({table})").fetchall()
            if conn.execute(f"SELECT 1 FROM {table} WHERE typeof({column}) = 'text'").fetchone()
        ]


def damage(path: Path, table: str, column: str, place: int) -> None:
    """Put a byte that is not UTF-8 into one row."""
    with closing(sqlite3.connect(path)) as conn:
        (stored,) = conn.execute(
            f"SELECT CAST({column} AS BLOB) FROM {table} WHERE typeof({column}) = 'text' "
            f"ORDER BY length({column}) DESC, {column} LIMIT 1"
        ).fetchone()
        place = min(place, max(len(stored) - 1, 0))
        conn.execute(
            f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE {column} = CAST(? AS TEXT)",
            (stored[:place] + b"\xff" + stored[place + 1 :], stored),
        )
        conn.commit()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    with Backend(Config(data_dir=folder, me="ada"), clock=StillClock()) as backend:
        fill(backend)
        look_at_everything(backend)
    return folder


def live_with(folder: Path, name: str) -> None:
    """Use everything before and after the repair."""
    with Backend(Config(data_dir=folder, me="ada"), clock=LATER) as backend:
        look_at_everything(backend)
        stores = (backend.activity.store, backend.notifications.store)
        left = list(damaged_text.scan(folder / name))  # some rows are written anew when they are used
        for store in stores:
            store.database.tolerate(True)
        backend.maintenance.replace_damaged_text()
        eventually(lambda: not any(store.database.tolerant for store in stores), what="the repair")
        assert (backend.damaged_rows() > 0) == bool(left)
        assert list(damaged_text.scan(folder / name)) == []
        look_at_everything(backend)


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("name", FILES)
def test_whatever_text_is_damaged_everything_else_goes_on(filled: Path, tmp_path: Path, name: str, place: int) -> None:
    columns = text_columns(filled / name)
    assert len(columns) > 15
    failed: list[str] = []
    for table, column in columns:
        folder = tmp_path / f"{table}.{column}"
        shutil.copytree(filled, folder)
        damage(folder / name, table, column, place)
        try:
            live_with(folder, name)
        except Exception as error:  # noqa: BLE001 every column that fails is named
            failed.append(f"{table}.{column}: {error!r}")
        shutil.rmtree(folder)
    assert failed == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path, env={"FLASHFLOW_USER": "owner"}) as running:
        yield running


def test_a_damaged_row_is_shown_counted_and_told_to_the_owner(server: ServerProcess) -> None:
    send(server, "ada", "Build finished")
    send(server, "ada", "Build failed", data={"text": "abc"}, channels=["in_app"])
    track(server, "ada", "click", metadata={"feature": "abc"})
    assert ok(server.api("GET", "/api/health"))["damaged_rows"] == 0
    for table, column, place in (
        ("notifications", "title", 3), ("notifications", "data", 0), ("notifications", "channels", 4),
    ):  # fmt: skip
        damage(server.data_dir / NOTIFICATION_FILE, table, column, place)
    damage(server.data_dir / ACTIVITY_FILE, "user_activities", "metadata", 14)

    listed = ok(server.api("GET", "/api/notifications/user/ada"))["notifications"]
    assert {row["title"] for row in listed} == {f"Bui{REPLACED}d finished", "Build failed"}
    assert any(REPLACED in json.dumps(row, ensure_ascii=False) for row in listed)
    (activity,) = ok(server.api("GET", "/api/activity"))["activities"]
    assert REPLACED in activity["metadata"]["feature"]
    for path in (
        "/api/users/ada/export",
        "/api/export/notifications?format=csv",
        "/api/export/activities?format=jsonl",
    ):
        answer = server.api("GET", path)
        assert answer.status_code == 200, path
        assert REPLACED in answer.text
    with httpx.stream("GET", f"{server.url}/api/stream", headers={"Authorization": f"Bearer {server.key}"}) as stream:
        assert stream.status_code == 200

    def told() -> bool:
        rows = ok(server.api("GET", "/api/notifications/user/owner"))["notifications"]
        return any("not UTF-8" in row["message"] and NOTIFICATION_FILE in row["message"] for row in rows)

    eventually(told, what="the word to the owner")
    health: dict[str, Any] = ok(server.api("GET", "/api/health"))
    assert health["status"] == "ok"
    assert 1 <= health["damaged_rows"] <= 3
    assert list(damaged_text.scan(server.data_dir / NOTIFICATION_FILE)) == []
    marked = rows_in(server.data_dir / NOTIFICATION_FILE, "SELECT DISTINCT table_name, column_name FROM damaged_rows")
    assert sorted(marked) == [("notifications", name) for name in ("channels", "data", "title")]
    assert ok(server.api("POST", SEND, {"user_id": "ada", "title": "More", "message": "It goes on."}), 201)
