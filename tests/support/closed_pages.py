"""Loads pages of the web UI over its WebSocket as a browser does, and leaves them again: what is kept of them?

Run it to measure: ``python -m tests.support.closed_pages 700``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgpack
from websockets.sync.client import ClientConnection, connect

from tests.support.server_process import ServerProcess, serving

SIZE = {"width": 1200, "height": 800}
PAGE: dict[str, Any] = {"route": "/", "web": True, "platform": "linux", **SIZE}
DRAWN = 20_000
"""Bytes: only the message with the whole screen has more."""
EXPIRES = {"FLET_SESSION_TIMEOUT": "0"}
"""A page that was left is forgotten at Flet's next look, every ten seconds."""


class Browser:
    """A browser that was let in by the launch link."""

    def __init__(self, url: str, launch_link: str) -> None:
        self._url = url
        with httpx.Client(base_url=url, trust_env=False) as client:
            self._cookie = client.get(launch_link).headers["set-cookie"].partition(";")[0]
            client.get("/", headers={"cookie": self._cookie}, timeout=30)  # loads Flet

    @contextmanager
    def connected(self) -> Iterator[ClientConnection]:
        """A page's WebSocket, before its first message."""
        with connect(
            f"{self._url.replace('http', 'ws', 1)}/ws", origin=self._url,  # type: ignore[arg-type]
            additional_headers={"Cookie": self._cookie}, compression=None, max_size=None, open_timeout=30,
        ) as socket:  # fmt: skip
            yield socket

    def load_and_leave(self) -> None:
        """Load one page until it is drawn, then close it."""
        with self.connected() as socket:
            socket.send(b"\0" + msgpack.packb([1, {"session_id": None, "page_name": "", "page": PAGE}]))
            while len(socket.recv(timeout=30)) < DRAWN:
                pass


def resident_mib(server: ServerProcess) -> float:
    """The server's RSS."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main(pages: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "data", ui=True, env=EXPIRES) as server,
    ):
        browser = Browser(server.url, server.launch_link)
        for number in range(1, pages + 1):
            browser.load_and_leave()
            if number in {1, 10} or number % 50 == 0:
                print(f"{number:4} pages loaded and left: {resident_mib(server):6.1f} MiB", flush=True)
        for _ in range(pages):
            with browser.connected():
                pass
        print(f"{pages:4} more left before their first message: {resident_mib(server):6.1f} MiB", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
