"""The product as a person runs it: ``python main.py serve`` as a process of its own, on a real port and folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE = 20.0
STOP_DEADLINE = 10.0
ADDRESS = re.compile(r"answers at http://127\.0\.0\.1:(\d+)\s")
LAUNCH_LINK = re.compile(r"https?://\S*/launch/\S+")

T = TypeVar("T")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(look: Callable[[], T | None], deadline: float = 10.0, what: str = "it") -> T:
    """The first truthy answer of ``look``, asked again and again until ``deadline`` seconds have gone by."""
    end = time.monotonic() + deadline
    while True:
        if found := look():
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:g} s in vain for {what}")
        time.sleep(0.01)


def environment(data_dir: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without its FlashFlow settings, display and session bus: a test adds what it means."""
    ours = ("FLASHFLOW_", "FLET_", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"FLASHFLOW_DATA_DIR": str(data_dir)} | dict(extra or {})


def flashflow(
    *arguments: str, data_dir: Path, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 20.0
) -> subprocess.CompletedProcess[str]:
    """One run of the command line to its end."""
    return subprocess.run(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env=environment(data_dir, env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class ServerProcess:
    """A running ``python main.py serve``. Made by ``serving``, which also cleans it up."""

    def __init__(self, data_dir: Path, arguments: list[str], env: Mapping[str, str], logs: Path) -> None:
        self.data_dir = data_dir
        self.port = 0
        self._out, self._err = logs / "stdout", logs / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "main.py", *arguments],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self.pid = self.process.pid
        self._client: httpx.Client | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8", "replace")

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8", "replace")

    @property
    def log(self) -> str:
        """All it printed, for a failed test's message."""
        return f"stdout:\n{self.out}\nstderr:\n{self.err}"

    @property
    def key(self) -> str:
        """The local API key, as an app of the same OS user finds it."""
        return (self.data_dir / "local.key").read_text("ascii").strip()

    @property
    def launch_link(self) -> str:
        """The one-time link to the web UI that it prints."""
        found = eventually(lambda: LAUNCH_LINK.search(self.out), what="a launch link")
        return found[0]

    def wait_until_healthy(self) -> None:
        """Return once it answers at the address it printed: no other server can be taken for it."""

        def healthy() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode} before it answered")
            if (printed := ADDRESS.search(self.out)) is None:
                return False
            self.port = int(printed[1])
            try:
                return httpx.get(f"{self.url}/api/health", trust_env=False, timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        try:
            eventually(healthy, START_DEADLINE)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.log}") from None

    def api(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        """One request with the local key; ``path`` begins with ``/api``. Its answer is as the document says."""
        if self._client is None:
            self._client = httpx.Client(
                base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, trust_env=False, timeout=20
            )
        if json is not None:
            options["json"] = json
        answer = self._client.request(method, path, **options)
        target = answer.request.url.raw_path.partition(b"?")[0].decode()
        if target.startswith("/api/") and answer.history == []:
            from tests.support import described_answers  # loads the backend, which tests of other parts do without

            content_type = answer.headers.get("content-type", "")
            described_answers.check(method, target, answer.status_code, content_type, answer.content)
        return answer

    def everything(self, path: str, name: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every row of a paged list, page after page to the last."""
        cursor: str | None = None
        while True:
            page = {"limit": 200} | query | ({"cursor": cursor} if cursor else {})
            answer = self.api("GET", path, params=page)
            assert answer.status_code == 200, answer.text
            yield from answer.json()[name]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                return

    def kill(self) -> None:
        """As a power cut would: SIGKILL, nothing tidied up."""
        self.process.kill()
        self.process.wait(STOP_DEADLINE)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM, deadline: float = STOP_DEADLINE) -> int:
        """Ask it to stop and give its exit code; raises ``subprocess.TimeoutExpired`` after ``deadline`` seconds."""
        self.process.send_signal(with_signal)
        return self.process.wait(deadline)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_DEADLINE)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def serving(
    data_dir: Path, *options: str, ui: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """A server that answers, on a port that it chose itself; gone again on the way out, whatever happened."""
    arguments = ["serve", "--data-dir", str(data_dir), "--port", "0", *([] if ui else ["--no-ui"]), *options]
    with tempfile.TemporaryDirectory(prefix="flashflow-log-") as logs:
        server = ServerProcess(data_dir, arguments, environment(data_dir, env), Path(logs))
        try:
            server.wait_until_healthy()
            yield server
        finally:
            server.close()
