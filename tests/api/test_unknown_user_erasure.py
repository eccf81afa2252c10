"""Erasing a user without stored rows changes nothing, unless the request asks for a tombstone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.api_client import (
    DEVICES,
    PREFERENCES,
    RULES,
    SCHEDULES,
    SEND,
    START,
    TRACK,
    contents,
    fresh,
    ok,
    problem,
    track,
)
from tests.support.server_process import ServerProcess, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("unknown")) as running:
        yield running
        assert "Traceback" not in running.log


def test_a_mistyped_id_changes_nothing(server: ServerProcess) -> None:
    key = {"Idempotency-Key": fresh("key")}
    body = {"user_id": "ada", "activity_type": "x"}
    first = server.api("POST", TRACK, body, headers=key)
    before = contents(server), sorted(server.data_dir.rglob("backups/*"))
    problem(server.api("DELETE", "/api/users/adda"), "not_found")
    assert (contents(server), sorted(server.data_dir.rglob("backups/*"))) == before
    again = server.api("POST", TRACK, body, headers=key)
    assert (again.headers["idempotency-replayed"], again.json()) == ("true", first.json())
    track(server, "adda")


def test_its_tombstone_can_be_asked_for(server: ServerProcess) -> None:
    user = fresh()
    erased = ok(server.api("DELETE", f"/api/users/{user}?even_if_unknown=true"))
    assert set(erased["removed"].values()) == {0}
    problem(server.api("POST", TRACK, {"user_id": user, "activity_type": "x"}), "erased")
    assert set(ok(server.api("DELETE", f"/api/users/{user}"))["removed"].values()) == {0}, "erased before: zeros"
    problem(server.api("DELETE", f"/api/users/{user}?even_if_unknown=yes"), "validation_error", "even_if_unknown")


KNOWN = {
    "an activity": ("POST", TRACK, {"user_id": "U", "activity_type": "x"}),
    "a session": ("POST", START, {"user_id": "U"}),
    "a notification": ("POST", SEND, {"user_id": "U", "title": "t", "message": "m"}),
    "a preference": (
        "POST",
        PREFERENCES,
        {"user_id": "U", "notification_type": "x", "channel": "email", "enabled": False},
    ),
    "a device": ("POST", DEVICES, {"user_id": "U", "token": "U", "platform": "android"}),
    "contacts": ("POST", "/api/users/U/contacts", {"locale": "de"}),
    "consent": ("POST", "/api/users/U/consent", {"tracking": False}),
    "quiet hours": ("PUT", "/api/notifications/quiet-hours/U", {"enabled": False}),
    "do not disturb": ("POST", "/api/notifications/do-not-disturb/U", {"minutes": 5}),
    "a digest": ("PUT", "/api/notifications/digest/U", {"notification_type": "*", "frequency": "daily"}),
    "a schedule": (
        "POST",
        SCHEDULES,
        {
            "name": "U",
            "rule": {"every_minutes": 60},
            "notification": {"user_ids": ["bob", "U"], "title": "t", "message": "m"},
        },
    ),
    "a rule": (
        "POST",
        RULES,
        {"name": "U", "on": {"activity_type": "x"}, "send": {"title": "t", "message": "m"}, "to": ["bob", "U"]},
    ),
}


@pytest.mark.parametrize("what", KNOWN)
def test_a_user_in_any_table_is_known(server: ServerProcess, what: str) -> None:
    user = fresh()
    method, path, body = KNOWN[what]
    written = json.loads(json.dumps(body).replace('"U"', f'"{user}"'))
    answer = server.api(method, path.replace("U", user), written)
    assert answer.status_code in {200, 201}, answer.text
    ok(server.api("DELETE", f"/api/users/{user}"))
