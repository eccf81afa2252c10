"""Limits of one connection: bytes of headers and body, seconds until a request is complete, seconds without reading.

uvicorn keeps a half-open connection for ever, accepts 70 KB of headers and sends its errors as text. LimitedProtocol
changes these three in uvicorn's protocol classes.

Deadlines need no timer per request: a connection records when its request began, and one sweep per server compares.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes

from flashflow.backend.api.http.connection_limits import ConnectionWatch, Limits, Peer
from flashflow.backend.api.http.problem_json import MEDIA_TYPE, problem_bytes, raw_response
from flashflow.backend.core.named_tuple import NamedTuple

BODY_BYTES = 1024 * 1024
"""Bytes of a request's body."""
LINGER_S = 1.0
LINGER_BYTES = 1024 * 1024
"""How long a refused peer may take to read the response, and how many bytes it may still send (discarded). Closing at
once with unread bytes resets the connection: a peer that is still sending gets a broken pipe instead of the response,
and on some systems the reset discards a response that has arrived."""

LINGERING_MAX = 64
"""Refused connections that linger at once; further ones are closed immediately."""

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")


class Refusal(NamedTuple):
    """A problem+json response sent before, or instead of, any handler."""

    status: int
    code: str
    title: str
    detail: str

    def body(self) -> bytes:
        return problem_bytes(*self)


def malformed(detail: str) -> Refusal:
    return Refusal(400, "bad_request", "This is not a valid HTTP/1.1 request", detail)


NOT_HTTP = malformed("The bytes received could not be read as an HTTP/1.1 request.")
INTERNAL = Refusal(
    500, "internal_error", "Something went wrong", "The request could not be answered; the log says why."
)


def too_large(limit: int) -> Refusal:
    detail = f"The request line and the headers may take {limit} bytes together."
    return Refusal(431, "headers_too_large", "The headers are too large", detail)


def too_many(limit: int) -> Refusal:
    detail = f"At most {limit} connections are open at once, and fewer without a key. Try again soon."
    return Refusal(503, "too_many_connections", "Too many connections", detail)


def head_fault(target: bytes, version: str, names: list[bytes]) -> str | None:
    """Return why a request with this target, HTTP version and header names (lower case) is refused, or None.

    Only the origin form is served (RFC 9112 section 3.2.1): an absolute form would carry a second host past the Host
    check. A path must be UTF-8 after unescaping.
    """
    if version not in ("1.1", "1.0"):
        return f"HTTP/{version} is not supported."
    if not target.startswith(b"/") or not target.isascii():
        return "The request target must be a path that starts with / and is ASCII."
    if ord("%") in target and not _is_text(target.partition(b"?")[0]):
        return "The path holds an invalid percent-encoding."
    hosts = names.count(b"host")
    if hosts != 1 and (hosts or version == "1.1"):
        return "Exactly one Host header is needed."
    if b"transfer-encoding" in names and (version != "1.1" or names.count(b"transfer-encoding") > 1):
        return "Transfer-Encoding may be given once, and in HTTP/1.1."
    return None


def _is_text(path: bytes) -> bool:
    if _BAD_ESCAPE.search(path):
        return False
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return False
    return True


