"""Read stream events from both databases in bounded chunks, shared by clients at the same position."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from flashflow.backend.api.framework.serializers import activity_row_json, notification_row_json, to_json_types
from flashflow.backend.core.events import Bus, Event
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.data.formats import line_safe
from flashflow.backend.store.activity.activities import ACTIVITY_SEQS, activities_after, sessions_after
from flashflow.backend.store.activity.session_table import SESSION_REVISIONS, to_session
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.notifications.notifications import (
    NOTIFICATION_REVISIONS,
    NOTIFICATION_SEQS,
    NotificationRow,
    notifications_after,
)

PING_S = 15.0
"""Seconds without an event after which a stream sends a ping."""
CHUNK_BYTES = 256 * 1024
"""A chunk takes no further event at this size; a single event may be larger."""
CHUNK_EVENTS = 200
SCAN = 20_000
"""Positions of each kind that one read scans, whether or not the filter matches them."""
CACHE_BYTES = 4 * 1024 * 1024
"""Total bytes of chunks cached for other clients."""

_encode = msgspec.json.Encoder().encode


class StreamPosition(NamedTuple):
    """A client's position: activity seq, session revision, notification seq, notification revision."""

    activity: int
    session: int
    notification: int
    revision: int

    def text(self) -> str:
        return "-".join(map(str, self))


class Filter(NamedTuple):
    """Events of one user (None: all), written by one app (None: all)."""

    user_id: str | None
    app: str | None


class Chunk(NamedTuple):
    """Events as event-stream bytes, the position after them, and whether another read may find more."""

    events: bytes
    position: StreamPosition
    more: bool


Reader = Callable[[Callable[[], Chunk]], Awaitable[Chunk]]
"""``ApiRequest.read``: run a query in a reading thread."""


class EventFeed:
    """Clients with the same filter at the same position share one read and its bytes. Belongs to the event loop."""

    def __init__(self, activity: Store, notifications: Store, bus: Bus) -> None:
        self._activity = activity
        self._notifications = notifications
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[asyncio.Event, Filter] = {}
        self._reading: dict[tuple[StreamPosition, Filter], asyncio.Future[Chunk]] = {}
        self._cached: dict[tuple[StreamPosition, Filter], tuple[object, Chunk]] = {}
        self._generation = object()
        """Replaced at every commit: a chunk of an earlier generation may be incomplete."""
        bus.subscribe(self._on_events)

    def subscribe(self, wake: asyncio.Event, who: Filter) -> Callable[[], None]:
        """Set ``wake`` at each commit that ``who`` may match. Return the function that unsubscribes."""
        self._listeners[wake] = who

        def unsubscribe() -> None:
            self._listeners.pop(wake, None)

        return unsubscribe

    def clear(self) -> None:
        """Drop the cached chunks. Thread-safe."""
        self._cached = {}

    def now(self) -> StreamPosition:
        """Return the databases' latest position. Blocks: call it in a reading thread."""
        activity = self._activity.read(lambda conn: (ACTIVITY_SEQS.last(conn), SESSION_REVISIONS.last(conn)))
        return StreamPosition(*activity, *self._notifications.read(_last_numbers))

    async def after(self, position: StreamPosition, who: Filter, read: Reader) -> Chunk:
        """Return the chunk after ``position``. Raises TimeoutError and StorageError."""
        key = (position, who)
        generation, cached = self._cached.get(key, (None, None))
        if cached is not None:
            return cached if generation is self._generation else cached._replace(more=True)
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.ensure_future(self._read_once(key, read))
        return await asyncio.shield(reading)

    async def _read_once(self, key: tuple[StreamPosition, Filter], read: Reader) -> Chunk:
        generation, cached = self._generation, self._cached
        try:
            chunk = await read(lambda: self._read(*key))
        finally:
            del self._reading[key]
        if chunk.events:
            # ``clear`` may have replaced the cache since: then this entry is dropped with the old one.
            cached[key] = (generation, chunk)
            while sum(len(one.events) for _, one in cached.values()) > CACHE_BYTES:
                del cached[next(iter(cached))]
        return chunk

    def _on_events(self, events: tuple[Event, ...]) -> None:
        """Start a new generation and wake matching clients. Runs in the thread that committed."""
        self._generation = object()
        if self._listeners:
            self._loop.call_soon_threadsafe(self._wake_listeners, {(event.user_id, event.app) for event in events})

    def _wake_listeners(self, changed: set[tuple[str, str]]) -> None:
        users, apps = {user for user, _ in changed}, {app for _, app in changed}
        for wake, (user_id, app) in self._listeners.items():
            if user_id is None or app is None:
                concerned = (user_id is None or user_id in users) and (app is None or app in apps)
            else:
                concerned = (user_id, app) in changed
            if concerned:
                wake.set()

    def _read(self, position: StreamPosition, who: Filter) -> Chunk:
        events = _Events(position)
        complete = self._activity.read(
            lambda conn: _add_sessions(conn, events, who) and _add_activities(conn, events, who)
        )
        complete = complete and self._notifications.read(lambda conn: _add_notifications(conn, events, who))
        return Chunk(b"".join(events.parts), events.position, not complete)


