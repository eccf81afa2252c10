"""Server-sent events: what happens, as it happens, with nothing missed across a reconnect.

The bus only rings; what is sent is read from the files, from the place where this client stands. That place is the
event's id: the last activity, the last change of a session, and the last notification and change of one. A client that
comes back with ``Last-Event-ID`` goes on from there, over restarts too.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send

from backend.api.call import Call, Disconnected, authorize, decode_query, encode, read_body, refusal, respond
from backend.api.context import Services
from backend.api.wire import wire
from backend.errors import FlashFlowError, PayloadTooLarge, ValidationError
from backend.events import Event
from backend.inputs import Input, UserId
from backend.store.activities import activities_after, last_seq, sessions_after
from backend.store.notifications import last_places, notifications_after
from backend.store.session_rows import last_revision

log = logging.getLogger(__name__)

AT_ONCE = 200
PING_S = 15.0
QUIET_S = 0.02
"""After a burst has been sent, how long to gather the next: a thousand activities a second make fifty reads."""

_PLACE = re.compile(r"(\d{1,18})-(\d{1,18})-(\d{1,18})-(\d{1,18})", re.ASCII)


class Place(NamedTuple):
    """How far a client has heard: activity seq, session revision, notification seq, notification revision."""

    activity: int
    session: int
    notification: int
    revision: int

    def text(self) -> str:
        return "-".join(map(str, self))


class StreamQuery(Input, frozen=True, kw_only=True):
    """Whose events; everyone's where the key allows it."""

    user_id: UserId | None = None


class Stream:
    """GET /api/stream as an ASGI app."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            await read_body(receive, headers)
            caller = authorize(self._services, headers, "read")
            query: StreamQuery = decode_query(scope["query_string"], StreamQuery)
            call = Call(scope, self._services, caller, headers)
            last_id = headers.get(b"last-event-id")
            now = await call.read(self._now)
            # A place further on than the files are (a backup took their place) would be waited for in silence.
            place = now if last_id is None else Place(*map(min, now, _parse(last_id.decode("latin-1"))))
        except FlashFlowError as error:
            await respond(send, refusal(error), close=isinstance(error, PayloadTooLarge))
            return
        except Disconnected:
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"cache-control", b"no-store"),
                    (b"x-accel-buffering", b"no"),
                ],
            }
        )
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await self._follow(call, query.user_id, caller.sees, place, receive, send)

    async def _follow(
        self, call: Call, user_id: str | None, app: str | None, place: Place, receive: Receive, send: Send
    ) -> None:
        loop = asyncio.get_running_loop()
        bell = asyncio.Event()
        bell.set()

        def ring(events: tuple[Event, ...]) -> None:
            if any((user_id is None or e.user_id == user_id) and (app is None or e.app == app) for e in events):
                loop.call_soon_threadsafe(bell.set)

        unsubscribe = self._services.bus.subscribe(ring)
        gone = asyncio.ensure_future(_gone(receive))
        stopping = asyncio.ensure_future(self._services.stopping.wait())
        self._services.requests.streams += 1
        try:
            await _write(send, b"retry: 1000\n: FlashFlow\n\n")
            while not gone.done() and not stopping.done():
                if bell.is_set():
                    bell.clear()
                    if not self._still_admitted(call):
                        break
                    chunk, place, more = await call.read(lambda at=place: self._after(at, user_id, app))  # type: ignore[misc]
                    if chunk:
                        await _write(send, chunk)
                    if more:
                        bell.set()
                    await asyncio.sleep(QUIET_S if chunk else 0)
                    continue
                waiting = asyncio.ensure_future(bell.wait())
                done, _ = await asyncio.wait(
                    {waiting, gone, stopping}, timeout=PING_S, return_when=asyncio.FIRST_COMPLETED
                )
                waiting.cancel()
                if not done:
                    await _write(send, b": ping\n\n")
        finally:
            self._services.requests.streams -= 1
            unsubscribe()
            gone.cancel()
            stopping.cancel()
        if not gone.done() or gone.cancelled():
            await send({"type": "http.response.body", "body": b""})

    def _still_admitted(self, call: Call) -> bool:
        """Whether the key still stands: a stream must not outlive its key."""
        try:
            return authorize(self._services, call.headers, "read") == call.caller
        except FlashFlowError:
            return False

    def _now(self) -> Place:
        """Where the files stand: a client without a place hears what comes after."""
        activity = self._services.activity.store.read(lambda conn: (last_seq(conn), last_revision(conn)))
        seq, revision = self._services.notifications.store.read(last_places)
        return Place(activity[0], activity[1], seq, revision)

    def _after(self, place: Place, user_id: str | None, app: str | None) -> tuple[bytes, Place, bool]:
        """What happened after ``place`` as event-stream bytes, the place after it, and whether there is more."""
        activities = self._services.activity.store.read(
            lambda conn: activities_after(conn, place.activity, user_id, app, AT_ONCE)
        )
        sessions = self._services.activity.store.read(
            lambda conn: sessions_after(conn, place.session, user_id, app, AT_ONCE)
        )
        last, notifications = self._services.notifications.store.read(
            lambda conn: (last_places(conn)[0], notifications_after(conn, place.revision, user_id, app, AT_ONCE))
        )
        parts: list[bytes] = []
        for revision, session in sessions:
            place = place._replace(session=revision)
            parts.append(_event("session", place, wire(session)))
        for seq, activity in activities:
            place = place._replace(activity=seq)
            parts.append(_event("activity", place, wire(activity)))
        # Changes come in their own order: a notice that was read meanwhile comes after newer ones and is new to this
        # client all the same. So what it knows stays as it was until all of it has been told.
        known = heard = place.notification
        if len(notifications) < AT_ONCE:
            heard = max(known, last, *(seq for _, seq, _ in notifications))
        for index, (revision, seq, notification) in enumerate(notifications, 1):
            kind = "notification" if seq > known else "notification.updated"
            at = heard if index == len(notifications) else known
            place = place._replace(revision=revision, notification=at)
            parts.append(_event(kind, place, wire(notification)))
        more = AT_ONCE in {len(activities), len(sessions), len(notifications)}
        return b"".join(parts), place._replace(notification=heard), more


def _event(kind: str, place: Place, data: dict[str, Any]) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (kind.encode(), place.text().encode(), encode(data))


def _parse(text: str) -> Place:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise ValidationError.of("Last-Event-ID", "is not an id that this stream gave")
    activity, session, notification, revision = map(int, match.groups())
    return Place(activity, session, notification, revision)


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
