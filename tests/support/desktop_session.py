"""A desktop session for tests: a private session bus, and on it a real notification daemon with a screen to draw on.

Nothing of the session the tests run in is used or disturbed.
"""

from __future__ import annotations

import os
import queue
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from jeepney import (
    DBusAddress,
    MatchRule,
    Message,
    MessageType,
    Properties,
    new_error,
    new_method_call,
    new_method_return,
    new_signal,
)
from jeepney.bus import get_bus
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, Proxy, prep_socket
from jeepney.low_level import HeaderFields
from jeepney.wrappers import unwrap_msg

from tests.support.real_parts import require

SERVICE = "org.freedesktop.Notifications"
DEADLINE = 15.0

_NOTIFICATIONS = DBusAddress("/org/freedesktop/Notifications", bus_name=SERVICE, interface=SERVICE)
_DUNST = _NOTIFICATIONS.with_interface("org.dunstproject.cmd0")
_MONITORING = DBusAddress(
    "/org/freedesktop/DBus", bus_name="org.freedesktop.DBus", interface="org.freedesktop.DBus.Monitoring"
)
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={folder}/bus</listen>
  <servicedir>{folder}</servicedir>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


class Shown(NamedTuple):
    """A notice as the daemon keeps it: ``text`` is what it draws, in Pango's markup."""

    id: int
    app: str
    title: str
    body: str
    text: str


class Asked(NamedTuple):
    """A call to the daemon as it went over the bus."""

    member: str
    values: tuple[Any, ...]


class Bus:
    """A private session bus. ``environ`` is what a program of that session would see."""

    def __init__(self, address: str, environ: Mapping[str, str], process: subprocess.Popen[bytes]) -> None:
        self.address = address
        self.environ = environ
        self._process = process

    def connect(self) -> DBusConnection:
        sock = prep_socket(get_bus(self.address))
        try:
            return DBusConnection(sock)
        except BaseException:
            sock.close()
            raise

    def stop(self) -> None:
        """End the bus, as a logout does."""
        _end(self._process)


class Session(Bus):
    """A bus with dunst on it."""

    def __init__(self, bus: Bus, control: DBusConnection, monitor: DBusConnection, choice: Path) -> None:
        super().__init__(bus.address, bus.environ, bus._process)
        self._control = control
        self._monitor = monitor
        self._choice = choice

    def history(self) -> list[Shown]:
        """Every notice the daemon has had, oldest first. Takes those on the screen off it: only then do they count."""
        while self.displayed():
            self._call(new_method_call(_DUNST, "NotificationCloseAll"))
        (kept,) = self._call(new_method_call(_DUNST, "NotificationListHistory"))
        names = ("id", "appname", "summary", "body", "message")
        return sorted(Shown(*(notice[name][1] for name in names)) for notice in kept)

    def displayed(self) -> int:
        """How many notices are on the screen, or wait for room there."""
        counts = [self._call(Properties(_DUNST).get(name))[0][1] for name in ("displayedLength", "waitingLength")]
        return sum(counts)

    def press(self, label: str | None = None) -> None:
        """Press the newest toast on the screen, or the only button of this label there."""
        if label is None:
            self._call(new_method_call(_DUNST, "NotificationAction", "u", (0,)))
        else:
            self._choice.write_text(f"#{label} (")
            self._call(new_method_call(_DUNST, "ContextMenuCall"))

    def dismiss(self) -> None:
        """Wave the newest toast away, as a person does."""
        self._call(new_method_call(_DUNST, "NotificationCloseLast"))

    def next_asked(self, member: str, title: str | None = None) -> Asked:
        """The next call of this method (and with this title) that went to the daemon, waiting for it if need be;
        others are passed over."""
        while True:
            message = self._monitor.receive(timeout=DEADLINE)
            found = message.header.fields.get(HeaderFields.member) == member
            if found and (title is None or message.body[3] == title):
                return Asked(member, tuple(message.body))

    def _call(self, message: Message) -> tuple[Any, ...]:
        return tuple(unwrap_msg(self._control.send_and_get_reply(message, timeout=DEADLINE)))


