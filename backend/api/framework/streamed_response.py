"""Downloads sent piece by piece, as fast as the client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from starlette.types import Receive, Scope, Send

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.request_body import wait_for_disconnect
from flashflow.backend.api.framework.responses import Headers, StreamedResponse
from flashflow.backend.api.http.unread_bytes import WRITE_BYTES
from flashflow.backend.core.errors import RateLimited

RESERVED = 1024 * 1024
"""Bytes reserved for a download while its first piece is made: limits the downloads of one key."""


async def streamed(call: ApiRequest, pieces: Iterator[bytes], media_type: str, filename: str) -> StreamedResponse:
    """Return ``pieces`` as a file to download.

    Raises the errors of the first piece, and RateLimited if this key has too many unread bytes. A later error closes
    the connection before the end, so that no client takes the file as complete.
    """
    app, outgoing = call.caller.app, call.services.outgoing
    if not outgoing.has_room(app, RESERVED):
        raise RateLimited("This key has too many unread response bytes. Read the open responses first.")
    with outgoing.hold(app, RESERVED):
        first = await call.read(lambda: next(pieces, b""))
    outgoing.change(app, len(first))
    headers: Headers = [
        (b"content-type", media_type.encode()),
        (b"cache-control", b"no-store"),
        (b"content-disposition", f'attachment; filename="{filename}"'.encode()),
    ]

    async def go(scope: Scope, receive: Receive, send: Send) -> None:
        held = len(first)
        gone = asyncio.ensure_future(wait_for_disconnect(receive))
        loop, services = asyncio.get_running_loop(), call.services
        piece: bytes | None = first
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while piece is not None and scope["method"] != "HEAD":
                if gone.done() or services.stopping.is_set():
                    return
                for start in range(0, len(piece), WRITE_BYTES):
                    part = piece[start : start + WRITE_BYTES]
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                piece = await loop.run_in_executor(services.readers.short, next, pieces, None)
                outgoing.change(app, len(piece or b"") - held)
                held = len(piece or b"")
        finally:
            gone.cancel()
            outgoing.change(app, -held)
        await send({"type": "http.response.body", "body": b""})

    return StreamedResponse(200, b"", go=go)
