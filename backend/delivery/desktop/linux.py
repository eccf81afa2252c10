"""Linux desktop notifications: plyer's notification facade over org.freedesktop.Notifications.

plyer's own Linux backend runs ``notify-send`` and always reports success. This one uses D-Bus: a returned id means
"shown", anything else is a named error.
https://specifications.freedesktop.org/notification-spec/latest/protocol.html
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from jeepney import DBusAddress, HeaderFields, Message  # type: ignore[import-untyped]
from plyer.facades import Notification

from flashflow.backend.delivery.desktop.session_bus import BusLost, SessionBus
from flashflow.backend.delivery.desktop.signals import (
    BUS,
    DEFAULT_ACTION,
    PATH,
    SERVICE,
    ListeningBus,
    Live,
    OnAction,
    Toasts,
)
from flashflow.backend.delivery.net.text import APP_NAME, cut, escaped, is_web_link, lines, one_line
from flashflow.backend.domain.channel import Permanent
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome

TIMEOUT_S = 25.0
"""Seconds that a call waits for its reply, as in libdbus and GLib."""

MOST_BUTTONS = 3
BUTTON_LABEL = 60
"""UTF-16 units."""

_URGENCY = {"low": 0, "normal": 1, "high": 1, "urgent": 2}
_EXPIRE_MS = {"high": 15_000, "urgent": 0}
"""Milliseconds: "high" is normal urgency shown longer; "urgent" stays until dismissed."""
_NOTIFICATIONS = DBusAddress(PATH, bus_name=SERVICE, interface=SERVICE)
_BUS = DBusAddress("/org/freedesktop/DBus", bus_name=BUS, interface=BUS)


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Notification daemon that currently owns the service name."""

    owner: str
    name: str
    version: str
    markup: bool
    """Whether it reads bodies as markup."""
    actions: bool
    """Whether it supports actions."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


class LinuxNotification(Notification):  # type: ignore[misc]
    """plyer's facade extended by ids, replacement, dismissal and errors. Thread-safe; calls run one at a time.

    With ``on_action`` toasts with a key get actions: the toast itself and its buttons.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        icon: Path | None = None,
        timeout_s: float = TIMEOUT_S,
        on_action: OnAction | None = None,
    ) -> None:
        self._icon = icon.resolve().as_uri() if icon is not None and icon.is_file() else ""
        self._toasts = Toasts()
        self._bus = SessionBus(environ, timeout_s)
        self._listening = ListeningBus(environ, timeout_s, self._toasts, on_action)
        self._lock = threading.RLock()
        self._server: Server | None = None

    def show(self, notification: DeliveryMessage) -> Outcome:
        """Show a toast, replacing an earlier one of this notification. Raises a ChannelError."""
        server = self._show(
            notification.notification_id,
            one_line(notification.title) or APP_NAME,
            lines(notification.message),
            icon=self._icon,
            urgency=_URGENCY.get(notification.priority, 1),
            expire_ms=_EXPIRE_MS.get(notification.priority, -1),
            buttons=_buttons(notification),
        )
        return Outcome(outcome="delivered", code="shown", text=f"shown by {server}")

    def dismiss(self, key: str) -> bool:
        """Dismiss the toast of ``key``; return whether there was one. Raises a ChannelError."""
        with self._lock:
            if not self._toasts.find(key):
                return False
            self._current_server(start=False)
            shown_id = self._toasts.take(key)
            if not shown_id:
                return False
            bus = self._listening if self._listening.connected else self._bus
            bus.call(_NOTIFICATIONS, "CloseNotification", "u", shown_id)
            return True

    def probe(self) -> str:
        """Return the name of the daemon without showing a toast. Raises a ChannelError."""
        with self._lock:
            try:
                return str(self._current_server(start=False))
            except Permanent as error:
                if error.code != "no_notification_service":
                    raise
                (activatable,) = self._bus.call(_BUS, "ListActivatableNames")
                if SERVICE not in activatable:
                    raise
                return "a notification service that starts when needed"

    def close(self) -> None:
        """Close the connections for good, interrupting calls in progress."""
        self._bus.shut()
        self._listening.shut()
        if self._lock.acquire(timeout=1.0):
            try:
                self._drop_server()
            finally:
                self._lock.release()

    def _notify(self, **kwargs: Any) -> None:
        """Implement plyer's ``notify``: ``timeout`` in seconds; of the hints only ``urgency`` is used."""
        self._show(
            "",
            one_line(str(kwargs.get("title", ""))),
            lines(str(kwargs.get("message", ""))),
            icon=str(kwargs.get("app_icon", "")),
            urgency=int(kwargs.get("hints", {}).get("urgency", 1)),
            expire_ms=int(kwargs.get("timeout", -0.001) * 1000),
        )

    def _show(
        self,
        key: str,
        title: str,
        body: str,
        *,
        icon: str,
        urgency: int,
        expire_ms: int,
        buttons: Sequence[tuple[str, str]] = (),
    ) -> Server:
        """Show a toast, replacing an earlier one with its key ("" for none); return the daemon.

        ``body``: plain text, escaped if the daemon reads markup. ``icon``: a ``file:`` URI, the name of a themed icon,
        or "". ``urgency``: 0 low, 1 normal, 2 critical. ``expire_ms``: -1 the daemon decides, 0 never. ``buttons``:
        (label, link) pairs, shown if the daemon supports actions.
        """
        with self._lock:
            server = self._current_server()
            body = escaped(body) if server.markup else body
            actions, links = self._offer(key, buttons, server)
            words = APP_NAME, self._toasts.find(key), icon, title, body
            rest: tuple[Any, ...] = (actions, {"urgency": ("y", urgency)}, expire_ms)
            bus = self._listening if links else self._bus
            shown = partial(self._shown, key, links)
            bus.call(_NOTIFICATIONS, "Notify", "susssasa{sv}i", *words, *rest, on_reply=shown)
            return server

    def _current_server(self, *, start: bool = True) -> Server:
        """Return the current daemon, starting it if needed.

        Ids of a previous daemon are removed: the next one uses them for other toasts.
        """
        owner = self._owner(start=start)
        if self._server is None or self._server.owner != owner:
            self._toasts.keep_only(owner)
            name, _vendor, version, _spec = self._bus.call(_NOTIFICATIONS, "GetServerInformation")
            (abilities,) = self._bus.call(_NOTIFICATIONS, "GetCapabilities")
            version = version.split(" ")[0]
            self._server = Server(
                owner=owner,
                name=name,
                version=version,
                markup="body-markup" in abilities,
                actions="actions" in abilities,
            )
        return self._server

    def _owner(self, *, start: bool) -> str:
        """Return the unique name of the service's owner.

        Called before every toast, so that a broken bus connection is found before anything is lost.
        """
        reused = self._bus.connected
        try:
            return self._query_owner(start=start)
        except BusLost:
            self._drop_server()
            if not reused:
                raise
        return self._query_owner(start=start)

    def _query_owner(self, *, start: bool) -> str:
        try:
            (owner,) = self._bus.call(_BUS, "GetNameOwner", "s", SERVICE)
        except Permanent as error:
            if not start or error.code != "no_notification_service":
                raise
            self._bus.call(_BUS, "StartServiceByName", "su", SERVICE, 0)
            (owner,) = self._bus.call(_BUS, "GetNameOwner", "s", SERVICE)
        return str(owner)

    def _offer(
        self, toast_key: str, buttons: Sequence[tuple[str, str]], server: Server
    ) -> tuple[list[str], dict[str, str | None]]:
        """Return the toast's actions in D-Bus form (key, label, key, label, …) and the link of each key."""
        if not (toast_key and server.actions and self._listening.on_action):
            return [], {}
        offered, links = [DEFAULT_ACTION, "Mark as read"], dict[str, str | None]({DEFAULT_ACTION: None})
        for number, (label, link) in enumerate(buttons, 1):
            key = f"link-{number}"
            offered += [key, label]
            links[key] = link
        return offered, links

    def _shown(self, key: str, links: Mapping[str, str | None], reply: Message) -> None:
        """Register the id in the daemon's reply, with the sender, which the bus itself writes."""
        (shown_id,) = reply.body
        if key:
            self._toasts.add(key, Live(shown_id, reply.header.fields.get(HeaderFields.sender, ""), links))

    def _drop_server(self) -> None:
        self._bus.drop()
        self._listening.drop()
        self._toasts.keep_only("")
        self._server = None


def _buttons(notification: DeliveryMessage) -> list[tuple[str, str]]:
    links = [link for link in notification.actions if is_web_link(link.url)]
    return [(cut(one_line(link.label), BUTTON_LABEL) or "Open", link.url) for link in links[:MOST_BUTTONS]]
