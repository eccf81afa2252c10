"""The places that a server has for connections, and which connection has to leave when there are too many.

A key's owner may hold many connections, and a client without a key costs nothing to start: neither may keep the others
out. Streams and WebSockets leave some places free for requests; beyond that, the newest connection is let in and one
that only waits is closed, of the group (a key's, the browsers', those without a key) that holds most.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, MutableMapping
from typing import Any, Protocol

import msgspec

REASONS = ("bad_request", "headers_too_large", "request_timeout", "too_many_connections")
"""The codes of what is refused before there is a request to hand on."""
BROWSER = ""
"""Stands for an app's name where a browser has shown its cookie."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What connections may use. ``header_bytes`` is the request line and the headers together; ``max_streams`` counts
    event streams and WebSockets, ``max_unknown`` connections that have shown no key."""

    header_bytes: int = 16 * 1024
    request_deadline_s: float = 10.0
    write_deadline_s: float = 30.0
    max_connections: int = 512
    max_streams: int = 384
    streams_per_key: int = 128
    max_unknown: int = 128


class Peer:
    """Who is at the other end of a connection: the app whose key it has shown last, BROWSER, or None so far."""

    __slots__ = ("app",)

    def __init__(self) -> None:
        self.app: str | None = None


def recognise(scope: MutableMapping[str, Any], app: str) -> None:
    """Note whose connection the request with this ASGI scope came on."""
    peer: Peer | None = scope.get("flashflow.peer")
    if peer is not None:
        peer.app = app


class Connection(Protocol):
    """What is asked of a connection here."""

    peer: Peer
    loop: asyncio.AbstractEventLoop

    def check(self, now: float) -> None:
        """End it where it is past a deadline."""

    def waits_since(self) -> float | None:
        """Since when it has waited for bytes from its peer; None while an answer is under way."""

    def is_stuck(self) -> bool:
        """Whether its peer does not take what was written."""

    def send_away(self) -> None:
        """End it for the sake of another."""

    def unsent(self) -> int:
        """Bytes that were written and not taken by its peer."""


class ConnectionWatch:
    """The connections of one server, and the sweep that ends those past a deadline."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.connections: dict[Connection, None] = {}
        """In the order they came."""
        self.sockets: set[Any] = set()
        """uvicorn's own set: these connections, and those that have become WebSockets."""
        self.lingering = 0
        self.streams: Counter[str] = Counter()
        """Event streams by the app whose key opened them."""
        self.refused = Counter(dict.fromkeys(REASONS, 0))
        """How many requests were refused before there was anything to hand on, by the code of the refusal."""
        self.stuck: set[Connection] = set()
        """Those whose buffer is above its high-water mark."""
        self._unknown: dict[Connection, None] = {}
        self._interval = min(0.5, max(0.02, min(limits.request_deadline_s, limits.write_deadline_s) / 20))
        self._armed = False

    def add(self, connection: Connection, sockets: set[Any]) -> bool:
        """Take ``connection`` in, at the cost of others where there are too many; False where it has no place."""
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
        """``connection`` is gone, or has become a WebSocket."""
        self.connections.pop(connection, None)
        self.stuck.discard(connection)
        self._unknown.pop(connection, None)

    def unsent(self, app: str) -> int:
        """Bytes that the clients with this app's key have not taken yet."""
        return sum(connection.unsent() for connection in self.stuck if connection.peer.app == app)

    def has_room_for_stream(self) -> bool:
        """Whether one more connection may be held for long; the rest is for requests."""
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
    """End one of ``connections`` that waits, else one that does not read; False where there is neither."""
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
    crowd = Counter(connection.peer.app for _, connection in candidates).most_common(1)[0][0]
    _, oldest = min((one for one in candidates if one[1].peer.app == crowd), key=lambda one: one[0])
    oldest.send_away()
    return True
