"""Data sources of the controls over FlashFlow's HTTP API, for apps that run in another process.

One thread per connection follows the event stream while any control is mounted.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import quote

from flashflow.client import Client, ClientError, Refused
from flashflow.views.controls.protocols import ALL, DigestSetting, Inbox, Matrix, TypeRow

log = logging.getLogger(__name__)

PAGE = 200
MOST_UNDONE = 1_000
"""Notifications of one "Mark all read" that can be marked unread again."""
POLL_S = 60.0
"""Interval of refreshes without an event: deleted notifications and changed preferences cause none."""
RETRY_S = 5.0


class HttpConnection:
    """Sources for any number of users over one client. ``close`` ends the thread, not the client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._listeners: list[_Listener] = []
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def inbox(self, user_id: str) -> HttpInbox:
        """Return the source of a ``NotificationBell``."""
        return HttpInbox(self, user_id)

    def preferences(self, user_id: str) -> HttpPreferences:
        """Return the source of a ``NotificationSettings``."""
        return HttpPreferences(self, user_id)

    def close(self) -> None:
        """Stop listening. The thread ends with the next event."""
        self._closed.set()
        with self._lock:
            self._listeners.clear()

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer to a GET. Raises ClientError."""
        return self._client.call("GET", path)

    def change(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, user_id: str) -> dict[str, Any]:
        """Return the answer to a write, and refresh the user's controls. Raises ClientError."""
        answer = self._client.call(method, path, body)
        self.announce(user_id)
        return answer

    def listen(self, user_id: str, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` in the calling event loop after events of the user; return a function that ends it."""
        listener = _Listener(user_id, on_change)
        with self._lock:
            self._listeners.append(listener)
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._follow, name="flashflow-controls", daemon=True)
                self._thread.start()

        def unlisten() -> None:
            listener.stop()
            with self._lock:
                self._listeners = [other for other in self._listeners if other is not listener]

        return unlisten

    def announce(self, user_id: str | None) -> None:
        """Refresh the controls of a user; None: of all users."""
        with self._lock:
            listeners = [one for one in self._listeners if user_id is None or one.user_id == user_id]
        for listener in listeners:
            listener.notify()

    def _follow(self) -> None:
        while not self._closed.is_set():
            try:
                for event in self._client.stream():
                    if self._closed.is_set():
                        return
                    if event.event.startswith("notification"):
                        self.announce(event.data.get("user_id"))
                return  # the client was closed
            except ClientError as error:
                # The key may lack the scope, or was revoked. The controls show the error of their own next request.
                log.warning("The event stream ended: %s", error)
                self.announce(None)
                self._closed.wait(POLL_S if isinstance(error, Refused) else RETRY_S)


@cache
def local_connection() -> HttpConnection:
    """Return the connection of controls without a source: one for the process."""
    return HttpConnection(Client(app="controls"))


def named_user(user_id: str | None) -> str:
    """Return the user of a control without a source. Raises ValueError where there is none."""
    if not user_id:
        raise ValueError("Give the control a source or a user_id.")
    return user_id


class _Listener:
    """One mounted control: called in its event loop, and every POLL_S."""

    def __init__(self, user_id: str, on_change: Callable[[], None]) -> None:
        self.user_id = user_id
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        # Flet finds the page of a control's handlers in the context.
        self._context = contextvars.copy_context()
        self._timer = self._loop.call_later(POLL_S, self._tick)

    def notify(self) -> None:
        """Schedule the call. Any thread."""
        try:
            self._loop.call_soon_threadsafe(self._on_change, context=self._context)
        except RuntimeError:  # the loop is closed: the app has ended
            log.debug("the event loop of a control is closed")

    def stop(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(POLL_S, self._tick)
        self._on_change()


@dataclass(frozen=True)
class _Row:
    """``InboxNotification`` of a JSON object."""

    id: str
    title: str
    message: str
    app: str
    priority: str
    inbox: str | None
    listed_at: datetime
    count: int


class HttpInbox:
    """``InboxSource`` of one user. Do not disturb needs a key with the scope ``manage``, all else ``read``."""

    def __init__(self, connection: HttpConnection, user_id: str) -> None:
        self._connection = connection
        self._user_id = user_id
        self._name = quote(user_id, safe="")

    def newest(self, limit: int) -> Inbox:
        found = self._connection.get(f"/api/notifications/user/{self._name}?limit={limit}")
        rows = tuple(_row(one) for one in found["notifications"])
        try:
            preferences = self._connection.get(f"/api/notifications/preferences/{self._name}")
        except Refused as error:
            if error.status != 403:
                raise
            return Inbox(rows, found["unread_count"], None, may_pause=False)
        until = preferences["quiet_hours"]["do_not_disturb_until"]
        return Inbox(rows, found["unread_count"], None if until is None else datetime.fromisoformat(until))

    def mark_read(self, notification_id: str) -> None:
        self._move("read", notification_id)

    def mark_unread(self, notification_ids: Sequence[str]) -> None:
        for notification_id in notification_ids:
            self._move("unread", notification_id)

    def mark_all_read(self) -> tuple[str, ...]:
        # The answer of read-all is a number. A notification that arrives between the requests is read without undo.
        ids, cursor = list[str](), ""
        while len(ids) < MOST_UNDONE:
            page = self._connection.get(
                f"/api/notifications/user/{self._name}?status=unread&limit={PAGE}{cursor}",
            )
            ids += [one["id"] for one in page["notifications"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={quote(page['next_cursor'], safe='')}"
        self._connection.change("POST", f"/api/notifications/read-all/{self._name}", user_id=self._user_id)
        return tuple(ids[:MOST_UNDONE])

    def set_do_not_disturb(self, minutes: int | None) -> None:
        body = {"until": None} if minutes is None else {"minutes": minutes}
        path = f"/api/notifications/do-not-disturb/{self._name}"
        self._connection.change("POST", path, body, user_id=self._user_id)

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return self._connection.listen(self._user_id, on_change)

    def _move(self, verb: str, notification_id: str) -> None:
        path = f"/api/notifications/{verb}/{quote(notification_id, safe='')}"
        self._connection.change("POST", path, user_id=self._user_id)


class HttpPreferences:
    """``PreferenceSource`` of one user. Needs a key with the scope ``manage``."""

    def __init__(self, connection: HttpConnection, user_id: str) -> None:
        self._connection = connection
        self._user_id = user_id
        self._name = quote(user_id, safe="")

    def matrix(self) -> Matrix:
        found = self._connection.get(f"/api/notifications/preferences/{self._name}")
        for_all = found["digest"].get(ALL)
        return Matrix(
            preferences=tuple(_Choice(**one) for one in _only(found["preferences"], _Choice)),
            types=tuple(_type_row(one, found["digest"]) for one in found["types"]),
            digest=None if for_all is None else DigestSetting(for_all["frequency"], for_all["at"], True),
            may_mark_critical=False,  # the owner decides, in FlashFlow's own settings
        )

    def set_preference(self, notification_type: str, channel: str, enabled: bool) -> None:
        choice = {"notification_type": notification_type, "channel": channel, "enabled": enabled}
        body = {"user_id": self._user_id, **choice}
        self._connection.change("POST", "/api/notifications/preferences", body, user_id=self._user_id)

    def set_digest(self, notification_type: str, frequency: str | None, at: str | None) -> None:
        body = {"notification_type": notification_type, "frequency": frequency} | ({} if at is None else {"at": at})
        self._connection.change("PUT", f"/api/notifications/digest/{self._name}", body, user_id=self._user_id)

    def set_critical(self, notification_type: str, critical: bool) -> None:
        raise PermissionError("Only FlashFlow's own settings decide which types are critical.")

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return self._connection.listen(self._user_id, on_change)


@dataclass(frozen=True)
class _Choice:
    """``Choice`` of a JSON object."""

    notification_type: str
    channel: str
    enabled: bool


def _only(objects: Sequence[Mapping[str, Any]], kind: type) -> list[dict[str, Any]]:
    """Keep the members that ``kind`` has: a newer server may answer more."""
    return [{name: one[name] for name in kind.__dataclass_fields__} for one in objects]  # type: ignore[attr-defined]


def _row(one: Mapping[str, Any]) -> _Row:
    fields = {name: one[name] for name in _Row.__dataclass_fields__}
    return _Row(**fields | {"listed_at": datetime.fromisoformat(one["listed_at"])})


def _type_row(one: Mapping[str, Any], digests: Mapping[str, Mapping[str, Any]]) -> TypeRow:
    own = digests.get(one["name"])
    digest = own or digests.get(ALL) or {"frequency": "off", "at": None}
    return TypeRow(
        name=one["name"],
        label=one["label"],
        description=one["description"],
        app=one["app"],
        critical=one["critical"],
        asks_critical=False,
        digest=DigestSetting(digest["frequency"], digest["at"], own is not None),
        channels=one["channels"],
    )
