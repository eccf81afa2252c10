"""From a POST to a notice that a real notification daemon received, and back to the truth in the API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server_process import ServerProcess, eventually, serving

if sys.platform != "linux":
    pytest.skip("the daemon speaks D-Bus", allow_module_level=True)

from tests.desktop_session import notification_session


def settled(server: ServerProcess, notification_id: str) -> dict[str, Any]:
    """The notification once its push delivery is past trying."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = server.api("GET", f"/api/notifications/{notification_id}").json()["notification"]
        push = next(d for d in found["deliveries"] if d["channel"] == "push")
        return found if push["status"] not in {"pending", "sending"} else None

    return eventually(look, 15, "the delivery")


def test_a_push_to_the_person_here_is_shown_by_the_daemon_and_reported_as_delivered(tmp_path: Path) -> None:
    with (
        notification_session() as session,
        serving(tmp_path, env={**session.environ, "FLASHFLOW_USER": "ada"}) as server,
    ):
        body = {"user_id": "ada", "title": "Build & test", "message": "It's <green>", "channels": ["push"]}
        sent = server.api("POST", "/api/notifications/send", body).json()
        assert [(d["channel"], d["status"]) for d in sent["deliveries"]] == [("push", "pending")]
        found = settled(server, sent["notification_id"])
        shown = session.history()
    push = found["deliveries"][0]
    assert (found["status"], push["status"], push["code"]) == ("delivered", "delivered", "shown")
    assert [attempt["outcome"] for attempt in push["attempts"]] == ["delivered"]
    assert [notice.title for notice in shown] == ["Build & test"]
    assert "green" in shown[0].body


def test_without_a_desktop_session_the_delivery_fails_and_says_why(tmp_path: Path) -> None:
    with serving(tmp_path, env={"FLASHFLOW_USER": "ada", "XDG_RUNTIME_DIR": str(tmp_path)}) as server:
        body = {"user_id": "ada", "title": "Hi", "message": "there", "channels": ["push", "in_app"]}
        sent = server.api("POST", "/api/notifications/send", body).json()
        assert sent["status"] == "delivered"
        found = settled(server, sent["notification_id"])
    push = next(d for d in found["deliveries"] if d["channel"] == "push")
    assert (push["status"], push["code"]) == ("failed", "no_session_bus")
    assert push["reason"]
    assert len(push["attempts"]) == 1


def test_push_to_someone_elses_phone_answers_honestly_that_it_is_not_configured(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.api("POST", "/api/devices/register", {"user_id": "bob", "token": "t" * 40, "platform": "android"})
        body = {"user_id": "bob", "title": "Hi", "message": "there", "channels": ["push", "sms"]}
        sent = server.api("POST", "/api/notifications/send", body).json()
    assert sent["status"] == "failed"
    assert [(d["channel"], d["status"], d["code"]) for d in sent["deliveries"]] == [
        ("push", "failed", "not_configured"),
        ("sms", "failed", "not_configured"),
    ]
