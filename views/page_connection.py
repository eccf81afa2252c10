"""One page's WebSocket, ended when its browser is gone, whatever Flet waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

END_S = 5.0
"""How long Flet may take to note that a page has left."""
AHEAD = 16
"""Messages taken from the browser before Flet asks for them: the end of the connection is seen behind them."""


async def serve_page(app: App, scope: Message, receive: Receive, send: Send) -> None:
    """Run ``app`` for one WebSocket, and cancel what is left of it END_S after the browser has gone.

    Flet 1.0.5 waits for ever for the messages to a page that left before its first message, or whose first message it
    could not read: some 46 KiB for each.
    """
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
