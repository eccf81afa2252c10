"""GET /api/notifications/user/{id}: the inbox as its reader sees it, and every other status by its name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from flashflow.backend.schemas.records import ListStatus
from tests.support.api_client import PREFERENCES, fresh, ok, problem, send
from tests.support.server_process import ServerProcess, eventually, serving

SHOWN = {
    None: ["unread", "read"],
    "unread": ["unread"],
    "read": ["read", "read by mail"],
    "snoozed": ["snoozed"],
    "archived": ["archived", "archived unread"],
    "scheduled": ["scheduled"],
    "failed": ["failed"],
    "suppressed": ["suppressed"],
    "cancelled": ["cancelled"],
    "expired": ["expired"],
    "delivered": ["unread", "snoozed", "archived unread"],
    "pending": [],
    "sent": [],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("inbox_list")) as running:
        yield running


def ahead(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).isoformat()


def listed(server: ServerProcess, user: str, **query: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ok(server.api("GET", f"/api/notifications/user/{user}", params=query))["notifications"]
    return rows


@pytest.fixture(scope="module")
def user(server: ServerProcess) -> str:
    """A user with one notification of each kind, titled by it."""
    user = fresh()
    off = {"user_id": user, "notification_type": "muted", "channel": "*", "enabled": False}
    ok(server.api("POST", PREFERENCES, off))

    def move(verb: str, title: str, body: dict[str, Any] | None = None, **fields: Any) -> None:
        ok(server.api("POST", f"/api/notifications/{verb}/{send(server, user, title, **fields)}", body))

    send(server, user, "unread")
    move("read", "read")
    move("read", "read by mail", channel="email")
    move("snooze", "snoozed", {"until": ahead(days=1)})
    send(server, user, "scheduled", scheduled_at=ahead(days=30))
    send(server, user, "failed", channel="email")
    send(server, user, "suppressed", notification_type="muted")
    move("cancel", "cancelled", scheduled_at=ahead(days=1))
    archived = send(server, user, "archived")
    for verb in ("read", "archive"):
        ok(server.api("POST", f"/api/notifications/{verb}/{archived}"))
    move("archive", "archived unread")
    send(server, user, "expired", expires_at=ahead(seconds=0.5))
    eventually(lambda: len(listed(server, user, status="expired")) == 1, what="the expiry")
    return user


@pytest.mark.parametrize("status", SHOWN)
def test_a_list_holds_what_its_status_names_and_the_inbox_without_one(
    server: ServerProcess, user: str, status: str | None
) -> None:
    query = {} if status is None else {"status": status}
    assert [row["title"] for row in reversed(listed(server, user, **query))] == SHOWN[status]
    assert {row["status"] for row in listed(server, user, **query)} <= (
        {"delivered", "read"} if status in {None, "unread", "snoozed", "archived"} else {status}
    )


def test_every_status_is_tried_and_all_of_them_are_in_all(server: ServerProcess, user: str) -> None:
    assert {status for status in SHOWN if status is not None} | {"all"} == set(get_args(ListStatus))
    every = [row["title"] for row in listed(server, user, status="all")]
    assert sorted(every) == sorted({title for titles in SHOWN.values() for title in titles})
    assert [row["title"] for row in listed(server, user, status="all", limit=3)] == every[:3]


@pytest.mark.parametrize("status", ["nonsense", "Unread", "sending"])
def test_a_status_that_is_none_is_refused(server: ServerProcess, status: str) -> None:
    answer = server.api("GET", f"/api/notifications/user/{fresh()}", params={"status": status})
    problem(answer, "validation_error", "status")
