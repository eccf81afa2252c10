"""Notices on a Linux desktop: plyer's notification facade over org.freedesktop.Notifications.

plyer's own Linux backend runs ``notify-send`` and reports success whatever becomes of it. This one speaks D-Bus, so
that an id means "shown" and anything else is an error with a name.
https://specifications.freedesktop.org/notification-spec/latest/protocol.html
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec
from jeepney import DBusAddress, DBusErrorResponse, new_method_call  # type: ignore[import-untyped]
from jeepney.bus import get_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import DBusConnection, prep_socket  # type: ignore[import-untyped]
from jeepney.wrappers import unwrap_msg  # type: ignore[import-untyped]
from plyer.facades import Notification

from backend.delivery.channel import ChannelError, Permanent, Transient
from backend.delivery.desktop_text import escaped

SERVICE = "org.freedesktop.Notifications"
PATIENCE_S = 25.0
"""How long one call waits for its reply: what libdbus and GLib wait."""
REMEMBERED = 500
"""Of how many notices the daemon's id is kept, so that they can be replaced or withdrawn."""

_NOTIFICATIONS = DBusAddress("/org/freedesktop/Notifications", bus_name=SERVICE, interface=SERVICE)
_BUS = DBusAddress("/org/freedesktop/DBus", bus_name="org.freedesktop.DBus", interface="org.freedesktop.DBus")

_ERROR = "org.freedesktop.DBus.Error."
_NOBODY = (_ERROR + "NameHasNoOwner", _ERROR + "ServiceUnknown", _ERROR + "Spawn.")
_NO_ANSWER = (_ERROR + "NoReply", _ERROR + "Timeout", _ERROR + "TimedOut")
_HOPELESS = (_ERROR + "AccessDenied", _ERROR + "InvalidArgs", _ERROR + "NotSupported", _ERROR + "Unknown")