class _Events:
    """A chunk while it is filled; ``position`` is the position after its last event."""

    def __init__(self, position: StreamPosition) -> None:
        self.parts: list[bytes] = []
        self.position = position
        self._bytes = 0

    def add(self, kind: str, data: dict[str, Any]) -> None:
        event = b"event: %s\nid: %s\ndata: %s\n\n" % (
            kind.encode(),
            self.position.text().encode(),
            line_safe(_encode(data)),
        )
        self.parts.append(event)
        self._bytes += len(event)

    @property
    def full(self) -> bool:
        return self._bytes >= CHUNK_BYTES or len(self.parts) >= CHUNK_EVENTS


def _add_sessions(conn: sqlite3.Connection, events: _Events, who: Filter) -> bool:
    """Add the next session events and advance the position. False if rows are left."""
    last = SESSION_REVISIONS.last(conn)
    end = min(last, events.position.session + SCAN)
    for row in sessions_after(conn, events.position.session, end, *who):
        if events.full:
            return False
        events.position = events.position._replace(session=row.revision)
        events.add("session", to_json_types(to_session(row)))
    # Advance to the end of the scanned range, so that clients there share their next read.
    events.position = events.position._replace(session=max(end, events.position.session))
    return end >= last


def _add_activities(conn: sqlite3.Connection, events: _Events, who: Filter) -> bool:
    last = ACTIVITY_SEQS.last(conn)
    end = min(last, events.position.activity + SCAN)
    for row in activities_after(conn, events.position.activity, end, *who):
        if events.full:
            return False
        events.position = events.position._replace(activity=row.seq)
        events.add("activity", activity_row_json(row))
    events.position = events.position._replace(activity=max(end, events.position.activity))
    return end >= last


def _last_numbers(conn: sqlite3.Connection) -> tuple[int, int]:
    """The highest ``seq`` and revision of notifications."""
    return NOTIFICATION_SEQS.last(conn), NOTIFICATION_REVISIONS.last(conn)


def _add_notifications(conn: sqlite3.Connection, events: _Events, who: Filter) -> bool:
    """Add the next notification events. False if rows are left."""
    # Revisions are not in seq order: an old notification's change may follow newer notifications. So the client's known
    # seq advances only after everything has been sent.
    last_known, last = _last_numbers(conn)
    known = events.position.notification
    end = min(last, events.position.revision + SCAN)
    for row, following in _with_next(notifications_after(conn, events.position.revision, end, *who)):
        if events.full:
            return False
        known_seq = max(known, last_known) if following is None and end >= last else known
        events.position = events.position._replace(revision=row.revision, notification=known_seq)
        events.add("notification" if row.seq > known else "notification.updated", notification_row_json(row))
    events.position = events.position._replace(revision=max(end, events.position.revision))
    if end >= last:
        events.position = events.position._replace(notification=max(known, last_known))
    return end >= last


def _with_next(rows: Iterator[NotificationRow]) -> Iterator[tuple[NotificationRow, NotificationRow | None]]:
    """Yield each row with its successor."""
    row = next(rows, None)
    while row is not None:
        following = next(rows, None)
        yield row, following
        row = following
