"""Server-sent events that survive reconnects and restarts without a gap.

The event bus only wakes clients; events are read from the databases, from the client's position. The position is the
event's id: last activity, last session change, last notification and last notification change. A client that reconnects
with ``Last-Event-ID`` continues from there. The position is also sent first and with every ping, so that a client
without any event yet misses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

from starlette.types import Receive, Scope, Send

from flashflow.backend.api.framework.api_request import ApiRequest, authorize
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.event_feed import PING_S, Chunk, Filter, StreamPosition
from flashflow.backend.api.framework.request_body import wait_for_disconnect
from flashflow.backend.api.framework.responses import ApiResponse, StreamedResponse
from flashflow.backend.api.http.unread_bytes import WRITE_BYTES
from flashflow.backend.core.errors import FlashFlowError, RateLimited, StorageError, ValidationError
from flashflow.backend.schemas.requests import Input, UserId

log = logging.getLogger(__name__)

QUIET_S = 0.02
"""Seconds to collect events between two chunks: limits a client to fifty reads a second."""
RETRY_S = 1.0
"""Seconds until the next read after a failed one."""

_POSITION = re.compile(r"(\d{1,18})-(\d{1,18})-(\d{1,18})-(\d{1,18})", re.ASCII)


class StreamQuery(Input, frozen=True, kw_only=True):
    """``user_id``: only this user's events; by default every user's."""

    user_id: UserId | None = None


async def stream_events(call: ApiRequest) -> ApiResponse:
    query: StreamQuery = call.query or StreamQuery()
    now = await call.read(call.services.feed.now)
    # A position beyond the databases (after a restored backup) would wait without any event.
    position = StreamPosition(*map(min, now, _parse(call.headers.get(b"last-event-id", b""), now)))
    if call.method != "HEAD":
        _check_room(call)

    async def go(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await _follow(call, Filter(query.user_id, call.caller.sees), position, receive, send)

    return StreamedResponse(200, b"", go=go)


_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def _follow(call: ApiRequest, who: Filter, position: StreamPosition, receive: Receive, send: Send) -> None:
    services, app = call.services, call.caller.app
    wake = asyncio.Event()
    wake.set()
    unsubscribe = services.feed.subscribe(wake, who)
    gone = asyncio.ensure_future(wait_for_disconnect(receive))
    stopping = asyncio.ensure_future(services.stopping.wait())
    streams = services.watch.streams
    streams[app] += 1
    try:
        await _write(send, b"retry: 1000\n: FlashFlow\n%s\n" % _id(position))
        while not gone.done() and not stopping.done():
            if not wake.is_set():
                if not await _wait_any({gone, stopping}, wake, PING_S):
                    await _write(send, b": ping\n%s\n" % _id(position))
                continue
            wake.clear()
            if not _is_still_admitted(call):
                break
            chunk = await _next(call, position, who)
            if chunk is None:  # the next read begins at the same position
                wake.set()
                await asyncio.wait({gone, stopping}, timeout=RETRY_S, return_when=asyncio.FIRST_COMPLETED)
                continue
            outgoing, size = services.outgoing, len(chunk.events)
            if not outgoing.has_room(app, size):
                del chunk  # read again when this key's other clients have caught up
                wake.set()
                await outgoing.room(app, size, {gone, stopping})
                continue
            position = chunk.position
            if chunk.more:
                wake.set()
            with outgoing.hold(app, size):
                for start in range(0, size, WRITE_BYTES):
                    await _write(send, chunk.events[start : start + WRITE_BYTES])
            await asyncio.sleep(QUIET_S if chunk.events else 0)
    finally:
        streams[app] -= 1
        unsubscribe()
        gone.cancel()
        stopping.cancel()
    if not gone.done() or gone.cancelled():
        await send({"type": "http.response.body", "body": b""})


def _check_room(call: ApiRequest) -> None:
    """Raise RateLimited if this key, or all keys together, have the maximum of streams."""
    watch = call.services.watch
    if watch.streams[call.caller.app] >= watch.limits.streams_per_key:
        raise RateLimited(f"This key follows {watch.limits.streams_per_key} streams already. Close one first.")
    if not watch.has_room_for_stream():
        raise RateLimited("The maximum number of streams is open. Try again later.")


async def _next(call: ApiRequest, position: StreamPosition, who: Filter) -> Chunk | None:
    """Return the events after ``position``; None if they cannot be read now."""
    try:
        return await call.services.feed.after(position, who, call.read)
    except (TimeoutError, StorageError) as error:
        log.warning("event stream read failed, retrying: %s", str(error) or "no answer in time")
        return None


def _is_still_admitted(call: ApiRequest) -> bool:
    """Whether the key is still valid with the same scopes: a stream must not outlive its key."""
    try:
        return authorize(call.services, call.headers, "read") == call.caller
    except FlashFlowError:
        return False


def _id(position: StreamPosition) -> bytes:
    """Return an id field without an event: it sets the client's Last-Event-ID."""
    return b"id: %s\n" % position.text().encode()


def _parse(last_event_id: bytes, now: StreamPosition) -> StreamPosition:
    """Return the position in a Last-Event-ID; ``now`` if there is none. Raises ValidationError."""
    if not last_event_id:
        return now
    match = _POSITION.fullmatch(last_event_id.decode("latin-1"))
    if match is None:
        raise ValidationError.of("Last-Event-ID", "is not an id of this stream")
    activity, session, notification, revision = map(int, match.groups())
    return StreamPosition(activity, session, notification, revision)


async def _wait_any(ends: set[asyncio.Future[Any]], wake: asyncio.Event, timeout: float) -> bool:
    """Wait for ``wake`` or one of ``ends``. False after ``timeout`` seconds without either."""
    waking = asyncio.ensure_future(wake.wait())
    done, _ = await asyncio.wait({waking, *ends}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    waking.cancel()
    return bool(done)


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/stream", scope="read", handler=stream_events, query=StreamQuery,
        summary="Follow events as server-sent events; Last-Event-ID resumes after an event",
        answer="events: notification, notification.updated, activity, session", media_types=("text/event-stream",),
    ),
)  # fmt: skip
