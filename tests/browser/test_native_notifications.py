"""Desktop toasts on a real notification daemon: from a POST to the toast and back to the API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.server_process import ServerProcess, eventually, serving

if sys.platform != "linux":
    pytest.skip("the daemon speaks D-Bus", allow_module_level=True)

from tests.support.desktop_session import Session, notification_session


class Desk(NamedTuple):
    """Ada's computer: her desktop, FlashFlow on it, and the links that her browser opened."""

    session: Session
    server: ServerProcess
    opened: Path

    def show(self, **changes: Any) -> str:
        """Post a notification, check that its toast is the only one on the screen, and return its id."""
        body = {"user_id": "ada", "title": "Build failed", "message": "in 4 min", "channels": ["push", "in_app"]}
        answer = self.server.api("POST", "/api/notifications/send", body | {"priority": "urgent"} | changes)
        assert answer.status_code == 201, answer.text
        sent: str = answer.json()["notification_id"]
        assert settled(self.server, sent)["deliveries"][0]["code"] == "shown"
        assert self.session.displayed() == 1
        return sent

    def post(self, path: str) -> int:
        return self.server.api("POST", f"/api/notifications/{path}").status_code

    def status(self, notification_id: str) -> str:
        found: str = self.server.api("GET", f"/api/notifications/{notification_id}").json()["notification"]["status"]
        return found

    def see_it_close(self) -> None:
        """Wait until FlashFlow has closed the toast."""
        self.session.next_asked("CloseNotification")
        eventually(lambda: self.session.displayed() == 0, what="an empty screen")


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("ada")
    opened, browser = folder / "opened", folder / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {opened}\n')
    browser.chmod(0o700)
    with notification_session() as session:
        environ = {**session.environ, "FLASHFLOW_USER": "ada", "BROWSER": f"{browser} %s"}
        with serving(folder / "data", env=environ) as server:
            yield Desk(session, server, opened)


@pytest.fixture
def desk(ada: Desk) -> Desk:
    """Ada's computer with nothing on the screen."""
    ada.session.history()
    return ada


def settled(server: ServerProcess, notification_id: str) -> dict[str, Any]:
    """The notification once its push delivery is final."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = server.api("GET", f"/api/notifications/{notification_id}").json()["notification"]
        push = next(d for d in found["deliveries"] if d["channel"] == "push")
        return found if push["status"] not in {"pending", "sending"} else None

    return eventually(look, 15, "the delivery")


def test_a_push_to_the_person_here_is_shown_by_the_daemon_and_reported_as_delivered(desk: Desk) -> None:
    before = len(desk.session.history())
    body = {"user_id": "ada", "title": "Build & test", "message": "It's <green>", "channels": ["push"]}
    sent = desk.server.api("POST", "/api/notifications/send", body).json()
    assert [(d["channel"], d["status"]) for d in sent["deliveries"]] == [("push", "pending")]
    found = settled(desk.server, sent["notification_id"])
    shown = desk.session.history()[before:]
    push = found["deliveries"][0]
    assert (found["status"], push["status"], push["code"]) == ("delivered", "delivered", "shown")
    assert [attempt["outcome"] for attempt in push["attempts"]] == ["delivered"]
    assert [notice.title for notice in shown] == ["Build & test"]
    assert "green" in shown[0].body


@pytest.mark.parametrize("how", ["read/{}", "read-all/ada", "archive/{}", "snooze/{}"])
def test_a_toast_is_dismissed_once_its_notification_is_read_or_archived(desk: Desk, how: str) -> None:
    sent = desk.show()
    body = {"until": timestamp_in(3600)} if how.startswith("snooze") else None
    answer = desk.server.api("POST", f"/api/notifications/{how.format(sent)}", body)
    assert answer.status_code == 200, answer.text
    desk.see_it_close()


def test_a_toast_is_dismissed_once_its_notification_has_expired(desk: Desk) -> None:
    sent = desk.show(expires_at=timestamp_in(3.5))
    desk.see_it_close()
    assert desk.status(sent) == "expired"


def test_a_shown_toast_cannot_be_cancelled(desk: Desk) -> None:
    sent = desk.show()
    assert desk.post(f"cancel/{sent}") == 409
    assert (desk.status(sent), desk.session.displayed()) == ("delivered", 1)


def test_a_cancelled_scheduled_notification_is_never_shown(desk: Desk) -> None:
    body = {"user_id": "ada", "title": "never", "message": "m", "channels": ["push"], "scheduled_at": timestamp_in(2)}
    sent = desk.server.api("POST", "/api/notifications/send", body).json()["notification_id"]
    assert desk.post(f"cancel/{sent}") == 200
    last = desk.show(title="last", scheduled_at=timestamp_in(2.5))
    assert "never" not in {shown.title for shown in desk.session.history()}
    assert (desk.status(sent), desk.status(last)) == ("cancelled", "delivered")


def test_an_update_in_place_replaces_its_toast(desk: Desk) -> None:
    first = desk.show(collapse_key="ci", message="at 10:00")
    again = desk.show(collapse_key="ci", message="at 10:05")
    assert again == first
    shown = desk.session.history()[-1]
    assert (shown.title, shown.body) == ("Build failed (2)", "at 10:05")


def test_pressing_a_toast_marks_its_notification_read_and_dismisses_it(desk: Desk) -> None:
    sent = desk.show()
    desk.session.press()
    desk.see_it_close()
    assert desk.status(sent) == "read"
    assert not desk.opened.exists()


def test_pressing_a_button_opens_its_link_too(desk: Desk) -> None:
    url = "https://example.com/log?a=1&b=$(id);'--x"
    sent = desk.show(actions=[{"label": "Open the log", "url": url}])
    desk.session.press("Open the log")
    desk.see_it_close()
    assert desk.status(sent) == "read"
    eventually(desk.opened.exists, what="the browser")
    assert eventually(desk.opened.read_text, what="the link") == f"{url}\n"
    desk.opened.unlink()


def test_a_dismissed_toast_leaves_its_notification_unread(desk: Desk) -> None:
    waved_away = desk.show()
    desk.session.dismiss()
    pressed = desk.show()
    desk.session.press()
    eventually(lambda: desk.status(pressed) == "read", what="the press")
    assert desk.status(waved_away) == "delivered"


def timestamp_in(seconds: float) -> str:
    """A time so many seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


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


def test_push_to_another_users_phone_is_reported_as_not_configured(desk: Desk) -> None:
    desk.server.api("POST", "/api/devices/register", {"user_id": "bob", "token": "t" * 40, "platform": "android"})
    body = {"user_id": "bob", "title": "Hi", "message": "there", "channels": ["push", "sms"]}
    sent = desk.server.api("POST", "/api/notifications/send", body).json()
    assert sent["status"] == "failed"
    assert [(d["channel"], d["status"], d["code"]) for d in sent["deliveries"]] == [
        ("push", "failed", "not_configured"),
        ("sms", "failed", "not_configured"),
    ]
