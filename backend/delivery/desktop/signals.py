"""What the notification daemon tells of the toasts it shows: that one was pressed, that one is gone.

A daemon may tell everybody, or only the connection that asked for the toast (dunst does): so the connection that
listens is also the one that toasts with actions are asked for over. On it a reply and the signals after it come in
order, and a toast is known before anything is heard of it.
https://specifications.freedesktop.org/notification-spec/latest/protocol.html#signals
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import msgspec
from jeepney import HeaderFields, MatchRule, Message, MessageType  # type: ignore[import-untyped]
from jeepney.bus_messages import message_bus  # type: ignore[import-untyped]
from jeepney.wrappers import unwrap_msg  # type: ignore[import-untyped]

from flashflow.backend.delivery.desktop.session_bus import Connection, Heard, SessionBus

log = logging.getLogger(__name__)

SERVICE = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"
BUS = "org.freedesktop.DBus"
DEFAULT_ACTION = "default"
"""The key of what pressing the toast itself does."""
REMEMBERED = 500
"""Of how many notices the daemon's id is kept, so that they can be replaced, withdrawn or pressed."""
AT_ONCE = 8
"""Presses that may be under way: nobody has more fingers, but a daemon gone wild has."""
JOIN_S = 0.5

OnAction = Callable[[str, str | None], object]
"""Called with the notification's id and the link of the button that was pressed; None: the toast itself was."""


class Live(msgspec.Struct):
    """A toast on the screen: whose notification's, shown by whom (a unique name), and its actions' links by key."""

    key: str
    owner: str
    links: Mapping[str, str | None]


class Toasts:
    """Which of the daemon's ids is which notification's toast. Thread-safe, and never longer than ``REMEMBERED``."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._ids: OrderedDict[str, int] = OrderedDict()
        self._live: dict[int, Live] = {}

    def find(self, key: str) -> int:
        """The id of this notification's toast; 0, which is nobody's, where there is none."""
        with self._gate:
            return self._ids.get(key, 0)

    def add(self, shown_id: int, toast: Live) -> None:
        """It is on the screen now. Of one notification there is one toast, and of one id."""
        with self._gate:
            self._drop(self._ids.get(toast.key, 0))
            self._drop(shown_id)
            self._ids[toast.key] = shown_id
            self._live[shown_id] = toast
            while len(self._ids) > REMEMBERED:
                self._drop(next(iter(self._ids.values())))

    def take(self, key: str) -> int:
        """Forget this notification's toast; its id, or 0."""
        with self._gate:
            shown_id = self._ids.get(key, 0)
            self._drop(shown_id)
            return shown_id

    def press(self, owner: str, shown_id: int, action: str) -> tuple[str, str | None] | None:
        """The notification and the link that ``owner`` says were pressed; None where it showed nothing of the kind.
        A toast is pressed once, whatever its daemon says after that, until it is shown anew."""
        with self._gate:
            toast = self._live.get(shown_id)
            if toast is None or toast.owner != owner or action not in toast.links:
                return None
            link = toast.links[action]
            toast.links = {}
            return toast.key, link

    def gone(self, owner: str, shown_id: int) -> None:
        """``owner`` says that it took this toast away: by then the id is no longer ours to use."""
        with self._gate:
            toast = self._live.get(shown_id)
            if toast is not None and toast.owner == owner:
                self._drop(shown_id)

    def keep_only(self, owner: str) -> None:
        """Another daemon than ``owner`` is gone or has nothing to say any more."""
        with self._gate:
            for shown_id in [shown_id for shown_id, toast in self._live.items() if toast.owner != owner]:
                self._drop(shown_id)

    def _drop(self, shown_id: int) -> None:
        toast = self._live.pop(shown_id, None)
        if toast is not None:
            del self._ids[toast.key]


class ListeningBus(SessionBus):
    """A connection of its own for toasts with actions, and a thread that reads whatever comes in over it.

    ``on_action`` is called in a thread of its own for each press of one of ``toasts``.
    """

    def __init__(
        self, environ: Mapping[str, str], patience_s: float, toasts: Toasts, on_action: OnAction | None
    ) -> None:
        super().__init__(environ, patience_s)
        self._toasts = toasts
        self._on_action = on_action
        self._gate = threading.Lock()
        self._waiting: dict[int, tuple[Future[Message], Heard | None]] = {}
        self._reader: threading.Thread | None = None
        self._ended = False
        self._fingers = threading.BoundedSemaphore(AT_ONCE)

    @property
    def offers_actions(self) -> bool:
        """Whether somebody wants to hear of presses."""
        return self._on_action is not None

    def call(self, *args: Any, heard: Heard | None = None) -> tuple[Any, ...]:
        """As ``SessionBus``; ``heard`` is called in the reader's thread, before any later message is looked at, and
        also if the reply comes too late for the caller."""
        if self._ended:
            self.drop()
        return super().call(*args, heard=heard)

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

    def _exchange(self, connection: Connection, message: Message, heard: Heard | None) -> Message:
        future: Future[Message] = Future()
        serial = next(connection.outgoing_serial)
        with self._gate:
            if self._ended:
                raise ConnectionResetError
            self._waiting[serial] = future, heard
        connection.send(message, serial=serial)
        return future.result(self._patience_s)

    # --- the reader's thread --------------------------------------------------------------------------------------

    def _read(self, connection: Connection) -> None:
        try:
            while True:
                self._take(connection.receive())
        except OSError:
            pass  # the bus is gone, or we are: whoever asks next finds out
        except Exception:
            log.exception("the desktop's signals are not heard any more; the next toast begins anew")
        finally:
            self._end_waits()

    def _take(self, message: Message) -> None:
        kind = message.header.message_type
        if kind is MessageType.signal:
            self._hear(message)
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

    def _hear(self, message: Message) -> None:
        """The bus itself writes the sender on a message, so nobody can speak for the daemon; but everybody can send
        us a signal that looks like its."""
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
        if not self._fingers.acquire(blocking=False):
            log.warning("a press on a toast was passed over: %d others are not dealt with yet", AT_ONCE)
            return
        threading.Thread(target=self._act, args=(notification_id, link), name="desktop-action", daemon=True).start()

    def _act(self, notification_id: str, link: str | None) -> None:
        try:
            if self._on_action is not None and not self._shut:
                self._on_action(notification_id, link)
        except Exception:
            log.exception("a press on a toast came to nothing")
        finally:
            self._fingers.release()


def _answer(future: Future[Message], heard: Heard | None, reply: Message) -> None:
    try:
        if heard is not None and reply.header.message_type is MessageType.method_return:
            heard(reply)
    except Exception as error:  # noqa: BLE001 it is raised again where the call was made
        future.set_exception(error)
    else:
        future.set_result(reply)


def _rules() -> list[Any]:
    """What is to be heard: the daemon's two signals, and that there is another daemon."""
    said = [
        MatchRule(type="signal", sender=SERVICE, path=PATH, interface=SERVICE, member=member)
        for member in ("ActionInvoked", "NotificationClosed")
    ]
    changed = MatchRule(type="signal", sender=BUS, interface=BUS, member="NameOwnerChanged")
    changed.add_arg_condition(0, SERVICE)
    return [*said, changed]
