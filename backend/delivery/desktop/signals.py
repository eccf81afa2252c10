"""Signals of the notification daemon: a toast's action was invoked, a toast was closed.

Some daemons (dunst) send signals only to the connection that created the toast, so toasts with actions are sent over
the connection that listens. On it a reply precedes the signals of its toast, so the toast is registered first.
https://specifications.freedesktop.org/notification-spec/latest/protocol.html#signals
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import msgspec
from jeepney import HeaderFields, MatchRule, Message, MessageType  # type: ignore[import-untyped]
from jeepney.bus_messages import message_bus  # type: ignore[import-untyped]
from jeepney.wrappers import unwrap_msg  # type: ignore[import-untyped]

from flashflow.backend.delivery.desktop.session_bus import Connection, OnReply, SessionBus

log = logging.getLogger(__name__)

SERVICE = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"
BUS = "org.freedesktop.DBus"
DEFAULT_ACTION = "default"
"""Action key of a click on the toast itself."""
REMEMBERED = 500
"""Most toasts whose daemon ids are kept for replacement, dismissal and actions."""
AT_ONCE = 8
"""Most concurrent actions, against a misbehaving daemon."""
JOIN_S = 0.5

OnAction = Callable[[str, str | None], object]
"""Called with the notification's id and the link of the clicked button; None for the toast itself."""


class Live(msgspec.Struct):
    """A toast on the screen: its daemon's id for it and unique bus name, links of its actions by key."""

    shown_id: int
    owner: str
    links: Mapping[str, str | None]


class Toasts:
    """Toasts on the screen by notification id, at most ``REMEMBERED``, the oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._live: dict[str, Live] = {}

    def find(self, key: str) -> int:
        """Return the id of this notification's toast; 0, which is never an id, if there is none."""
        with self._gate:
            return self._live[key].shown_id if key in self._live else 0

    def add(self, key: str, toast: Live) -> None:
        """Register a shown toast, replacing earlier entries of its notification and of its id."""
        with self._gate:
            self._live.pop(key, None)
            self._live = {other: live for other, live in self._live.items() if live.shown_id != toast.shown_id}
            self._live[key] = toast
            if len(self._live) > REMEMBERED:
                del self._live[next(iter(self._live))]

    def take(self, key: str) -> int:
        """Remove this notification's toast; return its id, or 0."""
        with self._gate:
            toast = self._live.pop(key, None)
            return 0 if toast is None else toast.shown_id

    def press(self, owner: str, shown_id: int, action: str) -> tuple[str, str | None] | None:
        """Return the notification id and link of an action that ``owner`` reports; None if it shows no such action.

        Each shown toast reports one action only.
        """
        with self._gate:
            for key, toast in self._live.items():
                if (toast.shown_id, toast.owner) == (shown_id, owner) and action in toast.links:
                    link = toast.links[action]
                    toast.links = {}
                    return key, link
            return None

    def gone(self, owner: str, shown_id: int) -> None:
        """Remove a toast that ``owner`` reports as closed: the daemon may use its id again."""
        with self._gate:
            closed = (shown_id, owner)
            self._live = {key: live for key, live in self._live.items() if (live.shown_id, live.owner) != closed}

    def keep_only(self, owner: str) -> None:
        """Remove the toasts of every daemon but ``owner``."""
        with self._gate:
            self._live = {key: live for key, live in self._live.items() if live.owner == owner}


