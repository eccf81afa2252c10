"""A connection to the session bus on Linux, and its errors as the classes that say what comes next."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

from jeepney import (  # type: ignore[import-untyped]
    DBusAddress,
    DBusErrorResponse,
    Message,
    MessageType,
    new_method_call,
)
from jeepney.bus import get_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import DBusConnection, prep_socket  # type: ignore[import-untyped]
from jeepney.wrappers import unwrap_msg  # type: ignore[import-untyped]

from flashflow.backend.domain.channel import ChannelError, Permanent, Transient

Heard = Callable[[Any], None]
"""Takes a message as it comes in."""

_ERROR = "org.freedesktop.DBus.Error."
_NOBODY = (_ERROR + "NameHasNoOwner", _ERROR + "ServiceUnknown", _ERROR + "Spawn.")
_NO_ANSWER = (_ERROR + "NoReply", _ERROR + "Timeout", _ERROR + "TimedOut")
_HOPELESS = (_ERROR + "AccessDenied", _ERROR + "InvalidArgs", _ERROR + "NotSupported", _ERROR + "Unknown")


class BusLost(Transient):
    """The connection broke; the next call opens a new one."""

    def __init__(self) -> None:
        super().__init__("bus_lost", "The connection to the desktop session broke.")


class Connection(DBusConnection):  # type: ignore[misc]
    """jeepney's connection, no call of which waits for ever: not even the Hello that its constructor sends.

    Anybody on the bus may write to anybody: a message that jeepney cannot read (a file descriptor that it did not ask
    for, a header field of the future) is passed over.
    """

    def __init__(self, sock: socket.socket, patience_s: float) -> None:
        self._patience_s = patience_s
        super().__init__(sock)

    def send_and_get_reply(self, message: Any, *, timeout: float | None = None) -> Any:
        return super().send_and_get_reply(message, timeout=self._patience_s if timeout is None else timeout)

    def _receive(self, deadline: float | None) -> Any:
        while True:
            try:
                return super()._receive(deadline)
            except OSError:
                raise
            except Exception:
                if self.parser.next_msg_size is None:
                    raise  # not even its length: there is no telling where the next one begins
                self.parser.next_msg_size = None


class SessionBus:
    """One connection to the session bus, opened at first need and again after the bus went away.

    For one thread at a time; only ``shut`` may come from another.
    """

    def __init__(self, environ: Mapping[str, str], patience_s: float) -> None:
        self._environ = environ
        self._patience_s = patience_s
        self._socket: socket.socket | None = None
        self._connection: Connection | None = None
        self._shut = False

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def call(
        self, target: DBusAddress, member: str, signature: str | None = None, *body: Any, heard: Heard | None = None
    ) -> tuple[Any, ...]:
        """The reply's values; ``heard`` gets the whole of it first, unless it is an error. Raises Permanent
        ``no_session_bus``, ``no_notification_service`` or ``refused``; Transient ``timeout`` or ``refused``; BusLost.
        """
        connection = self._connection or self._connect()
        message = new_method_call(target, member, signature, body)
        try:
            return tuple(unwrap_msg(self._exchange(connection, message, heard)))
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
        self._hang_up()

    def _exchange(self, connection: Connection, message: Message, heard: Heard | None) -> Message:
        reply = connection.send_and_get_reply(message)
        if heard is not None and reply.header.message_type is MessageType.method_return:
            heard(reply)
        return reply

    def _prepare(self, connection: Connection) -> None:
        """What a new connection begins with."""

    def _hang_up(self) -> None:
        """End what another thread is waiting in."""
        if (sock := self._socket) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> Connection:
        if self._shut:
            raise BusLost
        try:
            self._socket = prep_socket(get_bus(self._address()))
            connection = Connection(self._socket, self._patience_s)
            self._connection = connection
            self._prepare(connection)
        except TimeoutError as error:
            self.drop()
            raise _no_answer() from error
        except (OSError, ValueError, RuntimeError, StopIteration, DBusErrorResponse) as error:
            self.drop()
            raise _no_session_bus() from error
        return connection

    def _address(self) -> str:
        """Where the session bus listens; without the variable, where systemd puts it (as sd-bus and GLib look)."""
        if address := self._environ.get("DBUS_SESSION_BUS_ADDRESS"):
            return address
        if runtime_dir := self._environ.get("XDG_RUNTIME_DIR"):
            return f"unix:path={runtime_dir}/bus"
        raise _no_session_bus()


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
