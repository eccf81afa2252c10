"""A request that waits at the port before FlashFlow has started finds everything that it needs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashflow.backend import Backend, Config
from tests.support.server_process import eventually, free_port

PUSH = {"user_id": "ada", "title": "Early", "message": "bird", "channels": ["push"]}
STARTS = 3
"""Each start was a race that early requests mostly won."""


class Early:
    """One request that is at the port as soon as there is one."""

    def __init__(self, port: int, key: str, path: str, body: dict[str, Any]) -> None:
        self.answer: dict[str, Any] = {}
        self._ask = lambda: httpx.post(
            f"http://127.0.0.1:{port}{path}", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=10
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        def answered() -> bool:
            try:
                self.answer = self._ask().json()
            except httpx.ConnectError:
                return False
            return True

        eventually(answered, what="the port")

    def wait(self) -> dict[str, Any]:
        self._thread.join()
        return self.answer


def test_a_push_to_this_computer_asked_for_before_the_start_is_not_refused(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, me="ada", port=free_port())
    for _ in range(STARTS):
        with Backend(config) as backend:
            early = Early(config.port, backend.keys.local_key, "/api/notifications/send", PUSH)
            backend.start()
            (delivery,) = early.wait()["deliveries"]
            assert delivery["code"] != "other_computer", delivery
            assert delivery["code"] != "no_device", delivery


def test_an_activity_tracked_before_the_start_has_its_rule_judged(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, me="ada", port=free_port())
    with Backend(config) as backend:
        backend.start()
        rule = {
            "name": "failures", "on": {"activity_type": "job_failed"}, "to": ["ada"],
            "send": {"title": "A job failed", "message": "See the log."},
        }  # fmt: skip
        answer = httpx.post(
            f"{backend.url}/api/rules", json=rule, headers={"Authorization": f"Bearer {backend.keys.local_key}"}
        )
        assert answer.status_code == 201, answer.text
    with Backend(config) as backend:
        early = Early(
            config.port, backend.keys.local_key, "/api/activity/track",
            {"user_id": "bob", "activity_type": "job_failed"},
        )  # fmt: skip
        backend.start()
        assert early.wait()["success"]
        inbox = backend.notifications.get_user_notifications
        eventually(lambda: inbox("ada", notification_type="general").notifications, what="the rule's notification")


def test_a_port_that_is_taken_is_said_before_anything_is_written(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path / "one", me="ada", port=free_port())
    other = Config(data_dir=tmp_path / "two", me="ada", port=config.port)
    with Backend(config) as first:
        first.start()
        with Backend(other) as second:
            with pytest.raises(Exception, match="in use"):
                second.start()
            assert second.notifications.devices.of("ada") == ()
        assert not (tmp_path / "two" / "server.json").exists()
