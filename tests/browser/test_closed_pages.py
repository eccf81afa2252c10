"""Memory of closed pages is released, however many were opened."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flashflow import command_line as main
from flashflow.backend import Backend, Config
from flashflow.views import web
from flashflow.views.shell import Shell
from flashflow.views.web import WebScreens, serve_page
from tests.support.closed_pages import EXPIRES, Browser
from tests.support.server_process import ROOT, eventually

FEWEST = 20
SILENT = 20
PYTHONS_OWN = gc.get_threshold()


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """The screens in this process, with the garbage collection of ``flashflow serve``."""
    monkeypatch.setenv(*next(iter(EXPIRES.items())))
    thresholds = gc.get_threshold()
    with Backend(Config(data_dir=tmp_path, me="ada", port=0)) as made:
        made.start(screens=WebScreens(made, ROOT / "assets"))
        main._settle_down()
        yield made
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_closed_pages_are_given_back_while_others_are_opened(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    shells: list[weakref.ref[Shell]] = []
    original = Shell.__init__

    def remembered(shell: Shell, *arguments: Any) -> None:
        shells.append(weakref.ref(shell))
        original(shell, *arguments)

    monkeypatch.setattr(Shell, "__init__", remembered)
    browser = Browser(str(backend.url), backend.new_launch_link())

    def levelled() -> bool:
        browser.load_and_leave()
        return len(shells) >= FEWEST and sum(shell() is not None for shell in shells) <= len(shells) // 2

    eventually(levelled, 90, what="half of the pages to be given back")
    assert gc.get_threshold() == PYTHONS_OWN, "with (20_000, 20, 50) 700 pages took 722 MiB, with these 120"


@pytest.mark.parametrize("first_message", [None, b"\0not a message"])
def test_pages_that_leave_before_their_first_message_are_given_back(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, first_message: bytes | None
) -> None:
    monkeypatch.setattr(web, "END_S", 0.2)
    # The tracebacks that pytest keeps of the log would keep the pages.
    monkeypatch.setattr(logging.getLogger("flet_web.fastapi"), "disabled", True)
    browser = Browser(str(backend.url), backend.new_launch_link())
    for _ in range(SILENT):
        with browser.connected() as socket:
            if first_message is not None:
                socket.send(first_message)

    def gone() -> bool:
        gc.collect()
        return not any(type(one).__name__ == "FletApp" for one in gc.get_objects())

    eventually(gone, 30, what="the pages that never spoke to be given back")


Receive = Callable[[], Awaitable[dict[str, Any]]]


@pytest.mark.parametrize("reads", [0, 1, 2])
def test_an_app_that_waits_for_ever_ends_after_its_browser(monkeypatch: pytest.MonkeyPatch, reads: int) -> None:
    monkeypatch.setattr(web, "END_S", 0.05)
    ended: list[str] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Any) -> None:
        try:
            for _ in range(reads):
                await receive()
            await asyncio.Event().wait()
        finally:
            ended.append("app")

    async def run() -> None:
        messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1006}])

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(message: dict[str, Any]) -> None:
            raise AssertionError(message)

        await asyncio.wait_for(serve_page(app, {"type": "websocket"}, receive, send), 10)

    with ThreadPoolExecutor(1) as pool:  # Playwright's event loop runs in this thread
        pool.submit(asyncio.run, run()).result()
    assert ended == ["app"]
