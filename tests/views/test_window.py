"""Desktop start with a stand-in for Flet's client: it connects to the socket and ends when closed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.server_process import ADDRESS, ROOT, environment, eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in client is a Unix script")

CLIENT = """#!{python}
import os, socket, sys, time
address, pid_file = sys.argv[1:3]
with open(pid_file, "w") as file:
    file.write(str(os.getpid()))
client = socket.socket(socket.AF_UNIX)
client.connect(address)
mode = oct(os.stat(os.path.dirname(address)).st_mode & 0o777)
with open({report!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{mode}}")
while not os.path.exists({close!r}):
    time.sleep(0.01)
"""


class Opened:
    """``python main.py`` with a display and the stand-in client."""

    def __init__(self, folder: Path) -> None:
        self.report, self.close = folder / "report", folder / "close"
        views = folder / "view"
        views.mkdir()
        client = views / "flet"
        client.write_text(CLIENT.format(python=sys.executable, report=str(self.report), close=str(self.close)))
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
        self.data = folder / "data"
        self.out = folder / "out"
        env = environment(self.data, {"DISPLAY": ":99", "FLET_VIEW_PATH": str(views)})
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "main.py", "--port", "0"], cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
            )

    def client(self) -> tuple[int, str]:
        """The client's pid and its socket folder's mode, once it is connected."""
        text = eventually(lambda: self.report.exists() and self.report.read_text(), 20, "the client")
        pid, mode = str(text).split()
        return int(pid), mode

    def url(self) -> str:
        found = eventually(lambda: ADDRESS.search(self.out.read_text()), 20, "the address")
        return f"http://127.0.0.1:{found[1]}"


@pytest.fixture
def opened(tmp_path: Path):
    app = Opened(tmp_path)
    yield app
    if app.process.poll() is None:  # asked to, it ends its client too
        app.process.terminate()
        try:
            app.process.wait(10)
        except subprocess.TimeoutExpired:
            app.process.kill()
            app.process.wait()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wal_is_empty(data: Path) -> bool:
    return all(path.stat().st_size == 0 for path in data.glob("*-wal"))


def test_the_window_opens_on_a_private_socket_and_the_api_answers_beside_it(opened: Opened) -> None:
    _, mode = opened.client()
    assert mode == "0o700"
    assert httpx.get(f"{opened.url()}/api/health", trust_env=False).json()["success"] is True


def test_closing_the_window_stops_everything_within_three_seconds(opened: Opened) -> None:
    opened.client()
    opened.close.touch()
    assert opened.process.wait(3) == 0
    assert wal_is_empty(opened.data)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_a_signal_closes_the_window_and_stops_within_three_seconds(opened: Opened, number: signal.Signals) -> None:
    pid, _ = opened.client()
    opened.process.send_signal(number)
    assert opened.process.wait(3) == 0
    assert gone(pid)
    assert wal_is_empty(opened.data)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "There is no display."),
        (
            {"DISPLAY": ":99", "FLET_CLIENT_URL": "http://127.0.0.1:9/client.tar.gz"},
            "desktop client could not be downloaded",
        ),
    ],
)
def test_without_a_display_or_client_one_line_says_so_and_the_browser_is_served(
    tmp_path: Path, env: dict[str, str], words: str
) -> None:
    out = tmp_path / "out"
    with out.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "main.py", "--port", "0"],
            cwd=ROOT,
            env=environment(tmp_path / "data", {"HOME": str(tmp_path), "BROWSER": "true", **env}),
            stdout=file,
            stderr=subprocess.DEVNULL,
        )
    try:
        eventually(lambda: "/launch/" in out.read_text(), 20, "the link")
        lines = out.read_text().splitlines()
        assert sum(words in line and "opens in the browser instead" in line for line in lines) == 1
        link = next(line for line in lines if "/launch/" in line).removeprefix("Open ")
        assert httpx.get(link, trust_env=False).status_code == 303
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(3) == 0
