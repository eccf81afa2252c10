"""Sending and the inbox over HTTP, as documented in API.md."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.api_client import DEVICES, PREFERENCES, SEND, TEMPLATES, TIME, TYPES, UUID7, fresh, ok, problem, send
from tests.support.server_process import ServerProcess, eventually, serving

FIELDS = {
    "id", "user_id", "app", "title", "message", "notification_type", "channels", "priority", "status", "inbox", "data",
    "actions", "collapse_key", "created_at", "scheduled_at", "expires_at", "sent_at", "delivered_at", "read_at",
    "archived_at", "snoozed_until", "count", "listed_at",
}  # fmt: skip
DELIVERY_FIELDS = {
    "id", "channel", "target", "status", "code", "reason", "created_at", "updated_at", "next_attempt_at", "attempts",
    "release_at", "retry_until", "tries",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("notifications")) as running:
        yield running


def inbox(server: ServerProcess, user: str, **query: Any) -> dict[str, Any]:
    return ok(server.api("GET", f"/api/notifications/user/{user}", params=query))


def ids(page: dict[str, Any]) -> list[str]:
    return [row["id"] for row in page["notifications"]]


def detail(server: ServerProcess, notification_id: str) -> dict[str, Any]:
    found: dict[str, Any] = ok(server.api("GET", f"/api/notifications/{notification_id}"))["notification"]
    return found


def move(server: ServerProcess, verb: str, notification_id: str) -> dict[str, Any]:
    moved: dict[str, Any] = ok(server.api("POST", f"/api/notifications/{verb}/{notification_id}"))["notification"]
    return moved


def soon(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


# --- send


def test_send_answers_with_the_id_the_status_and_each_delivery(server: ServerProcess) -> None:
    body = ok(server.api("POST", SEND, {"user_id": fresh(), "title": "Hello", "message": "It works."}), 201)
    assert UUID7.fullmatch(body.pop("notification_id"))
    assert body == {
        "success": True,
        "status": "delivered",
        "deliveries": [{"channel": "in_app", "status": "delivered", "reason": None, "code": None}],
    }


def test_everything_that_was_sent_is_read_back(server: ServerProcess) -> None:
    user = fresh()
    sent: dict[str, Any] = {
        "title": "Größe 🎉",
        "message": "line one\nline two\t…",
        "notification_type": "builds",
        "channels": ["in_app", "email"],
        "data": {"build": 7, "deep": {"ok": [True, None]}},
        "priority": "urgent",
        "collapse_key": "build-7",
        "actions": [{"label": "Open", "url": "https://example.org/7"}, {"label": "Log", "url": "http://127.0.0.1/l"}],
        "expires_at": "2199-01-01T00:00:00+01:00",
    }
    given = send(server, user, **sent)
    shown = detail(server, given)
    deliveries = shown.pop("deliveries")
    (listed,) = inbox(server, user)["notifications"]
    assert listed == shown
    assert set(shown) == FIELDS
    assert {name: shown[name] for name in sent} == sent | {"expires_at": "2198-12-31T23:00:00.000Z"}
    assert (shown["id"], shown["user_id"], shown["app"], shown["inbox"]) == (given, user, "local", "unread")
    assert all(TIME.fullmatch(shown[name]) for name in ("created_at", "sent_at", "delivered_at"))
    assert (shown["read_at"], shown["archived_at"], shown["scheduled_at"]) == (None, None, None)
    assert [set(delivery) for delivery in deliveries] == [DELIVERY_FIELDS] * 2


@pytest.mark.parametrize("priority", ["low", "normal", "high", "urgent"])
def test_each_priority_is_kept_and_can_be_asked_for(server: ServerProcess, priority: str) -> None:
    user = fresh()
    send(server, user, priority="normal" if priority != "normal" else "low")
    given = send(server, user, priority=priority)
    assert ids(inbox(server, user, priority=priority)) == [given]


def test_an_undeliverable_notification_has_its_reason_at_once(server: ServerProcess) -> None:
    asked = {"user_id": fresh(), "title": "t", "message": "m", "channels": ["email", "sms", "push"]}
    body = ok(server.api("POST", SEND, asked), 201)
    assert body["status"] == "failed"
    assert [(d["channel"], d["status"], d["code"]) for d in body["deliveries"]] == [
        ("email", "failed", "not_configured"),
        ("sms", "failed", "not_configured"),
        ("push", "failed", "no_device"),
    ]
    assert all(delivery["reason"] for delivery in body["deliveries"])
    shown = detail(server, body["notification_id"])
    assert (shown["status"], shown["inbox"], shown["sent_at"], shown["delivered_at"]) == ("failed", None, None, None)
    assert [delivery["attempts"] for delivery in shown["deliveries"]] == [[], [], []]


def test_a_phone_is_not_pretended_to_be_reached(server: ServerProcess) -> None:
    user = fresh()
    ok(server.api("POST", DEVICES, {"user_id": user, "token": fresh("token"), "platform": "ios"}), 201)
    given = send(server, user, channel="push")
    shown = eventually(lambda: (s := detail(server, given)) and s["status"] == "failed" and s, what="the outcome")
    (delivery,) = shown["deliveries"]
    assert (delivery["channel"], delivery["target"], delivery["status"]) == ("push", "ios", "failed")
    assert delivery["code"] == "not_configured"
    assert delivery["reason"]


def test_a_notice_to_many_is_answered_and_stored_for_each_of_them_once(server: ServerProcess) -> None:
    users = [fresh() for _ in range(5)]
    body = ok(server.api("POST", SEND, {"user_ids": [*users, users[0]], "title": "t", "message": "m"}), 201)
    assert set(body) == {"success", "notifications"}
    assert [one["user_id"] for one in body["notifications"]] == users
    for one in body["notifications"]:
        assert set(one) == {"user_id", "notification_id", "status", "deliveries"}
        assert ids(inbox(server, one["user_id"])) == [one["notification_id"]]


def test_one_request_sends_to_a_thousand_users_at_most(server: ServerProcess) -> None:
    users = [f"{fresh()}-{number}" for number in range(1001)]
    asked = {"title": "t", "message": "m"}
    problem(server.api("POST", SEND, asked | {"user_ids": users}), "validation_error", "user_ids")
    problem(server.api("POST", SEND, asked | {"user_ids": []}), "validation_error", "user_ids")
    body = ok(server.api("POST", SEND, asked | {"user_ids": users[:1000]}), 201)
    assert len({one["notification_id"] for one in body["notifications"]}) == 1000


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_id": None}, "user_id"),
        ({"user_ids": ["x"]}, "user_id"),
        ({"title": None}, "title"),
        ({"message": None}, "message"),
        ({"channel": "email", "channels": ["in_app"]}, "channel"),
        ({"actions": [{"label": "a", "url": "https://a.example"}] * 4}, "actions"),
        ({"actions": [{"label": "a", "url": "javascript:alert(1)"}]}, "actions.0.url"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"scheduled_at": "2199-01-02T00:00:00Z", "expires_at": "2199-01-01T00:00:00Z"}, "expires_at"),
        ({"template": "there-is-none"}, "template"),
    ],
)
def test_contradictory_fields_are_refused(server: ServerProcess, change: dict[str, Any], field: str) -> None:
    asked = {"user_id": fresh(), "title": "t", "message": "m"} | change
    answer = server.api("POST", SEND, {name: value for name, value in asked.items() if value is not None})
    problem(answer, "validation_error", field)


def test_a_template_is_filled_in_with_data_and_a_missing_variable_is_named(server: ServerProcess) -> None:
    user, name = fresh(), fresh("template")
    text = {"name": name, "title_template": "Hi {who}", "message_template": "{{n}} of $all, ${sure}: $$5"}
    ok(server.api("POST", TEMPLATES, text | {"channels": ["in_app", "sms"]}), 201)
    data = {"who": "<b>{n}</b>", "n": 2, "all": 3.5, "sure": True}
    asked = {"user_id": user, "template": name}
    body = ok(server.api("POST", SEND, asked | {"data": data}), 201)
    shown = detail(server, body["notification_id"])
    assert (shown["title"], shown["message"]) == ("Hi <b>{n}</b>", "2 of 3.5, true: $5")
    assert shown["channels"] == ["in_app", "sms"]
    missing = problem(server.api("POST", SEND, asked | {"data": {"who": "x", "n": None}}), "validation_error")
    assert [error["field"] for error in missing["errors"]] == ["data.n", "data.all", "data.sure"]
    assert len(ids(inbox(server, user))) == 1


def test_without_channels_a_notice_takes_those_of_its_type_else_the_inbox(server: ServerProcess) -> None:
    kind = fresh("type")
    ok(server.api("POST", TYPES, {"name": kind, "channels": ["email", "in_app"]}), 201)
    declared = detail(server, send(server, fresh(), notification_type=kind))
    unknown = detail(server, send(server, fresh(), notification_type=fresh("type")))
    assert declared["channels"] == ["email", "in_app"]
    assert unknown["channels"] == ["in_app"]


def test_a_disabled_type_is_suppressed_and_the_response_has_the_reason(server: ServerProcess) -> None:
    user = fresh()
    choice = {"user_id": user, "notification_type": "ads", "channel": "in_app", "enabled": False}
    ok(server.api("POST", PREFERENCES, choice))
    asked = {"user_id": user, "title": "t", "message": "m", "notification_type": "ads"}
    body = ok(server.api("POST", SEND, asked), 201)
    assert body["status"] == "suppressed"
    (delivery,) = body["deliveries"]
    assert (delivery["status"], delivery["code"]) == ("suppressed", "type_channel_off")
    assert "turned" in delivery["reason"]
    assert inbox(server, user)["unread_count"] == 0
    assert detail(server, body["notification_id"])["status"] == "suppressed"


# --- time


def test_a_scheduled_notification_arrives_at_its_time(server: ServerProcess) -> None:
    user = fresh()
    due = soon(seconds=0.8)
    body = ok(server.api("POST", SEND, {"user_id": user, "title": "t", "message": "m", "scheduled_at": due}), 201)
    assert body["status"] == "scheduled"
    assert [(d["status"], d["code"]) for d in body["deliveries"]] == [("pending", "scheduled")]
    assert inbox(server, user)["unread_count"] == 0
    eventually(lambda: inbox(server, user)["unread_count"] == 1, what="the scheduled notice")
    shown = detail(server, body["notification_id"])
    assert (shown["status"], shown["inbox"]) == ("delivered", "unread")
    assert shown["delivered_at"] >= shown["scheduled_at"]
    assert [(d["status"], d["code"]) for d in shown["deliveries"]] == [("delivered", None)]


def test_a_time_that_has_passed_is_now(server: ServerProcess) -> None:
    asked = {"user_id": fresh(), "title": "t", "message": "m", "scheduled_at": "2026-01-01T00:00:00Z"}
    assert ok(server.api("POST", SEND, asked), 201)["status"] == "delivered"


def test_an_expired_notification_leaves_the_inbox(server: ServerProcess) -> None:
    user = fresh()
    given = send(server, user, expires_at=soon(seconds=0.8))
    kept = send(server, user)
    eventually(lambda: detail(server, given)["status"] == "expired", what="the expiry")
    page = inbox(server, user, status="unread")
    assert (ids(page), page["unread_count"]) == ([kept], 1)
    problem(server.api("POST", f"/api/notifications/read/{given}"), "conflict")


def test_cancel_stops_a_scheduled_notification_and_not_a_delivered_one(server: ServerProcess) -> None:
    waiting = send(server, fresh(), scheduled_at=soon(days=1))
    moved = move(server, "cancel", waiting)
    assert (moved["status"], moved["inbox"]) == ("cancelled", None)
    assert move(server, "cancel", waiting) == moved
    (delivery,) = detail(server, waiting)["deliveries"]
    assert (delivery["status"], delivery["code"]) == ("suppressed", "cancelled")
    problem(server.api("POST", f"/api/notifications/read/{waiting}"), "conflict")
    problem(server.api("POST", f"/api/notifications/cancel/{send(server, fresh())}"), "conflict")


# --- through the reader's hands


def test_reading_keeps_the_first_read_at(server: ServerProcess) -> None:
    user = fresh()
    given = send(server, user)
    first = server.api("POST", f"/api/notifications/read/{given}")
    moved = ok(first)["notification"]
    assert set(moved) == FIELDS
    assert (moved["status"], moved["inbox"]) == ("read", "read")
    assert TIME.fullmatch(moved["read_at"])
    send(server, user)
    assert server.api("POST", f"/api/notifications/read/{given}").content == first.content
    assert detail(server, given)["read_at"] == moved["read_at"]


def test_unread_archive_and_unarchive_are_the_ways_back(server: ServerProcess) -> None:
    user = fresh()
    given = send(server, user)

    def count() -> int:
        unread: int = inbox(server, user)["unread_count"]
        return unread

    assert count() == 1
    move(server, "read", given)
    assert count() == 0
    back = move(server, "unread", given)
    assert (back["status"], back["inbox"], back["read_at"]) == ("delivered", "unread", None)
    assert count() == 1
    archived = move(server, "archive", given)
    assert (archived["inbox"], count(), ids(inbox(server, user))) == ("archived", 0, [])
    assert TIME.fullmatch(archived["archived_at"])
    assert move(server, "archive", given) == archived
    problem(server.api("POST", f"/api/notifications/unread/{given}"), "conflict")
    restored = move(server, "unarchive", given)
    assert (restored["inbox"], restored["archived_at"], count()) == ("unread", None, 1)
    assert move(server, "unarchive", given) == restored


def test_an_archived_notice_that_is_read_stays_archived(server: ServerProcess) -> None:
    user = fresh()
    given = send(server, user)
    move(server, "archive", given)
    assert move(server, "read", given)["inbox"] == "archived"
    assert move(server, "unarchive", given)["inbox"] == "read"


def test_a_notification_never_in_the_inbox_cannot_be_archived(server: ServerProcess) -> None:
    given = send(server, fresh(), channel="email")
    for verb in ("archive", "unarchive", "unread"):
        problem(server.api("POST", f"/api/notifications/{verb}/{given}"), "conflict")


def test_read_all_reads_the_whole_inbox_of_that_user(server: ServerProcess) -> None:
    user, other = fresh(), fresh()
    given = [send(server, user) for _ in range(4)]
    send(server, other)
    earlier = move(server, "read", given[0])["read_at"]
    archived = move(server, "archive", given[1])
    assert ok(server.api("POST", f"/api/notifications/read-all/{user}")) == {"success": True, "updated": 2}
    assert ok(server.api("POST", f"/api/notifications/read-all/{user}")) == {"success": True, "updated": 0}
    page = inbox(server, user, status="read")
    assert (ids(page), page["unread_count"]) == ([given[3], given[2], given[0]], 0)
    assert page["notifications"][-1]["read_at"] == earlier
    assert detail(server, given[1])["inbox"] == archived["inbox"]
    assert inbox(server, other)["unread_count"] == 1


@pytest.mark.parametrize("verb", ["read", "unread", "archive", "unarchive", "cancel"])
def test_an_unknown_notification_is_404(server: ServerProcess, verb: str) -> None:
    for unknown in ("nobody", "01a203d4-46cd-7000-a0fd-17c6c75a6818"):
        problem(server.api("POST", f"/api/notifications/{verb}/{unknown}"), "not_found")
        problem(server.api("GET", f"/api/notifications/{unknown}"), "not_found")


# --- the list


def test_the_list_takes_every_filter_and_counts_the_whole_inbox(server: ServerProcess) -> None:
    user = fresh()
    unread = send(server, user, "The 100% build_7 \\ done", notification_type="builds")
    read = send(server, user, priority="high", channels=["in_app", "email"])
    archived = send(server, user, message="Nothing of note")
    failed = send(server, user, channel="sms")
    move(server, "read", read)
    move(server, "archive", archived)
    rows = {row["id"]: row for row in inbox(server, user, status="all")["notifications"]}
    found: dict[str, dict[str, Any]] = {
        "default": {},
        "unread": {"status": "unread"},
        "read": {"status": "read"},
        "archived": {"status": "archived"},
        "all": {"status": "all"},
        "type": {"notification_type": "builds"},
        "channel": {"channel": "email"},
        "priority": {"priority": "high"},
        "title": {"q": "100% BUILD_7 \\"},
        "message": {"q": "of note", "status": "all"},
        "no wildcard": {"q": "b%d_7"},
        "since": {"since": rows[read]["created_at"]},
        "until": {"until": rows[unread]["created_at"]},
    }
    listed = {name: ids(inbox(server, user, **query)) for name, query in found.items()}
    since = [
        given for given in (failed, archived, read, unread) if rows[given]["created_at"] >= rows[read]["created_at"]
    ]
    assert listed == {
        "default": [read, unread],
        "unread": [unread],
        "read": [read],
        "archived": [archived],
        "all": [failed, archived, read, unread],
        "type": [unread],
        "channel": [read],
        "priority": [read],
        "title": [unread],
        "message": [archived],
        "no wildcard": [],
        "since": [given for given in since if given in {read, unread}],
        "until": [],
    }
    assert {inbox(server, user, **query)["unread_count"] for query in found.values()} == {1}


def test_pages_skip_and_double_nothing_while_notices_arrive_and_are_read(server: ServerProcess) -> None:
    user = fresh()
    first = [send(server, user) for _ in range(11)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = inbox(server, user, limit=3, **({"cursor": cursor} if cursor else {}))
        assert set(page) == {"success", "notifications", "unread_count", "next_cursor"}
        seen += ids(page)
        send(server, user)
        move(server, "read", seen[-1])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == first[::-1]


def test_a_page_has_fifty_notices_unless_asked_and_two_hundred_at_most(server: ServerProcess) -> None:
    user = fresh()
    for _ in range(201):
        send(server, user)
    assert len(ids(inbox(server, user))) == 50
    page = inbox(server, user, limit=200)
    assert (len(ids(page)), page["unread_count"]) == (200, 201)
    last = inbox(server, user, limit=1, cursor=page["next_cursor"])
    assert (len(ids(last)), last["next_cursor"]) == (1, None)
