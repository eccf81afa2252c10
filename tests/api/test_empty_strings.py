"""An empty optional string counts as absent in every request."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashflow.backend import NotificationService, UserActivityService
from flashflow.backend.store.migrations.activity import from_13
from tests.support.api_client import (
    BATCH,
    PREFERENCES,
    RULES,
    SCHEDULES,
    SEND,
    START,
    TEMPLATES,
    TRACK,
    TYPES,
    fresh,
    ok,
    problem,
)
from tests.support.old_files import write_old_file
from tests.support.server_process import ServerProcess, flashflow, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("empty")) as running:
        yield running
        assert "Traceback" not in running.log


ACTIVITY = dict.fromkeys(("session_id", "page_url", "referrer", "user_agent", "timestamp", "activity_id", "app"), "")


def test_an_activity_of_a_direct_visit_is_stored(server: ServerProcess) -> None:
    user = fresh()
    least = {"user_id": user, "activity_type": "page_view"}
    for body in ({"referrer": ""}, ACTIVITY, {"referrer": "", "page_url": "/a\\b"}):
        ok(server.api("POST", TRACK, least | body), 201)
    rows = ok(server.api("POST", BATCH, {"activities": [least | ACTIVITY, least], "sent_at": ""}))
    assert rows["accepted"] == 2
    shown = ok(server.api("GET", "/api/activity", params={"user_id": user}))["activities"]
    assert len(shown) == 5
    assert {(row["referrer"], row["app"]) for row in shown} == {(None, "local")}


def test_a_row_that_is_imported_may_have_them_too(server: ServerProcess) -> None:
    user = fresh()
    row = {"user_id": user, "activity_type": "x", "timestamp": "2026-01-01T00:00:00Z", "id": "", "referrer": ""}
    assert ok(server.api("POST", "/api/import/activities", {"activities": [row]}))["accepted"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (START, {"user_id": "ada", "session_id": "", "app": ""}),
        (
            SEND,
            {"user_id": "ada", "title": "t", "message": "m", "template": "", "channel": "", "scheduled_at": "",
             "expires_at": "", "collapse_key": "", "priority": "", "notification_type": "", "app": "", "locale": ""},
        ),
        (TEMPLATES, {"name": "t", "title_template": "t", "message_template": "m", "category": "", "locale": ""}),
        (TYPES, {"name": "t", "label": "", "description": "", "category": "", "digest": "", "digest_at": ""}),
        (
            RULES,
            {"name": "r", "app": "", "on": {"activity_type": "x"},
             "send": {"title": "t", "message": "m", "template": "", "priority": "", "collapse_key": ""}},
        ),
        (
            SCHEDULES,
            {"name": "s", "rule": {"every_minutes": 5, "at": "", "timezone": "", "starts_at": "", "ends_at": ""},
             "notification": {"user_id": "ada", "title": "t", "message": "m", "channel": "", "scheduled_at": ""}},
        ),
    ],
)  # fmt: skip
def test_every_optional_text_time_and_choice_of_a_body_may_be_empty(
    server: ServerProcess, path: str, body: dict[str, Any]
) -> None:
    ok(server.api("POST", path, body), 201)


def test_an_empty_contact_changes_nothing_and_an_empty_zone_neither(server: ServerProcess) -> None:
    path = f"/api/users/{fresh()}/contacts"
    ok(server.api("POST", path, {"email": "ada@example.org"}))
    assert (
        ok(server.api("POST", path, {"email": "", "phone": "", "locale": "de"}))["contacts"]["email"]
        == "ada@example.org"
    )
    ok(server.api("PUT", "/api/notifications/quiet-hours/ada", {"enabled": False, "start": "", "timezone": ""}))


@pytest.mark.parametrize(
    "path",
    [
        "/api/activity?user_id=&activity_type=&session_id=&app=&since=&until=&limit=&cursor=",
        "/api/notifications/user/ada?status=&notification_type=&channel=&priority=&q=&since=&until=&cursor=",
        "/api/analytics/overview?from=&to=&tz=&app=&activity_type=&compare=",
        "/api/analytics/retention?days=&mode=",
        "/api/export/activities?format=&user_id=&since=",
        "/api/templates?cursor=&limit=",
    ],
)
def test_every_query_parameter_may_be_empty(server: ServerProcess, path: str) -> None:
    assert server.api("GET", path).status_code == 200


def test_an_empty_place_in_the_stream_counts_as_absent(server: ServerProcess) -> None:
    headers = {"Authorization": f"Bearer {server.key}", "Last-Event-ID": ""}
    with httpx.stream("GET", f"{server.url}/api/stream", headers=headers, trust_env=False) as answer:
        assert answer.status_code == 200


def test_an_empty_required_field_is_refused(server: ServerProcess) -> None:
    problem(
        server.api("POST", TRACK, {"user_id": "", "activity_type": ""}), "validation_error", "user_id", "activity_type"
    )
    problem(
        server.api("POST", PREFERENCES, {"user_id": "", "notification_type": "x", "channel": "email", "enabled": True}),
        "validation_error",
        "user_id",
    )


def test_the_services_take_them_too(tmp_path: Path) -> None:
    with UserActivityService(tmp_path / "a.db") as service:
        tracked = service.track_activity("ada", "x", referrer="", page_url="", session_id="", activity_id="", app="")
        assert tracked.activity_id
        assert service.list_activities().activities[0].referrer is None
    with NotificationService(tmp_path / "n.db") as other:
        assert other.send_notification("ada", "t", "m", collapse_key="", template="", priority="").status == "delivered"


def test_the_command_line_takes_them_too(server: ServerProcess) -> None:
    done = flashflow("track", "ada", "x", "--page-url", "", "--session", "", data_dir=server.data_dir)
    assert (done.returncode, done.stderr) == (0, "")


# --- features

FEATURES = {"": "x", " ": "x", "a": "a", " a ": " a ", "a\0b": "a\ufffdb", "\0": "\ufffd"}


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_needs_a_name_that_is_not_blank(server: ServerProcess, feature: str) -> None:
    user = fresh()
    ok(server.api("POST", TRACK, {"user_id": user, "activity_type": "x", "metadata": {"feature": feature}}), 201)
    analytics = ok(server.api("GET", f"/api/analytics/user/{user}"))["analytics"]
    assert analytics["favorite_features"] == [{"name": FEATURES[feature], "count": 1}]
    names = ok(server.api("GET", "/api/analytics/features"))["features"]["names"]
    assert FEATURES[feature] in {one["name"] for one in names}
    assert not any(one["is_other"] for one in names)
    assert ok(server.api("POST", "/api/analytics/verify"))["differences"] == []


@pytest.mark.parametrize(("feature", "again"), [("a\0b", True), (" ", True), ("a", False)])
def test_features_that_an_older_version_counted_wrong_are_counted_again(
    tmp_path: Path, feature: str, again: bool
) -> None:
    path = tmp_path / "a.db"
    write_old_file("user_activities", path, empty=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("UPDATE figures_state SET zone = 'UTC'")
        conn.execute(
            "INSERT INTO user_activities (id, user_id, activity_type, session_id, app, timestamp, received_at, "
            "metadata) VALUES (x'00', 'ada', 'x', x'00', 'local', 0, 0, ?)",
            (json.dumps({"feature": feature}),),
        )
        from_13(conn, lambda text: None)
        assert conn.execute("SELECT zone FROM figures_state").fetchone() == ("" if again else "UTC",)
    if again:
        with UserActivityService(tmp_path / "new.db") as service:
            service.track_activity("ada", "x", metadata={"feature": feature})
            service.rollups.aggregate_pending()
            with closing(sqlite3.connect(tmp_path / "new.db")) as conn, conn:
                conn.execute("UPDATE dimensions SET name = 'wrong' WHERE kind = 4 AND name <> ''")
                conn.execute("UPDATE rollup_state SET zone = ''")
        with UserActivityService(tmp_path / "new.db") as service:
            assert service.rollups.verify() == ()