class SilentDaemon:
    """A notification service that owns the name and answers who it is, but a Notify only once ``answer`` is called."""

    def __init__(self, bus: Bus) -> None:
        self._connection = bus.connect()
        Proxy(message_bus, self._connection, timeout=DEADLINE).RequestName(SERVICE)
        self._unanswered: list[Message] = []
        self._asked = threading.Semaphore(0)
        self.replaced: list[int] = []
        self._thread = threading.Thread(target=self._serve, name="silent-daemon")
        self._thread.start()

    def wait_until_asked(self) -> None:
        assert self._asked.acquire(timeout=DEADLINE), "no Notify came"

    def answer(self, shown_id: int) -> None:
        """Reply to the oldest Notify that still waits."""
        self._connection.send(new_method_return(self._unanswered.pop(0), "u", (shown_id,)))

    def refuse(self, name: str, words: str) -> None:
        """Reply to it with an error."""
        self._connection.send(new_error(self._unanswered.pop(0), name, "s", (words,)))

    def close(self) -> None:
        with suppress(OSError):
            self._connection.sock.shutdown(2)
        self._thread.join(DEADLINE)
        self._connection.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._react(self._connection.receive())

    def _react(self, message: Message) -> None:
        if message.header.message_type is not MessageType.method_call:
            return
        member = message.header.fields[HeaderFields.member]
        if member == "GetServerInformation":
            self._connection.send(new_method_return(message, "ssss", ("silent", "tests", "1.0", "1.2")))
        elif member == "GetCapabilities":
            self._connection.send(new_method_return(message, "as", (["body"],)))
        elif member == "Notify":
            self.replaced.append(message.body[1])
            self._unanswered.append(message)
            self._asked.release()


class StandInDaemon:
    """A notification service that draws nothing, but shows at once, and says whatever it is told to of its toasts.

    ``asked``: the values of every Notify, by the id that it was given. ``closed``: the ids it was asked to close. While
    ``holds`` is set, what it shows is told only by ``tell``.
    """

    def __init__(self, bus: Bus, *abilities: str, first_id: int = 1) -> None:
        self._connection = bus.connect()
        self._abilities = list(abilities)
        self._next_id = first_id
        self.asked: dict[int, tuple[Any, ...]] = {}
        self.closed: list[int] = []
        self.client = ""
        self.holds = False
        self._held: queue.SimpleQueue[Message] = queue.SimpleQueue()
        Proxy(message_bus, self._connection, timeout=DEADLINE).RequestName(SERVICE)
        self._thread = threading.Thread(target=self._serve, name="stand-in-daemon")
        self._thread.start()

    def signal(self, member: str, signature: str, *body: Any, to: str | None = None) -> None:
        """Say it to everybody, or ``to`` one."""
        emit(self._connection, member, signature, *body, to=to)

    def tell(self) -> None:
        """Answer the oldest Notify that was held back, once there is one."""
        self._connection.send(self._held.get(timeout=DEADLINE))

    def release(self) -> None:
        """Give the name up, but stay."""
        self._connection.send(message_bus.ReleaseName(SERVICE))

    def close(self) -> None:
        with suppress(OSError):
            self._connection.sock.shutdown(2)
        self._thread.join(DEADLINE)
        self._connection.close()

    def __enter__(self) -> StandInDaemon:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                message = self._connection.receive()
                if message.header.message_type is MessageType.method_call:
                    reply = self._reply(message)
                    if self.holds and message.header.fields[HeaderFields.member] == "Notify":
                        self._held.put(reply)
                    else:
                        self._connection.send(reply)

    def _reply(self, message: Message) -> Message:
        member = message.header.fields[HeaderFields.member]
        if member == "GetServerInformation":
            return new_method_return(message, "ssss", ("stand-in", "tests", "1.0", "1.2"))
        if member == "GetCapabilities":
            return new_method_return(message, "as", (self._abilities,))
        if member == "CloseNotification":
            self.closed.append(message.body[0])
            return new_method_return(message)
        assert member == "Notify"
        self.client = message.header.fields[HeaderFields.sender]
        shown_id = message.body[1]
        if not shown_id:
            shown_id, self._next_id = self._next_id, self._next_id + 1
        self.asked[shown_id] = tuple(message.body)
        return new_method_return(message, "u", (shown_id,))


def emit(
    connection: DBusConnection, member: str, signature: str, *body: Any, to: str | None = None, interface: str = SERVICE
) -> None:
    """Say something that looks like the notification service's, whoever says it."""
    connection.send(a_signal(member, signature, *body, to=to, interface=interface))


def a_signal(member: str, signature: str, *body: Any, to: str | None = None, interface: str = SERVICE) -> Message:
    """A signal from where the notification service is; ``to`` one, or to everybody."""
    signal = new_signal(_NOTIFICATIONS.with_interface(interface), member, signature, body)
    if to is not None:
        signal.header.fields[HeaderFields.destination] = to
    return signal


