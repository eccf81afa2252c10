"""Answers too large to be held: sent a piece at a time, as fast as the client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from starlette.types import Receive, Scope, Send

from backend.api.call import Call, Headers, Streamed


async def streamed(call: Call, pieces: Iterator[bytes], media_type: str, filename: str) -> Streamed:
    """``pieces`` as a file to download. What keeps the first from being made is raised here, while a refusal can still
    be answered; a fault after it ends the connection before the answer is whole, so that nobody takes it for all."""
    first = await call.read(lambda: next(pieces, b""))
    headers: Headers = [
        (b"content-type", media_type.encode()),
        (b"cache-control", b"no-store"),
        (b"content-disposition", f'attachment; filename="{filename}"'.encode()),
    ]

    async def go(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.ensure_future(_gone(receive))
        loop, services = asyncio.get_running_loop(), call.services
        piece: bytes | None = first
        try:
            while piece is not None:
                if gone.done() or services.stopping.is_set():
                    return
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await loop.run_in_executor(services.readers.soon, next, pieces, None)
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b""})

    return Streamed(200, b"", go=go)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
