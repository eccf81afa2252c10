"""Analytics over HTTP: response shapes, filters, visible rows, refusals; and ``flashflow verify``."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import pytest

from flashflow.backend.analytics import periods
from flashflow.backend.analytics.query import QueryContext
from flashflow.backend.app import Backend
from flashflow.backend.core.config import Config
from flashflow.backend.schemas.analytics import HeatMap
from tests.support.api_client import BATCH, App, fresh, ok, problem, track
from tests.support.server_process import ServerProcess, flashflow, serving

QUESTIONS = ("overview", "trend", "pages", "features", "referrers", "apps", "types", "heatmap", "retention", "users")
NOW = datetime.now(UTC)
TODAY = NOW.date()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("analytics") / "data", env={"TZ": "UTC"}) as server:
        yield server


def days_ago(days: int) -> str:
    return (NOW - timedelta(days=days)).isoformat()


@pytest.fixture(scope="module")
def app(server: ServerProcess) -> App:
    """An app with four users and their activities of the last days."""
    app = App(server, "track", "read")
    rows = [
        {
            "user_id": "ada",
            "activity_type": "page_view",
            "page_url": "/",
            "timestamp": days_ago(3),
            "session_id": app.name,
        },
        {
            "user_id": "ada",
            "activity_type": "page_view",
            "page_url": "/a",
            "timestamp": days_ago(3),
            "session_id": app.name,
        },
        {"user_id": "ada", "activity_type": "buy", "timestamp": days_ago(2)},
        {"user_id": "bob", "activity_type": "page_view", "page_url": "/", "timestamp": days_ago(2)},
        {"user_id": "bob", "activity_type": "page_view", "page_url": "/", "timestamp": days_ago(0)},
        {"user_id": "cy", "activity_type": "export", "metadata": {"feature": "csv"}, "timestamp": days_ago(9)},
        {
            "user_id": "dan",
            "activity_type": "page_view",
            "referrer": "https://News.example/x",
            "timestamp": days_ago(1),
        },
    ]
    assert ok(app.api("POST", BATCH, {"activities": rows}))["accepted"] == len(rows)
    return app


def test_the_overview_has_each_metric_with_its_previous_value_and_definition(app: App) -> None:
    overview = ok(app.api("GET", "/api/analytics/overview"))["overview"]
    figures = overview["figures"]
    assert figures["active_users"] == {"value": 3, "previous": 1, "change": 2.0}
    assert figures["activities"] == {"value": 6, "previous": 1, "change": 5.0}
    assert figures["new_users"]["value"] == 3
    assert figures["sessions"]["value"] == 5
    assert (figures["dau"]["value"], figures["wau"]["value"], figures["mau"]["value"]) == (1, 3, 4)
    assert figures["stickiness"]["value"] == pytest.approx((1 + 1 + 2 + 1 + 1) / 28 / 4)
    assert set(figures) < set(overview["definitions"])
    assert (overview["period"]["first"], overview["period"]["last"]) == (str(TODAY - timedelta(days=6)), str(TODAY))
    assert (overview["timezone"], overview["full"], overview["pending"]) == ("UTC", [], 0)


def test_every_question_is_answered_with_its_definition(app: App) -> None:
    for question in QUESTIONS:
        body = ok(app.api("GET", f"/api/analytics/{question}"))
        assert question in body
        assert "definition" in str(body) or question == "trend"
    trend = ok(app.api("GET", "/api/analytics/trend"))["trend"]
    assert [point["activities"] for point in trend["points"]] == [0, 0, 0, 2, 2, 1, 1]
    assert len(trend["previous_points"]) == 7
    hours = ok(app.api("GET", "/api/analytics/trend?interval=hour"))["trend"]["points"]
    assert len(hours) == 7 * 24
    assert sum(point["activities"] for point in hours) == 6
    pages = ok(app.api("GET", "/api/analytics/pages"))["pages"]
    assert [(n["name"], n["count"]) for n in pages["names"]] == [("/", 3), ("/a", 1)]
    referrers = ok(app.api("GET", "/api/analytics/referrers"))["referrers"]
    assert [(n["name"], n["count"]) for n in referrers["names"]] == [("news.example", 1)]
    features = ok(app.api("GET", f"/api/analytics/features?from={TODAY - timedelta(days=10)}"))["features"]
    assert [(n["name"], n["count"]) for n in features["names"]] == [("buy", 1), ("csv", 1)]
    heat = ok(app.api("GET", "/api/analytics/heatmap"))["heatmap"]
    assert [len(row) for row in heat["hours"]] == [24] * 7
    assert sum(map(sum, heat["hours"])) == 6


def test_retention_and_funnel_follow_the_people(app: App) -> None:
    retention = ok(app.api("GET", "/api/analytics/retention?days=2"))["retention"]
    assert retention["cohorts"] == [
        {"day": str(TODAY - timedelta(days=3)), "size": 1, "users": [1, 1, 0]},
        {"day": str(TODAY - timedelta(days=2)), "size": 1, "users": [1, 0, None]},
        {"day": str(TODAY - timedelta(days=1)), "size": 1, "users": [1, None, None]},
    ]
    assert retention["average"] == [1.0, 0.5, 0.0]
    funnel = ok(app.api("GET", "/api/analytics/funnel?steps=page_view,buy&dropped_at=2"))["funnel"]
    assert [(s["activity_type"], s["users"], s["dropped"]) for s in funnel["steps"]] == [
        ("page_view", 3, 0),
        ("buy", 1, 2),
    ]
    assert set(funnel["dropped_users"]) == {"bob", "dan"}


def test_users_are_paged_the_latest_seen_first(app: App) -> None:
    first = ok(app.api("GET", "/api/analytics/users?limit=2"))
    second = ok(app.api("GET", f"/api/analytics/users?limit=2&cursor={first['next_cursor']}"))
    assert [row["user_id"] for row in (*first["users"], *second["users"])] == ["bob", "dan", "ada"]
    assert second["next_cursor"] is None
    assert first["users"][0]["activities"] == 2
    assert 0 <= first["users"][0]["engagement_score"] <= 100
    assert set(first["users"][0]["engagement_parts"]) == {"C", "D", "R", "F"}


def test_a_read_key_sees_analytics_over_its_own_rows_only(server: ServerProcess, app: App) -> None:
    other = App(server, "track", "read")
    track(other, "ada", "page_view", page_url="/other")
    mine = ok(other.api("GET", "/api/analytics/overview"))["overview"]["figures"]
    assert (mine["activities"]["value"], mine["active_users"]["value"], mine["new_users"]["value"]) == (1, 1, 1)
    assert ok(other.api("GET", "/api/analytics/pages"))["pages"]["total"] == 1
    problem(other.api("GET", f"/api/analytics/overview?app={app.name}"), "forbidden")
    both = ok(server.api("GET", f"/api/analytics/overview?app={app.name}"))["overview"]["figures"]
    assert both["activities"]["value"] == 6
    names = {n["name"] for n in ok(server.api("GET", "/api/analytics/apps"))["apps"]["names"]}
    assert {app.name, other.name} <= names


def test_an_activity_type_filters_the_metrics_that_support_it(app: App) -> None:
    figures = ok(app.api("GET", "/api/analytics/overview?activity_type=page_view"))["overview"]["figures"]
    assert (figures["activities"]["value"], figures["active_users"]["value"]) == (5, 3)
    assert "sessions" not in figures
    pages = ok(app.api("GET", "/api/analytics/pages?activity_type=buy"))["pages"]
    assert pages["names"] == []
    nothing = ok(app.api("GET", "/api/analytics/overview?activity_type=never"))["overview"]["figures"]
    assert nothing["activities"]["value"] == 0


def test_another_zone_has_other_days(server: ServerProcess) -> None:
    app = App(server, "track", "read")
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    track(app, "ada", timestamp=(midnight - timedelta(days=1, minutes=10)).isoformat())
    day = str(TODAY - timedelta(days=1))
    here = f"/api/analytics/overview?from={day}&to={day}"
    assert ok(app.api("GET", here))["overview"]["figures"]["activities"]["value"] == 0
    there = ok(app.api("GET", f"{here}&tz=Asia/Kolkata"))["overview"]
    assert (there["figures"]["activities"]["value"], there["timezone"]) == (1, "Asia/Kolkata")


def test_a_query_in_another_zone_delays_no_other_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASHFLOW_KEYRING", "off")
    monkeypatch.setenv("TZ", "UTC")
    begun, over = threading.Semaphore(0), threading.Event()

    def slow(asked: QueryContext) -> HeatMap:
        if asked.local.zone.key != "UTC":
            begun.release()
            assert over.wait(20)
        return periods.heatmap(asked)

    monkeypatch.setattr("flashflow.backend.analytics.service.periods", SimpleNamespace(heatmap=slow))
    with Backend(Config(me="ada", data_dir=tmp_path, port=0)) as backend:
        backend.start()
        key, _ = backend.keys.add("asking", ["read"])
        with ThreadPoolExecutor(5) as askers:

            def ask(zone: str, question: str = "heatmap?") -> int:
                url = f"{backend.url}/api/analytics/{question}tz={zone}"
                return httpx.get(url, headers={"Authorization": f"Bearer {key}"}, trust_env=False).status_code

            try:
                elsewhere = [askers.submit(ask, zone) for zone in ("Asia/Kolkata", "Asia/Tokyo", "America/Lima")]
                assert begun.acquire(timeout=20)
                assert askers.submit(ask, "UTC").result(timeout=20) == 200
                assert askers.submit(ask, "Asia/Tokyo", "funnel?steps=a,b&").result(timeout=20) == 200
                assert not begun.acquire(timeout=0.2), "one is answered at a time"
            finally:
                over.set()
            assert [asked.result(timeout=20) for asked in elsewhere] == [200, 200, 200]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("overview?from=yesterday", "from"),
        ("overview?from=2026-11-26T10:00:00Z", "from"),
        ("overview?from=2026-11-26&to=2026-11-01", "from"),
        ("overview?tz=Mars/Olympus", "tz"),
        ("overview?tz=../../etc/passwd", "tz"),
        ("overview?compare=everything", "compare"),
        ("overview?app=a%20b", "app"),
        ("overview?frm=2026-11-26", "frm"),
        ("trend?interval=second", "interval"),
        ("pages?limit=0", "limit"),
        ("pages?limit=201", "limit"),
        ("retention?days=0", "days"),
        ("retention?days=367", "days"),
        ("retention?mode=sometimes", "mode"),
        ("funnel", "steps"),
        ("funnel?steps=one", "steps"),
        ("funnel?steps=%5B%22a%22,5%5D", "steps"),
        ("funnel?steps=%5B%22a%22,%22b%22", "steps"),
        ("funnel?steps=a,b&window_days=367", "window_days"),
        ("funnel?steps=a,b&dropped_at=3", "dropped_at"),
        ("funnel?steps=a,b&dropped_at=x", "dropped_at"),
        ("users?cursor=nonsense", "cursor"),
        ("heatmap?steps=a,b", "steps"),
    ],
)
def test_an_invalid_parameter_is_refused_by_its_name(app: App, query: str, field: str) -> None:
    problem(app.api("GET", f"/api/analytics/{query}"), "validation_error", field)


def test_names_as_users_have_them_do_no_harm(server: ServerProcess) -> None:
    app = App(server, "track", "read")
    users = ["'; DROP TABLE user_days; --", "🦊🦊", "\u202eright to left", "a" * 255]
    for user in users:
        track(app, user, "x'y\"z", page_url="/%s/{0}")
    found = ok(app.api("GET", "/api/analytics/users"))["users"]
    assert {row["user_id"] for row in found} == set(users)
    assert ok(app.api("GET", "/api/analytics/types"))["types"]["names"][0]["name"] == "x'y\"z"


def test_a_key_activity_engages_a_session(server: ServerProcess) -> None:
    app, kind = App(server, "track", "read"), fresh("subscribe")
    session = ok(app.api("POST", "/api/session/start", {"user_id": "eve"}), 201)["session_id"]
    track(app, "eve", kind, session_id=session)
    ok(app.api("POST", f"/api/session/end/{session}"))
    rate = "/api/analytics/overview"
    assert ok(app.api("GET", rate))["overview"]["figures"]["engagement_rate"]["value"] == 0
    problem(app.api("POST", "/api/activity-types", {"name": kind, "key": True}), "forbidden")
    ok(server.api("POST", "/api/activity-types", {"name": kind, "key": True}))
    assert {"name": kind, "key": True} in ok(server.api("GET", "/api/activity-types"))["activity_types"]
    assert ok(app.api("GET", rate))["overview"]["figures"]["engagement_rate"]["value"] == 1
    parts = ok(app.api("GET", "/api/analytics/users"))["users"][0]["engagement_parts"]
    assert (parts["I"], parts["A"]) == (1.0, 1.0)
    ok(server.api("POST", "/api/activity-types", {"name": kind, "key": False}))
    assert ok(app.api("GET", rate))["overview"]["figures"]["engagement_rate"]["value"] == 0


def test_verify_finds_no_difference_after_a_kill_and_repairs_one(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        key = {"Authorization": f"Bearer {server.key}"}

        def write() -> None:
            with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", headers=key, trust_env=False) as client:
                for turn in range(10_000):
                    rows = [
                        {"user_id": f"u{(turn + k) % 40}", "activity_type": "x", "page_url": f"/{k}"} for k in range(50)
                    ]
                    try:
                        client.post(BATCH, json={"activities": rows})
                        client.get("/api/analytics/overview")
                    except httpx.HTTPError:
                        return

        writers = [threading.Thread(target=write) for _ in range(4)]
        for writer in writers:
            writer.start()
        while ok(server.api("GET", "/api/analytics/overview"))["overview"]["figures"]["activities"]["value"] < 500:
            assert any(writer.is_alive() for writer in writers)
        server.kill()
        for writer in writers:
            writer.join(20)
    done = flashflow("verify", data_dir=tmp_path / "data")
    assert (done.returncode, done.stdout.strip()) == (0, "All rollups match the activities.")

    with closing(sqlite3.connect(tmp_path / "data" / "user_activities.db")) as conn, conn:
        assert conn.execute("UPDATE activity_hours SET activities = activities + 1").rowcount > 0
    done = flashflow("verify", data_dir=tmp_path / "data")
    assert done.returncode == 1
    assert "activity_hours" in done.stdout
    assert "--rebuild" in done.stderr
    assert flashflow("verify", "--rebuild", data_dir=tmp_path / "data").returncode == 0
    with serving(tmp_path / "data") as server:
        assert ok(server.api("POST", "/api/analytics/verify")) == {"success": True, "differences": [], "rebuilt": False}
        done = flashflow("verify", data_dir=tmp_path / "data")
        assert (done.returncode, done.stdout.strip()) == (0, "All rollups match the activities.")


def test_the_end_of_a_running_period_has_the_format_of_all_times(app: App) -> None:
    for route, name in (("overview", "overview"), ("trend", "trend"), ("pages", "pages")):
        until = ok(app.api("GET", f"/api/analytics/{route}"))[name]["period"]["until"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", until)


@pytest.mark.parametrize("steps", [",", "x,,y", "x,"])
def test_a_step_without_a_name_is_refused(app: App, steps: str) -> None:
    assert app.api("GET", f"/api/analytics/funnel?steps={steps}").status_code == 400


def test_a_step_with_a_comma_is_named_in_a_json_list(server: ServerProcess) -> None:
    app = App(server, "track", "read")
    rows = [{"user_id": "ada", "activity_type": kind, "timestamp": days_ago(n)} for kind, n in (("a,b", 2), ("c", 1))]
    ok(app.api("POST", BATCH, {"activities": rows}))
    steps = quote('["a,b", "c"]')
    funnel = ok(app.api("GET", f"/api/analytics/funnel?steps={steps}"))["funnel"]
    assert [(step["activity_type"], step["users"]) for step in funnel["steps"]] == [("a,b", 1), ("c", 1)]


def test_a_list_takes_no_cursor_of_another(server: ServerProcess) -> None:
    user = fresh("user")
    for n in range(2):
        ok(
            server.api("POST", "/api/activity/track", {"user_id": user, "activity_type": "x", "session_id": fresh()}),
            201,
        )
        ok(server.api("POST", "/api/notifications/send", {"user_id": user, "title": f"t{n}", "message": "m"}), 201)
        ok(server.api("POST", "/api/activity/track", {"user_id": fresh("user"), "activity_type": "x"}), 201)
        ok(
            server.api("POST", "/api/templates", {"name": fresh("t"), "title_template": "t", "message_template": "m"}),
            201,
        )
    lists = [
        f"/api/activity?user_id={user}&limit=1",
        f"/api/sessions/user/{user}?limit=1",
        f"/api/notifications/user/{user}?limit=1",
        "/api/analytics/users?limit=1",
        "/api/templates?limit=1",
    ]
    cursors = [ok(server.api("GET", path))["next_cursor"] for path in lists]
    assert all(cursors)
    for path in lists:
        for cursor, of in zip(cursors, lists, strict=True):
            answer = server.api("GET", f"{path}&cursor={cursor}")
            if of == path:
                ok(answer)
            else:
                problem(answer, "validation_error", "cursor")
