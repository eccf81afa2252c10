"""Limits on connections, and the choice of the one to close when there are too many.

Neither one key's client nor clients without a key may exclude all others. Streams and WebSockets leave some connections
free for requests. Beyond the limit a new connection is accepted and an idle one is closed, taken from the group (a key,
the browsers, clients without a key) that has most.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, MutableMapping
from typing import Any, Protocol

import msgspec

REASONS = ("bad_request", "headers_too_large", "request_timeout", "too_many_connections")
"""Problem codes of requests refused before a handler is called."""
BROWSER = ""
"""App name of a browser with a valid cookie."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on connections. ``header_bytes``: request line and headers together; ``max_streams``: event streams and
    WebSockets; ``max_unknown``: connections without a key."""

    header_bytes: int = 16 * 1024
    request_deadline_s: float = 10.0
    write_deadline_s: float = 30.0
    max_connections: int = 512
    max_streams: int = 384
    streams_per_key: int = 128
    max_unknown: int = 128


class Peer:
    """A connection's client: the app of the last valid key, BROWSER, or None so far."""

    __slots__ = ("app",)

    def __init__(self) -> None:
        self.app: str | None = None


def recognise(scope: MutableMapping[str, Any], app: str) -> None:
    """Record ``app`` as the client of the connection with this ASGI scope."""
    peer: Peer | None = scope.get("flashflow.peer")
    if peer is not None:
        peer.app = app


class Connection(Protocol):
    """The operations of a connection that the watch uses."""

    peer: Peer
    loop: asyncio.AbstractEventLoop

    def check(self, now: float) -> None:
        """Close it if a deadline has passed. ``now``: loop time in seconds."""

    def waits_since(self) -> float | None:
        """Loop time since when it waits for bytes from its peer; None while a response is under way."""

    def is_stuck(self) -> bool:
        """Whether its peer does not read the bytes written."""

    def evict(self) -> None:
        """Close it to free its place."""

    def unsent(self) -> int:
        """Bytes written and not yet read by its peer."""


class ConnectionWatch:
    """The connections of one server, and the periodic sweep for passed deadlines."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.connections: dict[Connection, None] = {}
        """In the order of arrival."""
        self.sockets: set[Any] = set()
        """uvicorn's own set: these connections, and WebSockets."""
        self.lingering = 0
        self.streams: Counter[str] = Counter()
        """Event streams by app."""
        self.refused = Counter(dict.fromkeys(REASONS, 0))
        """Refused requests by problem code (REASONS)."""
        self.stuck: set[Connection] = set()
        """Connections whose write buffer is above its high-water mark."""
        self._unknown: dict[Connection, None] = {}
        self._interval = min(0.5, max(0.02, min(limits.request_deadline_s, limits.write_deadline_s) / 20))
        self._armed = False

    def add(self, connection: Connection, sockets: set[Any]) -> bool:
        """Register ``connection``, closing another one above a limit. False if none can be closed."""
        self.sockets = sockets
        self.connections[connection] = None
        self._unknown[connection] = None
        if not self._armed:
            self._arm(connection.loop)
        if len(self._unknown) > self.limits.max_unknown:
            self._unknown = {one: None for one in self._unknown if one.peer.app is None}
            if len(self._unknown) > self.limits.max_unknown:
                _make_room(one for one in self._unknown if one is not connection)
        if len(sockets) - self.lingering <= self.limits.max_connections:
            return True
        return _make_room(one for one in self.connections if one is not connection)

    def discard(self, connection: Connection) -> None:
        """Remove a closed connection, or one that became a WebSocket."""
        self.connections.pop(connection, None)
        self.stuck.discard(connection)
        self._unknown.pop(connection, None)

    def unsent(self, app: str) -> int:
        """Bytes written to and not yet read by clients with this app's key."""
        return sum(connection.unsent() for connection in self.stuck if connection.peer.app == app)

    def has_room_for_stream(self) -> bool:
        """Whether one more event stream or WebSocket may open."""
        websockets = len(self.sockets) - len(self.connections)
        return websockets + self.streams.total() < self.limits.max_streams

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._armed = True
        loop.call_later(self._interval, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._armed = False
        if not self.connections:
            return
        self._arm(loop)
        now = loop.time()
        for connection in tuple(self.connections):
            connection.check(now)


def _make_room(connections: Iterable[Connection]) -> bool:
    """Close one idle connection, else one whose peer does not read. False if there is neither."""
    candidates: list[tuple[float, Connection]] = []
    stuck: list[tuple[float, Connection]] = []
    for connection in connections:
        since = connection.waits_since()
        if since is not None:
            candidates.append((since, connection))
        elif connection.is_stuck():
            stuck.append((0.0, connection))
    candidates = candidates or stuck
    if not candidates:
        return False
    largest_group = Counter(connection.peer.app for _, connection in candidates).most_common(1)[0][0]
    _, oldest = min((one for one in candidates if one[1].peer.app == largest_group), key=lambda one: one[0])
    oldest.evict()
    return True