class ListeningBus(SessionBus):
    """Separate bus connection for toasts with actions, with a thread that reads its messages.

    ``on_action`` is called in a new thread for each action on one of ``toasts``.
    """

    def __init__(
        self, environ: Mapping[str, str], timeout_s: float, toasts: Toasts, on_action: OnAction | None
    ) -> None:
        super().__init__(environ, timeout_s)
        self._toasts = toasts
        self.on_action = on_action
        self._gate = threading.Lock()
        self._waiting: dict[int, tuple[Future[Message], OnReply | None]] = {}
        self._reader: threading.Thread | None = None
        self._ended = False
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    def call(self, *args: Any, on_reply: OnReply | None = None) -> tuple[Any, ...]:
        """Call a method as ``SessionBus`` does.

        ``on_reply`` is called in the reader thread before any later message is handled, even if the caller timed out.
        """
        if self._ended:
            self.drop()
        return super().call(*args, on_reply=on_reply)

    def drop(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            self._hang_up()
            reader.join(JOIN_S)
        super().drop()

    def _prepare(self, connection: Connection) -> None:
        for rule in _rules():
            unwrap_msg(connection.send_and_get_reply(message_bus.AddMatch(rule)))
        self._ended = False
        self._reader = threading.Thread(target=self._read, args=(connection,), name="desktop-signals", daemon=True)
        self._reader.start()

    def _exchange(self, connection: Connection, message: Message, on_reply: OnReply | None) -> Message:
        future: Future[Message] = Future()
        serial = next(connection.outgoing_serial)
        with self._gate:
            if self._ended:
                raise ConnectionResetError
            self._waiting[serial] = future, on_reply
        connection.send(message, serial=serial)
        return future.result(self._timeout_s)

    # --- the reader's thread --------------------------------------------------------------------------------------

    def _read(self, connection: Connection) -> None:
        try:
            while True:
                self._take(connection.receive())
        except OSError:
            pass  # disconnected; the next call reconnects
        except Exception:
            log.exception("reading desktop signals failed; the next toast reconnects")
        finally:
            self._end_waits()

    def _take(self, message: Message) -> None:
        kind = message.header.message_type
        if kind is MessageType.signal:
            self._handle_signal(message)
        elif kind in (MessageType.method_return, MessageType.error):
            with self._gate:
                waiting = self._waiting.pop(message.header.fields.get(HeaderFields.reply_serial, 0), None)
            if waiting is not None:
                _answer(*waiting, message)

    def _end_waits(self) -> None:
        with self._gate:
            self._ended = True
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for future, _ in waiting:
            future.set_exception(ConnectionResetError())

    def _handle_signal(self, message: Message) -> None:
        """Handle a signal.

        Any client can send one, so its sender, which the bus writes, is compared with the toast's daemon.
        """
        fields = message.header.fields
        sender = fields.get(HeaderFields.sender, "")
        match fields.get(HeaderFields.interface), fields.get(HeaderFields.member), fields.get(HeaderFields.signature):
            case (str(interface), "ActionInvoked", "us") if interface == SERVICE:
                pressed = self._toasts.press(sender, *message.body)
                if pressed is not None:
                    self._start(*pressed)
            case (str(interface), "NotificationClosed", "uu") if interface == SERVICE:
                self._toasts.gone(sender, message.body[0])
            case (str(interface), "NameOwnerChanged", "sss") if interface == sender == BUS:
                name, _before, owner = message.body
                if name == SERVICE:
                    self._toasts.keep_only(owner)

    def _start(self, notification_id: str, link: str | None) -> None:
        if not self._slots.acquire(blocking=False):
            log.warning("an action on a toast was ignored: %d others are still running", AT_ONCE)
            return
        threading.Thread(target=self._act, args=(notification_id, link), name="desktop-action", daemon=True).start()

    def _act(self, notification_id: str, link: str | None) -> None:
        try:
            if self.on_action is not None and not self._shut:
                self.on_action(notification_id, link)
        except Exception:
            log.exception("an action on a toast failed")
        finally:
            self._slots.release()


def _answer(future: Future[Message], on_reply: OnReply | None, reply: Message) -> None:
    try:
        if on_reply is not None and reply.header.message_type is MessageType.method_return:
            on_reply(reply)
    except Exception as error:  # noqa: BLE001 it is raised again where the call was made
        future.set_exception(error)
    else:
        future.set_result(reply)


def _rules() -> list[Any]:
    """Return the match rules: the daemon's two signals and the change of the daemon."""
    signals = [
        MatchRule(type="signal", sender=SERVICE, path=PATH, interface=SERVICE, member=member)
        for member in ("ActionInvoked", "NotificationClosed")
    ]
    changed = MatchRule(type="signal", sender=BUS, interface=BUS, member="NameOwnerChanged")
    changed.add_arg_condition(0, SERVICE)
    return [*signals, changed]
