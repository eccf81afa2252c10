"""Each example does what it says, started as a reader would start it. tests/api has that of the to-do app."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.real_parts import require
from tests.support.server_process import ROOT, ServerProcess, environment, eventually, serving

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path) as running:
        yield running


@contextmanager
def started(server: ServerProcess, *command: str) -> Iterator[str]:
    """An example that serves; its address, which it prints."""
    log = server.data_dir / "example.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=env(server), stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield eventually(lambda: ADDRESS.search(log.read_text()), what="an address")[0]
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def env(server: ServerProcess) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return environment(server.data_dir, {"PATH": path, "FLASHFLOW_USER": "ada", "PYTHONPATH": str(ROOT)})


def activities(server: ServerProcess, app: str) -> list[dict[str, object]]:
    return list(server.everything("/api/activity", "activities", app=app))


def inbox(server: ServerProcess) -> list[dict[str, object]]:
    return list(server.everything("/api/notifications/user/ada", "notifications"))


def test_the_flask_app_tracks_orders_and_notifies_of_errors(server: ServerProcess) -> None:
    command = (sys.executable, "-m", "flask", "--app", "examples/flask_app.py", "run", "--port", "0")
    with started(server, *command) as address:
        assert httpx.post(f"{address}/orders/tea", trust_env=False).json() == {"price": 4}
        for _ in range(3):
            assert httpx.post(f"{address}/orders/gold", trust_env=False).status_code == 500
        eventually(lambda: activities(server, "flask-shop"))
        eventually(lambda: inbox(server))
    (tracked,) = activities(server, "flask-shop")
    assert (tracked["activity_type"], tracked["page_url"]) == ("order_paid", "/orders/tea")
    (error,) = inbox(server)
    assert error["title"] == "ERROR: flask_app"
    assert "KeyError: 'gold'" in str(error["message"])


def test_the_node_back_end_tracks_and_notifies(server: ServerProcess) -> None:
    require("node")
    with started(server, "node", "examples/node_backend/server.js", "0") as address:
        assert httpx.post(f"{address}/orders", trust_env=False).json() == {"paid": True}
        assert httpx.get(f"{address}/orders", trust_env=False).status_code == 404
    (tracked,) = activities(server, "node-shop")
    assert (tracked["activity_type"], tracked["metadata"], tracked["user_id"]) == ("order_paid", {"total": 12.5}, "ada")
    (sent,) = inbox(server)
    assert (sent["title"], sent["notification_type"], sent["app"]) == ("Order paid", "orders", "node-shop")


@pytest.mark.parametrize(
    ("job", "code", "title", "priority", "message"),
    [
        ("echo copied", 0, "backup finished", "normal", "copied"),
        ("echo 'no space' >&2; exit 3", 3, "backup failed with exit code 3", "high", "no space"),
        (":", 0, "backup finished", "normal", "No output."),
        ("yes ü | head -n 9000", 0, "backup finished", "normal", None),
    ],
)
def test_the_cron_job_reports_how_it_ended(
    server: ServerProcess, job: str, code: int, title: str, priority: str, message: str | None
) -> None:
    require("sh", "iconv")
    done = cron(server, "backup", "sh", "-c", job)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    (sent,) = inbox(server)
    assert (sent["title"], sent["priority"], sent["notification_type"]) == (title, priority, "cron")
    if message is None:
        assert set(str(sent["message"])) == {"ü", "\n"}
    else:
        assert sent["message"] == message
    (tracked,) = activities(server, "local")
    assert tracked["activity_type"] == "cron_job"
    metadata = tracked["metadata"]
    assert isinstance(metadata, dict)
    assert (metadata["job"], metadata["exit_code"]) == ("backup", code)


@pytest.mark.parametrize("arguments", [(), ("backup",), ('a", "b', "true")])
def test_the_cron_job_refuses_a_wrong_call(server: ServerProcess, arguments: tuple[str, ...]) -> None:
    done = cron(server, *arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert inbox(server) == []


def cron(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One run with a ``flashflow`` on the PATH that is this checkout's."""
    place = server.data_dir / "bin"
    place.mkdir()
    (place / "flashflow").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "main.py"}" "$@"\n')
    (place / "flashflow").chmod(0o700)
    found = env(server)
    return subprocess.run(
        [str(ROOT / "examples" / "cron_report.sh"), *arguments],
        env=found | {"PATH": f"{place}{os.pathsep}{found['PATH']}"},
        cwd="/", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
