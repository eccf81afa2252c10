"""examples/todo_app.py, a Flet app of its own, with the bell and the settings of a FlashFlow in another process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.support.browser import ENVIRONMENT, ME, Screen, browsing
from tests.support.real_parts import require
from tests.support.server_process import ROOT, ServerProcess, environment, eventually, free_port, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    require("chromium")
    with serving(tmp_path_factory.mktemp("server") / "data", env=ENVIRONMENT) as running:
        yield running


@pytest.fixture(scope="module")
def app(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the app, in Flet's own web server."""
    port, log = free_port(), tmp_path_factory.mktemp("app") / "log"
    web = {"FLET_FORCE_WEB_SERVER": "true", "FLET_WEB_NO_CDN": "true", "FLET_SERVER_PORT": str(port)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "examples/todo_app.py"],
            cwd=ROOT, env=environment(server.data_dir, ENVIRONMENT | web), stdout=out, stderr=out,
        )  # fmt: skip

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(answers, 20)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(10)
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def screen(app: str) -> Iterator[Screen]:
    with browsing() as opened:
        opened.open(app)
        yield opened


def test_a_host_app_shows_a_live_bell_and_changes_preferences(server: ServerProcess, screen: Screen) -> None:
    screen.find("button", "Notifications, none unread")
    screen.write("New task", "Buy milk")
    screen.click("button", "Add")
    screen.click("checkbox", "Buy milk")
    screen.find("button", "Notifications, 1 unread")
    sent = server.api(
        "POST", "/api/notifications/send", {"user_id": ME, "title": "Milk is cheap", "message": "Today only."}
    ).json()
    screen.click("button", "Notifications, 2 unread")
    screen.click("button", "Milk is cheap, unread, from local")
    screen.find("button", "Notifications, 1 unread")
    found = server.api("GET", f"/api/notifications/{sent['notification_id']}").json()["notification"]
    assert found["inbox"] == "read"

    screen.click("button", "Notification settings")
    screen.click("switch", "Tasks by E-mail")
    path = f"/api/notifications/preferences/{ME}"
    saved = eventually(lambda: server.api("GET", path).json()["preferences"])
    assert [(one["notification_type"], one["channel"], one["enabled"]) for one in saved] == [("tasks", "email", False)]

    done = eventually(
        lambda: {one["activity_type"] for one in server.everything("/api/activity", "activities", user_id=ME)}
    )
    assert done == {"task_added", "task_done"}
