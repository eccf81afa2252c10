"""The screens over HTTP: Flet's ASGI app, loaded when the first browser asks for it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flashflow.backend import Backend

log = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

FALLBACK_FONT = re.compile(r"/assets/fonts/noto[a-z0-9]+/v[0-9]+/[A-Za-z0-9_.-]+\.woff2\Z")
BLANK_FONT = "/assets/fonts/blank.woff2"
END_S = 5.0
"""Seconds that Flet has to end a session after its page disconnects."""
AHEAD = 16
"""Messages read ahead of Flet, so that a disconnect behind them is noticed."""


class WebScreens:
    """ASGI app for the server's port. Flet takes about one second to import, so the first request loads it."""

    def __init__(self, backend: Backend, assets: Path) -> None:
        self._backend = backend
        self._assets = assets
        self._loading: asyncio.Task[Any] | None = None
        self._life = AsyncExitStack()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        app = await asyncio.shield(self._loading)
        if scope["type"] == "websocket":
            await serve_page(app, scope, receive, _ignoring_disconnect(send))
        else:
            await app(shipped_font(scope, self._assets), receive, send)

    async def close(self) -> None:
        """End all sessions; the next request loads Flet's app again. Safe to call when nothing was loaded."""
        self._loading = None
        await self._life.aclose()

    async def _load(self) -> Any:
        app = await asyncio.to_thread(self._make)
        await self._life.enter_async_context(app.router.lifespan_context(app))
        return app

    def _make(self) -> Any:
        import flet as ft

        from flashflow.views.shell import make_main

        shorten_message_text()
        main = make_main(self._backend)
        return ft.run(main, name="", assets_dir=str(self._assets), export_asgi_app=True, no_cdn=True)


def shipped_font(scope: Message, assets: Path) -> Message:
    """Return ``scope`` with the path of a fallback font that is not shipped replaced by the blank font's."""
    # The engine requests a fallback font that failed again at every frame, for ever, and never again one that loaded.
    path = scope["path"]
    font = FALLBACK_FONT.search(path)
    if font is None or (assets / font[0].lstrip("/")).is_file():
        return scope
    blank = f"{path[: font.start()]}{BLANK_FONT}"
    return {**scope, "path": blank, "raw_path": blank.encode()}


def shorten_message_text() -> None:
    """Replace ``Message.__str__`` in Flet with a short description."""
    # Flet 1.0.5 formats every message for a disabled debug log: 0.15 s for a chart, most of the cost of a refresh.
    from flet.messaging.protocol import Message as Sent

    Sent.__str__ = _brief  # type: ignore[method-assign]


def _brief(message: object) -> str:
    return f"a {type(message).__name__}"


def _ignoring_disconnect(send: Send) -> Send:
    """Wrap ``send`` so that it drops messages to a disconnected page."""
    # Flet 1.0.5 ends a session only when receiving fails. A send that raises leaves the session open for ever, and its
    # queue grows at every refresh. Receiving fails right after.

    async def forgiving(message: Message) -> None:
        try:
            await send(message)
        except OSError:
            log.debug("the page disconnected during a send")

    return forgiving


async def serve_page(app: App, scope: Message, receive: Receive, send: Send) -> None:
    """Run ``app`` for one WebSocket; cancel it if it still runs END_S after the browser disconnected."""
    # Flet 1.0.5 waits for ever when a page disconnects before its first message, or when it cannot parse that message.
    # Each such session keeps about 46 KiB.
    messages: asyncio.Queue[Message] = asyncio.Queue(AHEAD)

    async def listen() -> None:
        while True:
            message = await receive()
            await messages.put(message)
            if message["type"] == "websocket.disconnect":
                return

    listening = asyncio.ensure_future(listen())
    running = asyncio.ensure_future(app(scope, messages.get, send))
    try:
        await asyncio.wait((listening, running), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await asyncio.wait((running,), timeout=END_S)
        if running.done():
            running.result()
    finally:
        for task in (listening, running):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