class Toast(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon is asked to show. ``body`` is plain text: escaping it is decided by what the daemon can do."""

    key: str
    """Toasts of one key replace each other; empty: this one stands alone."""
    title: str
    body: str
    app_name: str
    icon: str
    """A ``file:`` URI, the name of a themed icon, or empty."""
    urgency: int
    """0 low, 1 normal, 2 critical."""
    expire_ms: int
    """-1: as the daemon likes; 0: never."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The notification daemon that owns the name now."""

    owner: str
    name: str
    version: str
    markup: bool
    """Whether bodies are read as markup."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


class BusLost(Transient):
    """The connection broke; the next call opens a new one."""

    def __init__(self) -> None:
        super().__init__("bus_lost", "The connection to the desktop session broke.")


class _Connection(DBusConnection):  # type: ignore[misc]
    """jeepney's connection, no call of which waits for ever: not even the Hello that its constructor sends."""

    def __init__(self, sock: socket.socket, patience_s: float) -> None:
        self._patience_s = patience_s
        super().__init__(sock)

    def send_and_get_reply(self, message: Any, *, timeout: float | None = None) -> Any:
        return super().send_and_get_reply(message, timeout=self._patience_s if timeout is None else timeout)


class SessionBus:
    """One connection to the session bus, opened at first need and again after the bus went away.

    For one thread at a time; only ``shut`` may come from another.
    """

    def __init__(self, environ: Mapping[str, str], patience_s: float) -> None:
        self._environ = environ
        self._patience_s = patience_s
        self._socket: socket.socket | None = None
        self._connection: _Connection | None = None
        self._shut = False

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def call(self, target: DBusAddress, member: str, signature: str | None = None, *body: Any) -> tuple[Any, ...]:
        """The reply's values. Raises Permanent ``no_session_bus``, ``no_notification_service`` or ``refused``;
        Transient ``timeout`` or ``refused``; BusLost."""
        connection = self._connection or self._connect()
        message = new_method_call(target, member, signature, body)
        try:
            return tuple(unwrap_msg(connection.send_and_get_reply(message)))
        except DBusErrorResponse as error:
            raise _meaning(error) from error
        except TimeoutError as error:
            raise _no_answer() from error
        except OSError as error:
            self.drop()
            raise BusLost from error
        except Exception:
            self.drop()
            raise

    def drop(self) -> None:
        """Close the connection; nothing if there is none."""
        connection, self._connection = self._connection, None
        sock, self._socket = self._socket, None
        if connection is not None:
            connection.close()
        if sock is not None:
            sock.close()

    def shut(self) -> None:
        """From now on every call fails with BusLost, also the one another thread is waiting in."""
        self._shut = True
        if (sock := self._socket) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> _Connection:
        if self._shut:
            raise BusLost
        try:
            self._socket = prep_socket(get_bus(self._address()))
            self._connection = _Connection(self._socket, self._patience_s)
        except TimeoutError as error:
            self.drop()
            raise _no_answer() from error
        except (OSError, ValueError, RuntimeError, StopIteration, DBusErrorResponse) as error:
            self.drop()
            raise _no_session_bus() from error
        return self._connection

    def _address(self) -> str:
        """Where the session bus listens; without the variable, where systemd puts it (as sd-bus and GLib look)."""
        if address := self._environ.get("DBUS_SESSION_BUS_ADDRESS"):
            return address
        if runtime_dir := self._environ.get("XDG_RUNTIME_DIR"):
            return f"unix:path={runtime_dir}/bus"
        raise _no_session_bus()


class LinuxNotification(Notification):  # type: ignore[misc]
    """plyer's facade, and beyond it what the protocol offers: ids, replacing, withdrawing, true errors.

    Thread-safe: calls queue up behind one another. Texts must be free of control characters (``desktop_text``).
    """

    def __init__(self, environ: Mapping[str, str], *, patience_s: float = PATIENCE_S) -> None:
        self._bus = SessionBus(environ, patience_s)
        self._lock = threading.RLock()
        self._server: Server | None = None
        self._ids: OrderedDict[str, int] = OrderedDict()

    def show(self, toast: Toast) -> Server:
        """Show it, in place of an earlier one of the same key; who shows it. Raises a ChannelError."""
        with self._lock:
            server = self._present_server()
            body = escaped(toast.body) if server.markup else toast.body
            replaces = self._ids.get(toast.key, 0)
            words = toast.app_name, replaces, toast.icon, toast.title, body
            rest: tuple[Any, ...] = ([], {"urgency": ("y", toast.urgency)}, toast.expire_ms)
            (shown_id,) = self._bus.call(_NOTIFICATIONS, "Notify", "susssasa{sv}i", *words, *rest)
            self._remember(toast.key, shown_id)
            return server

    def withdraw(self, key: str) -> bool:
        """Take the toast of this key off the screen; whether there was one to take off. Raises a ChannelError."""
        with self._lock:
            if key not in self._ids:
                return False
            self._present_server(start=False)
            shown_id = self._ids.pop(key, None)
            if shown_id is None:
                return False
            self._bus.call(_NOTIFICATIONS, "CloseNotification", "u", shown_id)
            return True

    def probe(self) -> str:
        """Who would show a notice, found out without showing one. Raises a ChannelError."""
        with self._lock:
            try:
                return str(self._present_server(start=False))
            except Permanent as error:
                if error.code != "no_notification_service":
                    raise
                (activatable,) = self._bus.call(_BUS, "ListActivatableNames")
                if SERVICE not in activatable:
                    raise
                return "a notification service that starts when needed"

    def close(self) -> None:
        """Let go of the connection for good, interrupting whatever uses it."""
        self._bus.shut()
        if self._lock.acquire(timeout=1.0):
            try:
                self._forget_server()
            finally:
                self._lock.release()

    def _notify(self, **kwargs: Any) -> None:
        """plyer's way in (``notify``); ``timeout`` in seconds, of the hints only ``urgency``."""
        self.show(
            Toast(
                key="",
                title=str(kwargs.get("title", "")),
                body=str(kwargs.get("message", "")),
                app_name=str(kwargs.get("app_name", "")),
                icon=str(kwargs.get("app_icon", "")),
                urgency=int(kwargs.get("hints", {}).get("urgency", 1)),
                expire_ms=int(kwargs.get("timeout", -0.001) * 1000),
            )
        )

    def _present_server(self, *, start: bool = True) -> Server:
        """Who owns the name now, started if need be. The ids of a daemon that is gone are forgotten: in the next one
        they belong to somebody else's toasts."""
        owner = self._owner(start=start)
        if self._server is None or self._server.owner != owner:
            self._ids.clear()
            name, _vendor, version, _spec = self._bus.call(_NOTIFICATIONS, "GetServerInformation")
            (abilities,) = self._bus.call(_NOTIFICATIONS, "GetCapabilities")
            version = version.split(" ")[0]
            self._server = Server(owner=owner, name=name, version=version, markup="body-markup" in abilities)
        return self._server

    def _owner(self, *, start: bool) -> str:
        """The unique name behind the service's. Asked before every notice: it also finds out, while nothing is lost
        yet, that the bus went away since the last one."""
        reused = self._bus.connected
        try:
            return self._ask_owner(start=start)
        except BusLost:
            self._forget_server()
            if not reused:
                raise
        return self._ask_owner(start=start)

    def _ask_owner(self, *, start: bool) -> str:
        try:
            (owner,) = self._bus.call(_BUS, "GetNameOwner", "s", SERVICE)
        except Permanent as error:
            if not start or error.code != "no_notification_service":
                raise
            self._bus.call(_BUS, "StartServiceByName", "su", SERVICE, 0)
            (owner,) = self._bus.call(_BUS, "GetNameOwner", "s", SERVICE)
        return str(owner)

    def _remember(self, key: str, shown_id: int) -> None:
        if not key:
            return
        self._ids[key] = shown_id
        self._ids.move_to_end(key)
        while len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)

    def _forget_server(self) -> None:
        self._bus.drop()
        self._server = None


def _meaning(error: DBusErrorResponse) -> ChannelError:
    """An error reply as the class that says what comes next."""
    name = str(error.name)
    if name.startswith(_NOBODY):
        return Permanent("no_notification_service", "No program on this computer shows notices.")
    if name.startswith(_NO_ANSWER):
        return _no_answer()
    words = error.data[0] if error.data and isinstance(error.data[0], str) else name
    text = f"The notification service refused: {words}"
    return Permanent("refused", text) if name.startswith(_HOPELESS) else Transient("refused", text)


def _no_answer() -> Transient:
    return Transient("timeout", "The notification service did not answer in time.")


def _no_session_bus() -> Permanent:
    return Permanent("no_session_bus", "This computer has no desktop session that can show notices.")
