"""Connection to the D-Bus session bus on Linux; its errors as ChannelErrors."""

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

OnReply = Callable[[Any], None]
"""Called with a received message."""

_ERROR = "org.freedesktop.DBus.Error."
_NO_SERVICE = (_ERROR + "NameHasNoOwner", _ERROR + "ServiceUnknown", _ERROR + "Spawn.")
_NO_ANSWER = (_ERROR + "NoReply", _ERROR + "Timeout", _ERROR + "TimedOut")
_PERMANENT = (_ERROR + "AccessDenied", _ERROR + "InvalidArgs", _ERROR + "NotSupported", _ERROR + "Unknown")


class BusLost(Transient):
    """The connection broke; the next call opens a new one."""

    def __init__(self) -> None:
        super().__init__("bus_lost", "The connection to the desktop session broke.")


class Connection(DBusConnection):  # type: ignore[misc]
    """jeepney's connection with a time limit for every call, including the Hello in its constructor.

    Any client on the bus can send to any other: messages that jeepney cannot parse (unexpected file descriptors,
    unknown header fields) are skipped.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        super().__init__(sock)

    def send_and_get_reply(self, message: Any, *, timeout: float | None = None) -> Any:
        return super().send_and_get_reply(message, timeout=self._timeout_s if timeout is None else timeout)

    def _receive(self, deadline: float | None) -> Any:
        while True:
            try:
                return super()._receive(deadline)
            except OSError:
                raise
            except Exception:
                if self.parser.next_msg_size is None:
                    raise  # its length is unknown, so the next message cannot be found
                self.parser.next_msg_size = None


class SessionBus:
    """Connection to the session bus, opened at first use and again after it broke.

    For one thread at a time; only ``shut`` is for other threads.
    """

    def __init__(self, environ: Mapping[str, str], timeout_s: float) -> None:
        self._environ = environ
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._connection: Connection | None = None
        self._shut = False

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def call(
        self,
        target: DBusAddress,
        member: str,
        signature: str | None = None,
        *body: Any,
        on_reply: OnReply | None = None,
    ) -> tuple[Any, ...]:
        """Call a method and return the reply's values; ``on_reply`` gets a successful reply message first.

        Raises Permanent ``no_session_bus``, ``no_notification_service`` or ``refused``; Transient ``timeout`` or
        ``refused``; BusLost.
        """
        connection = self._connection or self._connect()
        message = new_method_call(target, member, signature, body)
        try:
            return tuple(unwrap_msg(self._exchange(connection, message, on_reply)))
        except DBusErrorResponse as error:
            raise _channel_error(error) from error
        except TimeoutError as error:
            raise _no_answer() from error
        except OSError as error:
            self.drop()
            raise BusLost from error
        except Exception:
            self.drop()
            raise

    def drop(self) -> None:
        """Close the connection if there is one."""
        connection, self._connection = self._connection, None
        sock, self._socket = self._socket, None
        if connection is not None:
            connection.close()
        if sock is not None:
            sock.close()

    def shut(self) -> None:
        """Fail the call in progress and all later ones with BusLost. For other threads."""
        self._shut = True
        self._hang_up()

    def _exchange(self, connection: Connection, message: Message, on_reply: OnReply | None) -> Message:
        reply = connection.send_and_get_reply(message)
        if on_reply is not None and reply.header.message_type is MessageType.method_return:
            on_reply(reply)
        return reply

    def _prepare(self, connection: Connection) -> None:
        """Set up a new connection; overridden by subclasses."""

    def _hang_up(self) -> None:
        """Shut the socket down, which ends another thread's wait."""
        if (sock := self._socket) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> Connection:
        if self._shut:
            raise BusLost
        try:
            self._socket = prep_socket(get_bus(self._address()))
            connection = Connection(self._socket, self._timeout_s)
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
        """Return the session bus's address: the environment variable, else systemd's default, as in sd-bus and GLib."""
        if address := self._environ.get("DBUS_SESSION_BUS_ADDRESS"):
            return address
        if runtime_dir := self._environ.get("XDG_RUNTIME_DIR"):
            return f"unix:path={runtime_dir}/bus"
        raise _no_session_bus()


def _channel_error(error: DBusErrorResponse) -> ChannelError:
    """Return the ChannelError for an error reply."""
    name = str(error.name)
    if name.startswith(_NO_SERVICE):
        return Permanent("no_notification_service", "No program on this computer shows notifications.")
    if name.startswith(_NO_ANSWER):
        return _no_answer()
    words = error.data[0] if error.data and isinstance(error.data[0], str) else name
    text = f"The notification service refused: {words}"
    return Permanent("refused", text) if name.startswith(_PERMANENT) else Transient("refused", text)


def _no_answer() -> Transient:
    return Transient("timeout", "The notification service did not answer in time.")


def _no_session_bus() -> Permanent:
    return Permanent("no_session_bus", "This computer has no desktop session that can show notifications.")