def delivered(connection: DBusConnection) -> None:
    """Until the bus has passed on everything that was said over this connection."""
    Proxy(message_bus, connection, timeout=DEADLINE).GetId()


@contextmanager
def session_bus(*, activatable: str | None = None) -> Iterator[Bus]:
    """A bus without a notification daemon; ``activatable`` is the command it runs when one is asked for."""
    require("dbus-daemon")
    with tempfile.TemporaryDirectory(prefix="flashflow-bus-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "bus.conf").write_text(_CONFIG.format(folder=folder))
        if activatable is not None:
            (folder / "notices.service").write_text(f"[D-BUS Service]\nName={SERVICE}\nExec={activatable}\n")
        arguments = ["dbus-daemon", f"--config-file={folder}/bus.conf", "--print-address", "--nofork", "--nopidfile"]
        process = stack.enter_context(_process(arguments, folder, stdout=subprocess.PIPE))
        assert process.stdout is not None
        address = _line(process.stdout.fileno())
        environ = {"DBUS_SESSION_BUS_ADDRESS": address, "HOME": name, "PATH": os.environ["PATH"]}
        yield Bus(address, environ, process)


@contextmanager
def notification_session(*, markup: bool = True) -> Iterator[Session]:
    """A session with dunst showing notices on a virtual screen; ``markup``: whether it reads bodies as markup."""
    require("dbus-daemon", "Xvfb", "dunst")
    with session_bus() as bus, tempfile.TemporaryDirectory(prefix="flashflow-desktop-") as name, ExitStack() as stack:
        folder = Path(name)
        settings = folder / "dunstrc"
        menu, choice = folder / "menu", folder / "choice"
        menu.write_text(f'#!/bin/sh\ngrep -F -- "$(cat {choice})"\n')
        menu.chmod(0o700)
        reads = "full" if markup else "no"
        settings.write_text(f"[global]\nmarkup={reads}\nhistory_length=100\ndmenu={menu}\n")
        control = stack.enter_context(bus.connect())
        environ = {**bus.environ, "DISPLAY": stack.enter_context(_screen(folder))}
        stack.enter_context(_process(["dunst", "-config", str(settings)], folder, environ=environ))
        _wait_for_owner(control)
        monitor = stack.enter_context(bus.connect())
        become = new_method_call(_MONITORING, "BecomeMonitor", "asu", ([f"destination='{SERVICE}'"], 0))
        unwrap_msg(monitor.send_and_get_reply(become, timeout=DEADLINE))
        yield Session(Bus(bus.address, environ, bus._process), control, monitor, choice)


@contextmanager
def _screen(folder: Path) -> Iterator[str]:
    """A virtual X screen; its ``DISPLAY``."""
    ours, theirs = os.pipe()
    try:
        arguments = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
        with _process(arguments, folder, keep_open=theirs):
            yield f":{_line(ours)}"
    finally:
        os.close(ours)
        os.close(theirs)


@contextmanager
def _process(
    arguments: list[str],
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    stdout: int = subprocess.DEVNULL,
    keep_open: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """One of the session's programs, ended on leaving; what it complains of goes to a file in ``folder``."""
    kept = () if keep_open is None else (keep_open,)
    with (folder / f"{arguments[0]}.log").open("wb") as complaints:
        process = subprocess.Popen(arguments, env=environ, stdout=stdout, stderr=complaints, pass_fds=kept)
    try:
        yield process
    finally:
        _end(process)
        if process.stdout is not None:
            process.stdout.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(DEADLINE)


def _line(descriptor: int) -> str:
    """The first line a program writes there, without its end."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], DEADLINE)
        assert ready, "the program did not start in time"
        byte = os.read(descriptor, 1)
        assert byte, "the program ended instead of starting"
        line += byte
    return line.decode().strip()


def _wait_for_owner(connection: DBusConnection) -> None:
    """Until a notification daemon is on the bus."""
    rule = MatchRule(type="signal", interface="org.freedesktop.DBus", member="NameOwnerChanged")
    rule.add_arg_condition(0, SERVICE)
    bus = Proxy(message_bus, connection, timeout=DEADLINE)
    with connection.filter(rule) as changes:
        bus.AddMatch(rule)
        if not bus.NameHasOwner(SERVICE)[0]:
            connection.recv_until_filtered(changes, timeout=DEADLINE)


def until(happened: Callable[[], bool]) -> None:
    """Ask again and again until it is so; fails past the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