class LimitedProtocol(asyncio.Protocol):
    """Mixin before one of uvicorn's protocol classes. Times are loop times in seconds; 0.0 means unset."""

    limits: ClassVar[Limits]
    watch: ClassVar[ConnectionWatch]

    # uvicorn's own, set in its __init__ and connection_made
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    connections: set[Any]
    cycle: Any
    flow: Any
    limit_concurrency: int | None
    timeout_keep_alive: int
    _unset_keepalive_if_required: Callable[[], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fault: Refusal | None = None
        self._since = 0.0
        self._idle_since = 0.0
        self._abort_at = 0.0
        self._input_closed = False
        self._lingering = False
        self._discarded = 0
        self.peer = Peer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.limit_concurrency = None  # max_connections replaces it
        self._since = self.loop.time()
        if not self.watch.add(self, self.connections):
            self.refuse(too_many(self.limits.max_connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._unregister()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._abort_at = self._abort_at or self.loop.time() + self.limits.write_deadline_s
        self.watch.stuck.add(self)
        super().pause_writing()

    def resume_writing(self) -> None:
        if not self._lingering:
            self._abort_at = 0.0
        self.watch.stuck.discard(self)
        super().resume_writing()

    def shutdown(self) -> None:
        """Close at a graceful stop. A refused connection waits only for a response under way."""
        if not self._input_closed:
            super().shutdown()  # type: ignore[misc]
        elif self._lingering or not self._is_answering():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse an invalid request. uvicorn calls this on a parser error; ``fault`` holds the reason."""
        self.refuse(self.fault or NOT_HTTP)

    def is_in_body(self) -> bool:
        """Whether the last bytes read belong to a body, not to a request head."""
        raise NotImplementedError

    def is_queued(self) -> bool:
        """Whether the request being received waits for an earlier response (pipelining)."""
        return False

    def check(self, now: float) -> None:
        """Close the connection if a deadline has passed. Called by the sweep; ``now``: loop time."""
        if self._abort_at:
            if now >= self._abort_at:
                self.transport.abort()
        elif self.transport.is_closing():  # and not closed yet: the peer does not read the last bytes
            self._abort_at = now + self.limits.write_deadline_s
        elif self._input_closed:
            return
        elif self._since:
            if not self.transport.is_reading() or (self._is_answering() and not self.cycle.more_body):
                self._since = now  # the server is busy, not the peer
            elif now - self._since >= self.limits.request_deadline_s:
                self._time_out()
        elif self._idle_since and now - self._idle_since >= self.timeout_keep_alive:
            self.transport.close()

    def waits_since(self) -> float | None:
        """Loop time since when this connection waits for bytes from its peer; None if it does not."""
        if self._input_closed or self._abort_at or self.transport.is_closing() or not self.transport.is_reading():
            return None
        if self._is_answering() and not self.cycle.more_body:
            return None
        return self._since or self._idle_since or None

    def is_stuck(self) -> bool:
        """Whether the peer does not read the bytes written."""
        return bool(self.flow.write_paused) and not self._lingering

    def unsent(self) -> int:
        """Bytes written and not yet read by the peer."""
        return self.transport.get_write_buffer_size()

    def evict(self) -> None:
        """Close this connection to make room for another."""
        if self.is_stuck():
            self.transport.abort()
        elif self._since:
            self.refuse(too_many(self.limits.max_connections))
        else:
            self.transport.close()  # idle between two requests

    @property
    def is_input_closed(self) -> bool:
        """Whether input is no longer read as requests."""
        return self._input_closed

    def _time_out(self) -> None:
        detail = f"The request was not received completely within {self.limits.request_deadline_s:g} seconds."
        self.refuse(Refusal(408, "request_timeout", "The request took too long", detail))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def refuse(self, refusal: Refusal) -> None:
        """Send ``refusal`` and close. Further input is discarded: the start of a next request is unknown.

        An earlier request still being answered gets its response first. A response already begun for the refused
        request is cut off.
        """
        if self._input_closed or self.transport.is_closing():
            return
        self._input_closed = True
        cycle = self.cycle
        if self._is_answering():
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            if self.is_queued():
                self.fault = refusal
                return
            if cycle.response_started:
                self.transport.abort()
                return
        elif cycle is not None and self.is_in_body():
            self.linger()  # already answered before its body arrived
            return
        self.write_refusal(refusal)

    def write_refusal(self, refusal: Refusal) -> None:
        """Write ``refusal`` as the last response of this connection, and give the peer time to read it."""
        self.watch.refused[refusal.code] += 1
        self.transport.write(raw_response(refusal.status, refusal.body()))
        self.linger()

    def linger(self) -> None:
        """Write nothing more; close when the peer does, or after LINGER_S seconds of discarding its input."""
        if self._lingering or self.transport.is_closing():
            return
        self._input_closed = True
        self._unset_keepalive_if_required()
        if self.watch.lingering >= LINGERING_MAX or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._lingering = True
        self.watch.lingering += 1
        self._abort_at = self.loop.time() + LINGER_S
        self.flow.resume_reading()
        try:
            self.transport.write_eof()
        except OSError:  # the peer has closed
            self.transport.abort()

    def discard(self, data: bytes) -> None:
        """Discard input after a refusal. Beyond LINGER_BYTES it is no longer read."""
        if self._lingering:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.flow.pause_reading()

    def start_idle(self) -> None:
        """Start the idle period between requests, ``timeout_keep_alive`` at most."""
        self._idle_since = self.loop.time()

    def hand_over(self) -> bool:
        """Hand the connection over to a WebSocket. False, and refused, if too many are open."""
        if not self.watch.has_room_for_stream():
            self.refuse(too_many(self.limits.max_streams))
            return False
        self._input_closed = True
        self._unregister()
        return True

    def _unregister(self) -> None:
        self.watch.discard(self)
        if self._lingering:
            self._lingering = False
            self.watch.lingering -= 1


def rebound(function: Any, **names: Any) -> Any:
    """Return a copy of ``function`` whose globals have ``names`` replaced.

    uvicorn instantiates its request cycle class inside two long functions. Changing each cycle's class afterwards was
    measured at 2 us a request, a tenth of its total cost.
    """
    return FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)


class LingeringTransport:
    """A cycle's transport during an early response: ``close`` lingers instead of resetting the connection."""

    def __init__(self, connection: LimitedProtocol) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        self._connection.linger()


class LimitedCycle:
    """Mixin before one of uvicorn's request cycles."""

    # uvicorn's own
    transport: Any
    on_response: Callable[[], None]
    response_complete: bool
    more_body: bool

    async def send(self, message: Any) -> None:
        """Send ``message``; linger after the end of a response while the peer may still be sending."""
        if message["type"] == "http.response.body" and not (message.get("more_body") or self.response_complete):
            connection: LimitedProtocol | None = getattr(self.on_response, "__self__", None)
            if connection is not None and (self.more_body or connection.is_input_closed):
                self.transport = LingeringTransport(connection)
        await super().send(message)  # type: ignore[misc]

    async def send_500_response(self) -> None:
        """Send problem+json for an application that failed before responding."""
        body = INTERNAL.body()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        await self.send({"type": "http.response.start", "status": INTERNAL.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})
