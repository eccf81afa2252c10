"""Activities, sessions and user analytics over HTTP, as documented in API.md."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.support.api_client import BATCH, START, TIME, TRACK, UUID7, App, fresh, ok, problem, track
from tests.support.server_process import ServerProcess, serving

ACTIVITY_FIELDS = {
    "id", "user_id", "activity_type", "session_id", "app", "timestamp", "received_at", "metadata", "page_url",
    "referrer", "user_agent", "ip_address",
}  # fmt: skip
SESSION_FIELDS = {
    "id", "user_id", "app", "start_time", "last_seen", "end_time", "end_reason", "duration", "pages_visited",
    "activities", "device_info", "ip_address", "user_agent",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("activity")) as running:
        yield running


def activities(server: ServerProcess, **query: Any) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = ok(server.api("GET", "/api/activity", params=query))["activities"]
    return listed


# --- one activity


def test_track_stores_every_field_and_answers_with_the_id_alone(server: ServerProcess) -> None:
    user = fresh()
    sent = {
        "user_id": user,
        "activity_type": "page_view",
        "session_id": fresh("session"),
        "metadata": {"feature": "export", "nested": {"list": [1, 2.5, None, True, "é 🎉"]}},
        "page_url": "/pricing?a=b",
        "referrer": "https://example.org/",
        "user_agent": "Tester/1.0",
        "timestamp": "2026-03-04T05:06:07.891+02:00",
        "activity_id": fresh("activity"),
        "app": "shop",
    }
    assert ok(server.api("POST", TRACK, sent), 201) == {"success": True, "activity_id": sent["activity_id"]}
    (row,) = activities(server, user_id=user)
    assert set(row) == ACTIVITY_FIELDS
    expected = {name: value for name, value in sent.items() if name not in {"activity_id", "timestamp"}}
    assert {name: row[name] for name in expected} == expected
    assert row["id"] == sent["activity_id"]
    assert row["timestamp"] == "2026-03-04T03:06:07.891Z"
    assert row["ip_address"] == "127.0.0.1"
    assert TIME.fullmatch(row["received_at"])


def test_the_address_and_the_user_agent_come_from_the_connection_where_the_body_has_none(server: ServerProcess) -> None:
    user = fresh()
    answer = server.api("POST", TRACK, {"user_id": user, "activity_type": "x"}, headers={"User-Agent": "curl/8"})
    given = ok(answer, 201)["activity_id"]
    (row,) = activities(server, user_id=user)
    assert (row["ip_address"], row["user_agent"], row["app"]) == ("127.0.0.1", "curl/8", "local")
    assert row["id"] == given
    assert (row["metadata"], row["page_url"], row["referrer"]) == ({}, None, None)


def test_given_ids_are_uuid7_and_sort_by_creation(server: ServerProcess) -> None:
    user = fresh()
    ids = [track(server, user) for _ in range(30)]
    assert all(UUID7.fullmatch(given) for given in ids)
    assert ids == sorted(ids)
    assert [row["id"] for row in activities(server, user_id=user)] == ids[::-1]


def test_the_same_activity_id_again_is_200_and_a_duplicate_and_changes_nothing(server: ServerProcess) -> None:
    user, given = fresh(), fresh("activity")
    first = {"user_id": user, "activity_type": "x", "activity_id": given, "metadata": {"n": 1}}
    ok(server.api("POST", TRACK, first), 201)
    before = activities(server, user_id=user)
    again = ok(server.api("POST", TRACK, first | {"metadata": {"n": 2}, "activity_type": "y"}), 200)
    assert again == {"success": True, "activity_id": given, "duplicate": True}
    assert activities(server, user_id=user) == before
    assert ok(server.api("GET", f"/api/analytics/user/{user}"))["analytics"]["total_activities"] == 1


def test_one_activity_id_sent_by_many_at_once_is_stored_once(server: ServerProcess) -> None:
    user, given, together = fresh(), fresh("activity"), Barrier(8)

    def post(_: int) -> int:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
            body = {"user_id": user, "activity_type": "x", "activity_id": given}
            together.wait(10)
            return client.post(TRACK, json=body, headers={"Authorization": f"Bearer {server.key}"}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(post, range(8))) == [200] * 7 + [201]
    assert len(activities(server, user_id=user)) == 1


def test_a_time_more_than_an_hour_in_the_future_is_refused_and_one_of_last_year_is_not(server: ServerProcess) -> None:
    user = fresh()
    ahead = (datetime.now(UTC) + timedelta(minutes=61)).isoformat()
    answer = server.api("POST", TRACK, {"user_id": user, "activity_type": "x", "timestamp": ahead})
    problem(answer, "validation_error", "timestamp")
    track(server, user, timestamp="2025-01-01T00:00:00Z")
    assert [row["timestamp"] for row in activities(server, user_id=user)] == ["2025-01-01T00:00:00.000Z"]


# --- batches


def test_of_a_batch_the_good_rows_land_and_the_bad_ones_are_named(server: ServerProcess) -> None:
    user, known = fresh(), fresh("activity")
    good = {"user_id": user, "activity_type": "x"}
    rows = [
        good,
        {"user_id": user},
        good | {"activity_id": known},
        good | {"timestamp": "2026-01-01T00:00:00"},
        good | {"activity_id": known},
        good | {"colour": "red"},
        "no object",
        good | {"metadata": []},
    ]
    body = ok(server.api("POST", BATCH, {"activities": rows}))
    assert set(body) == {"success", "accepted", "duplicates", "rejected"}
    assert (body["accepted"], body["duplicates"]) == (2, 1)
    assert {row["index"]: [error["field"] for error in row["errors"]] for row in body["rejected"]} == {
        1: ["activity_type"], 3: ["timestamp"], 5: ["colour"], 6: [""], 7: ["metadata"],
    }  # fmt: skip
    assert all(error["message"] for row in body["rejected"] for error in row["errors"])
    assert len(activities(server, user_id=user)) == 2


def test_a_batch_takes_a_thousand_and_not_one_more_or_none(server: ServerProcess) -> None:
    row = {"user_id": fresh(), "activity_type": "x"}
    assert ok(server.api("POST", BATCH, {"activities": [row] * 1000}))["accepted"] == 1000
    problem(server.api("POST", BATCH, {"activities": [row] * 1001}), "validation_error", "activities")
    problem(server.api("POST", BATCH, {"activities": []}), "validation_error", "activities")


def test_a_batch_with_a_clock_that_is_wrong_is_put_right_by_sent_at(server: ServerProcess) -> None:
    user = fresh()
    wrong = datetime.now(UTC) + timedelta(hours=5)
    row = {"user_id": user, "activity_type": "x", "timestamp": (wrong - timedelta(minutes=3)).isoformat()}
    body = ok(server.api("POST", BATCH, {"activities": [row], "sent_at": wrong.isoformat()}))
    assert body["accepted"] == 1, body
    (stored,) = activities(server, user_id=user)
    meant = datetime.now(UTC) - timedelta(minutes=3)
    assert abs(datetime.fromisoformat(stored["timestamp"]) - meant) < timedelta(seconds=10)


# --- the list


def test_the_list_takes_every_filter(server: ServerProcess) -> None:
    user, session = fresh(), fresh("session")
    early = track(server, user, "open", timestamp="2026-01-01T00:00:00Z")
    middle = track(server, user, "click", timestamp="2026-01-02T00:00:00Z", session_id=session)
    late = track(server, user, "click", timestamp="2026-01-03T00:00:00Z", app="other")
    found = {
        "user": {"user_id": user},
        "type": {"user_id": user, "activity_type": "click"},
        "session": {"session_id": session},
        "app": {"user_id": user, "app": "other"},
        "since": {"user_id": user, "since": "2026-01-02T00:00:00Z"},
        "until": {"user_id": user, "until": "2026-01-02T00:00:00Z"},
        "offset": {"user_id": user, "since": "2026-01-03T01:00:00+01:00"},
    }
    listed = {name: [row["id"] for row in activities(server, **query)] for name, query in found.items()}
    assert listed == {
        "user": [late, middle, early],
        "type": [late, middle],
        "session": [middle],
        "app": [late],
        "since": [late, middle],
        "until": [early],
        "offset": [late],
    }


def test_pages_skip_and_double_nothing_while_rows_arrive(server: ServerProcess) -> None:
    user = fresh()
    first = [track(server, user) for _ in range(11)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"user_id": user, "limit": "3"} | ({"cursor": cursor} if cursor else {})
        body = ok(server.api("GET", "/api/activity", params=query))
        assert set(body) == {"success", "activities", "next_cursor"}
        assert len(body["activities"]) <= 3
        seen += [row["id"] for row in body["activities"]]
        track(server, user)
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert seen == first[::-1]


def test_activities_of_one_millisecond_are_paged_one_by_one(server: ServerProcess) -> None:
    user = fresh()
    rows = [{"user_id": user, "activity_type": "x", "timestamp": "2026-05-05T05:05:05Z"}] * 7
    ok(server.api("POST", BATCH, {"activities": rows}))
    paged = list(server.everything("/api/activity", "activities", user_id=user, limit=1))
    assert len({row["id"] for row in paged}) == len(paged) == 7


def test_a_page_has_fifty_rows_unless_asked_and_two_hundred_at_most(server: ServerProcess) -> None:
    user = fresh()
    ok(server.api("POST", BATCH, {"activities": [{"user_id": user, "activity_type": "x"}] * 201}))
    assert len(activities(server, user_id=user)) == 50
    body = ok(server.api("GET", "/api/activity", params={"user_id": user, "limit": 200}))
    assert len(body["activities"]) == 200
    last = ok(server.api("GET", "/api/activity", params={"user_id": user, "cursor": body["next_cursor"]}))
    assert (len(last["activities"]), last["next_cursor"]) == (1, None)


# --- sessions


def test_a_session_starts_once_and_ends_with_its_totals(server: ServerProcess) -> None:
    user = fresh()
    body = ok(server.api("POST", START, {"user_id": user, "device_info": {"os": "Linux"}}), 201)
    assert set(body) == {"success", "session_id"}
    session_id = body["session_id"]
    assert UUID7.fullmatch(session_id)
    for page in ("/a", "/b", "/a"):
        track(server, user, "page_view", session_id=session_id, page_url=page)
    ended = ok(server.api("POST", f"/api/session/end/{session_id}"))
    session = ended["session"]
    assert set(ended) == {"success", "session"}
    assert set(session) == SESSION_FIELDS
    assert (session["id"], session["user_id"], session["app"]) == (session_id, user, "local")
    assert (session["pages_visited"], session["activities"], session["end_reason"]) == (2, 3, "ended")
    assert session["device_info"] == {"os": "Linux"}
    start, end = (datetime.fromisoformat(session[name]) for name in ("start_time", "end_time"))
    assert session["duration"] == pytest.approx((end - start).total_seconds())
    assert all(TIME.fullmatch(session[name]) for name in ("start_time", "last_seen", "end_time"))


def test_ending_a_session_again_answers_the_same(server: ServerProcess) -> None:
    session_id = ok(server.api("POST", START, {"user_id": fresh()}), 201)["session_id"]
    first = server.api("POST", f"/api/session/end/{session_id}")
    track(server, fresh())
    assert server.api("POST", f"/api/session/end/{session_id}").content == first.content


def test_the_callers_own_session_id_is_kept_and_starting_it_again_is_200(server: ServerProcess) -> None:
    user, own = fresh(), fresh("a/b c%")
    assert ok(server.api("POST", START, {"user_id": user, "session_id": own}), 201)["session_id"] == own
    assert ok(server.api("POST", START, {"user_id": user, "session_id": own}), 200)["session_id"] == own
    problem(server.api("POST", START, {"user_id": fresh(), "session_id": own}), "conflict")
    listed = ok(server.api("GET", f"/api/sessions/user/{user}"))["sessions"]
    assert [session["id"] for session in listed] == [own]


def test_a_session_id_never_seen_opens_that_session(server: ServerProcess) -> None:
    user, own = fresh(), fresh("session")
    track(server, user, session_id=own)
    body = ok(server.api("GET", f"/api/sessions/user/{user}"))
    assert set(body) == {"success", "sessions", "next_cursor"}
    (session,) = body["sessions"]
    assert set(session) == SESSION_FIELDS
    assert (session["id"], session["activities"], session["end_time"], session["end_reason"]) == (own, 1, None, None)


def test_a_heartbeat_keeps_an_open_session_alive_and_an_ended_one_over(server: ServerProcess) -> None:
    user = fresh()
    session_id = ok(server.api("POST", START, {"user_id": user}), 201)["session_id"]
    before = ok(server.api("GET", f"/api/sessions/user/{user}"))["sessions"][0]
    assert ok(server.api("POST", f"/api/session/heartbeat/{session_id}")) == {"success": True}
    after = ok(server.api("GET", f"/api/sessions/user/{user}"))["sessions"][0]
    assert before["last_seen"] <= after["last_seen"]
    ok(server.api("POST", f"/api/session/end/{session_id}"))
    problem(server.api("POST", f"/api/session/heartbeat/{session_id}"), "conflict")


def test_sessions_are_paged_newest_first(server: ServerProcess) -> None:
    user = fresh()
    ids = [ok(server.api("POST", START, {"user_id": user}), 201)["session_id"] for _ in range(5)]
    paged = server.everything(f"/api/sessions/user/{user}", "sessions", limit=2)
    assert [session["id"] for session in paged] == ids[::-1]


# --- analytics


def test_a_users_analytics_are_the_sums_of_the_sent_activities(server: ServerProcess) -> None:
    user = fresh()
    session_id = ok(server.api("POST", START, {"user_id": user}), 201)["session_id"]
    for page in ("/a", "/a", "/b"):
        track(server, user, "page_view", session_id=session_id, page_url=page)
    for feature in ("csv", "pdf", "csv"):
        track(server, user, "export", session_id=session_id, metadata={"feature": feature})
    ended = ok(server.api("POST", f"/api/session/end/{session_id}"))["session"]
    body = ok(server.api("GET", f"/api/analytics/user/{user}"))
    assert set(body) == {"success", "analytics"}
    figures = body["analytics"]
    newest = activities(server, user_id=user, limit=1)[0]
    assert figures["user_id"] == user
    assert (figures["total_sessions"], figures["total_activities"]) == (1, 6)
    assert figures["last_activity"] == newest["timestamp"]
    assert figures["avg_session_duration"] == pytest.approx(ended["duration"])
    assert figures["most_visited_pages"] == [{"name": "/a", "count": 2}, {"name": "/b", "count": 1}]
    assert figures["favorite_features"] == [{"name": "csv", "count": 2}, {"name": "pdf", "count": 1}]
    assert 0 <= figures["engagement_score"] <= 100


def test_a_user_never_seen_has_zeros_and_nulls(server: ServerProcess) -> None:
    user = fresh()
    figures = ok(server.api("GET", f"/api/analytics/user/{user}"))["analytics"]
    assert figures == {
        "user_id": user,
        "total_sessions": 0,
        "total_activities": 0,
        "last_activity": None,
        "avg_session_duration": None,
        "most_visited_pages": [],
        "favorite_features": [],
        "engagement_score": figures["engagement_score"],
        "engagement_parts": figures["engagement_parts"],
    }
    assert not figures["engagement_score"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/session/end/nobody"), ("POST", "/api/session/heartbeat/nobody")],
)
def test_an_unknown_session_is_404(server: ServerProcess, method: str, path: str) -> None:
    problem(server.api(method, path), "not_found")


def test_an_app_is_named_with_an_admin_key_only_and_is_else_the_keys_own(server: ServerProcess) -> None:
    app, user = App(server, "track", "read"), fresh()
    for path, body in (
        (TRACK, {"user_id": user, "activity_type": "x", "app": "other"}),
        (START, {"user_id": user, "app": "other"}),
    ):
        problem(app.api("POST", path, body), "validation_error", "app")
    row = {"user_id": user, "activity_type": "x"}
    answer = ok(app.api("POST", BATCH, {"activities": [row | {"app": "other"}, row]}))
    assert (answer["accepted"], [bad["index"] for bad in answer["rejected"]]) == (1, [0])
    track(app, user, app=app.name)
    track(server, user, app="other")
    assert [row["app"] for row in activities(server, user_id=user)] == ["other", app.name, app.name]
