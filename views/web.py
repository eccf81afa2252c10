"""The screens over HTTP: Flet's ASGI app, loaded when the first browser asks for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashflow.views.page_connection import serve_page

if TYPE_CHECKING:
    from flashflow.backend import Backend

log = logging.getLogger(__name__)

Message = dict[str, Any]


class WebScreens:
    """An ASGI app for the server's port; the first request costs the second that Flet takes to load."""

    def __init__(self, backend: Backend, assets: Path) -> None:
        self._backend = backend
        self._assets = assets
        self._loading: asyncio.Task[Any] | None = None
        self._life = AsyncExitStack()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        app = await asyncio.shield(self._loading)
        if scope["type"] == "websocket":
            await serve_page(app, scope, receive, _forgiving(send))
        else:
            await app(scope, receive, send)

    async def close(self) -> None:
        """End the sessions; a server that starts again loads them again. Safe to call when none was asked for."""
        self._loading = None
        await self._life.aclose()

    async def _load(self) -> Any:
        app = await asyncio.to_thread(self._make)
        await self._life.enter_async_context(app.router.lifespan_context(app))
        return app

    def _make(self) -> Any:
        import flet as ft

        from flashflow.views.shell import make_main

        name_messages_briefly()
        return ft.run(
            make_main(self._backend),
            name="",
            assets_dir=str(self._assets),
            export_asgi_app=True,
            no_cdn=True,
        )


def name_messages_briefly() -> None:
    """Keep Flet from putting all it sends into words.

    Flet 1.0.5 writes every message out for a debug log that nobody reads: for a chart that is 0.15 s, most of what a
    refresh costs.
    """
    from flet.messaging.protocol import Message as Sent

    Sent.__str__ = _brief  # type: ignore[method-assign]


def _brief(message: object) -> str:
    return f"a {type(message).__name__}"


def _forgiving(send: Callable[[Message], Awaitable[None]]) -> Callable[[Message], Awaitable[None]]:
    """A ``send`` that lets a message to a page that went away fall.

    Flet 1.0.5 ends a session only when reading tells it so: a send that raises leaves the session open for ever, with
    its queue growing at every refresh. Reading tells it right after.
    """

    async def forgiving(message: Message) -> None:
        try:
            await send(message)
        except OSError:
            log.debug("the page went away while it was sent to")

    return forgiving
