"""SMTP connection (RFC 5321) with deadlines and classified errors.

421 → Throttled: the server accepts no mails. Other 4xx → Transient. 5xx → Permanent, including a refused login (535):
further tries could lock the account. Faults that the owner can repair, such as an unreachable server or an invalid
certificate (``tls_failed``), are Transient, so that queued mails are sent afterwards.
"""

from __future__ import annotations

import base64
import re
import selectors
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.delivery.email.message import Address
from flashflow.backend.delivery.email.timeouts import CHECK_S, SLOW_S, Deadline, Overdue, Timeouts
from flashflow.backend.delivery.net.sockets import connect, stopping
from flashflow.backend.delivery.net.text import bare_host
from flashflow.backend.domain.channel import ChannelError, Permanent, Throttled, Transient
from flashflow.backend.settings.model import EmailSettings

CHECK_AFTER_S = 5.0
"""Idle seconds after which a connection is tested before the next mail."""
REPLY_LIMIT = 65_536
TEXT_LIMIT = 300

T = TypeVar("T")
OnSlow = Callable[["Connection"], None]
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""Poll needs no file descriptor of its own and has no limit on descriptor numbers."""
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3} ")


class Mail(NamedTuple):
    """A message with its envelope addresses."""

    sender: Address
    target: Address
    data: bytes

    @property
    def needs_utf8(self) -> bool:
        """Whether an address has a non-ASCII local part, which stands unencoded in a header."""
        return not self.data.isascii()


class Connection(smtplib.SMTP):
    """SMTP connection, opened once and used by one thread at a time; only ``abort`` is for other threads.

    Every method raises ChannelErrors. Reading and writing replace smtplib's, whose timeouts restart with every byte:
    here each step has a deadline. ``on_slow`` is called when a mail has waited ``slow_s`` seconds for one step.
    """

    def __init__(self, settings: EmailSettings, on_slow: OnSlow, slow_s: float = SLOW_S) -> None:
        super().__init__(local_hostname="[127.0.0.1]")  # smtplib would look up the local host name
        self._settings = settings
        self._on_slow = on_slow
        self._slow_s = slow_s
        self._received = bytearray()
        self._readable: selectors.BaseSelector
        self._guard = threading.Lock()
        self._aborted = False
        self._in_transaction = False
        self.timeouts: Timeouts
        self._deadline: Deadline
        self.usable = False
        """Whether the connection is open and in a known state."""
        self.begun = False
        """Whether MAIL of the current mail was accepted."""
        self.mails = 0
        self.idle_since = 0.0

    # --- opening

    def open(self, addresses: Sequence[Any], context: Callable[[], ssl.SSLContext]) -> None:
        """Connect, secure the connection and log in."""
        self._dial(addresses)
        if self._settings.security == "tls":
            self._secure(context())
        self._deadline = self.timeouts.start(self._settings.greeting_timeout)
        self._expect(220, self.getreply())
        self._greet()
        if self._settings.security == "starttls":
            if not self.has_extn("starttls"):
                raise Permanent(
                    "no_starttls", "The mail server does not offer STARTTLS, and nothing is sent without it."
                )
            self._expect(220, self.docmd("STARTTLS"))
            if self._received:  # received before TLS, so possibly injected (CVE-2011-0411)
                raise Transient("tls_failed", "The mail server sent more after its agreement to STARTTLS.")
            self._secure(context())
            self._greet()  # again: extensions offered before TLS are void (RFC 3207, section 4.2)
        if self._settings.username is not None:
            self._log_in(self._settings.username, self._settings.password or "")
        self.usable = True

    def _dial(self, addresses: Sequence[Any]) -> None:
        failure: ChannelError = Transient("unreachable", "The mail server's name has no address.")
        self._deadline = self.timeouts.start(self._settings.connect_timeout)
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            try:
                self._attach(socket.socket(family, kind, protocol))
                share = self._deadline.sooner(1 / (len(addresses) - number))
                connect(self._sock, address, share.left, lambda: self._aborted)
                own = str(self._sock.getsockname()[0]).partition("%")[0]
            except Overdue:
                failure = self._deadline.passed()
            except OSError as error:
                failure = Transient("unreachable", f"The mail server cannot be reached: {error.strerror or error}.")
            else:
                self.local_hostname = f"[IPv6:{own}]" if ":" in own else f"[{own}]"
                return
            self.close()
        raise failure

    def _greet(self) -> None:
        code, reply = self.ehlo()
        if code // 100 == 5:
            code, reply = self.helo()
        self._expect(250, (code, reply))

    def _secure(self, context: ssl.SSLContext) -> None:
        self._deadline = self.timeouts.start(self._settings.connect_timeout)
        try:
            secured = context.wrap_socket(
                self._sock, server_hostname=bare_host(self._settings.host), do_handshake_on_connect=False
            )
            self._attach(secured)
            secured.settimeout(self._deadline.left())
            secured.do_handshake()
            secured.setblocking(False)
        except TimeoutError:
            raise self._deadline.passed() from None
        except (OSError, ValueError) as error:
            if self._aborted:
                raise stopping() from None
            why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
            raise Transient("tls_failed", f"No TLS with the mail server: {why}.") from None

    def _log_in(self, user: str, password: str) -> None:
        """Log in by PLAIN, else LOGIN, once only: smtplib would repeat a refused password with each method."""
        offered = self.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:
            reply = self.docmd("AUTH", f"PLAIN {_plain(user, password)}")
        elif "LOGIN" in offered:
            reply = self.docmd("AUTH", "LOGIN")
            for answer in (user, password):
                if reply[0] == 334:
                    reply = self.docmd(_base64(answer))
        else:
            raise Permanent("no_login", "The mail server offers no login by name and password (PLAIN or LOGIN).")
        self._expect(235, reply)

    # --- mails

    def check(self, now: float) -> None:
        """Raise a ChannelError if the connection cannot take another mail.

        It sends RSET only if the connection was idle for long or its last mail was interrupted.
        """
        self.begun = False
        if self._received:
            raise Transient("connection_lost", "The mail server sent a line without a command.")
        if not self._in_transaction and now - self.idle_since < CHECK_AFTER_S:
            return
        self._deadline = self.timeouts.start(min(CHECK_S, self._settings.command_timeout))
        try:
            self.send(b"RSET\r\n")
            self._expect(250, self.getreply())
        except ChannelError as error:
            raise Transient("connection_lost", error.text) from None
        self._in_transaction = False

    def deliver(self, mail: Mail) -> str:
        """Send a mail; return the text of the server's acceptance."""
        self.begun = False
        if mail.needs_utf8 and not self.has_extn("smtputf8"):
            self.begun = True  # another connection would not help
            raise Permanent("smtputf8_not_offered", "The mail server accepts only ASCII addresses.")
        self.command_encoding = "utf-8" if mail.needs_utf8 else "ascii"
        options = f" SIZE={len(mail.data)}" if "size" in self.esmtp_features else ""
        options += " BODY=8BITMIME SMTPUTF8" if mail.needs_utf8 else ""
        self.mails += 1
        self._in_transaction = True
        self._expect(250, self.docmd("MAIL", f"FROM:<{mail.sender}>{options}"))
        self.begun = True
        self._expect(250, self.docmd("RCPT", f"TO:<{mail.target}>"))
        self._expect(354, self.docmd("DATA"))
        self._deadline = self.timeouts.start(self._settings.data_timeout)
        self.send(mail.data.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        # Servers scan the mail now; a client that leaves too early causes duplicates (RFC 5321, 4.5.3.2.6).
        self._deadline = self.timeouts.start(self._settings.answer_timeout)
        try:
            reply = self.getreply()
        except ChannelError as error:
            text = f"The mail may have arrived: it was sent completely, but then: {error.text}"
            raise Transient("no_answer_after_data", text) from None
        self._in_transaction = False
        self._expect(250, reply)
        return self._reply_text(*reply)

    # --- leaving

    def leave(self) -> None:
        """Send QUIT and close without waiting for the answer."""
        if self.usable:
            self.usable = False
            with suppress(OSError):
                self._sock.settimeout(0.2)
                self._sock.sendall(b"QUIT\r\n")
        self.close()

    def abort(self) -> None:
        """Interrupt the current step. For other threads."""
        with self._guard:
            self._aborted = True
            if self.sock is not None:
                with suppress(OSError):
                    # SSLSocket.shutdown would drop TLS first while the other thread may still write.
                    socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        with self._guard:
            super().close()

    # --- the wire

    @property
    def _sock(self) -> socket.socket:
        if self.sock is None:
            raise OSError("not connected")
        return self.sock

    # A socket with a timeout makes two system calls per step, and each releases the interpreter lock: with a dozen
    # other workers that dominates the cost of a mail. So the socket is non-blocking and waits only where needed.

    def _when_ready(self, step: Callable[[], T], event: int) -> T:
        """Repeat ``step`` until it does not block; without TLS wait for ``event`` in between."""
        while True:
            try:
                return step()
            except BlockingIOError:
                self._wait(event)
            except ssl.SSLWantReadError:
                self._wait(selectors.EVENT_READ)
            except ssl.SSLWantWriteError:
                self._wait(selectors.EVENT_WRITE)

    def _holds_more(self) -> bool:
        """Whether TLS holds decrypted bytes that were not read yet."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def _wait(self, event: int) -> None:
        """Block until the socket is ready. Raises TimeoutError past the deadline."""
        ready = self._readable if event == selectors.EVENT_READ else _watching(self._sock, event)
        if self._in_transaction and self._slow_s < self._deadline.seconds:
            if ready.select(max(0.0, self._slow_s - self._deadline.spent())):
                return
            self._on_slow(self)
        if not ready.select(self._deadline.left()):
            raise TimeoutError

    def _attach(self, sock: socket.socket) -> None:
        with self._guard:
            self.sock = sock
            self._readable = _watching(sock, selectors.EVENT_READ)
            if self._aborted:
                raise stopping()

    def putcmd(self, cmd: str, args: str = "") -> None:
        self._deadline = self.timeouts.start(self._settings.command_timeout)
        super().putcmd(cmd, args)

    def send(self, s: Any) -> None:
        data = s.encode(self.command_encoding) if isinstance(s, str) else s
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._when_ready(lambda left=rest: self._sock.send(left), selectors.EVENT_WRITE) :]  # type: ignore[misc]
        except OSError as error:
            raise self._lost(error) from None

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply; return its code and its lines without the code."""
        lines: list[bytes] = []
        size = 0
        while True:
            line = self._line()
            size += len(line)
            lines.append(line[4:].strip())
            if not line[:3].isdigit() or line[3:4] not in b" -\r\n" or size > REPLY_LIMIT:
                self.usable = False
                raise Transient("bad_reply", "The mail server does not speak SMTP.")
            if line[3:4] != b"-":
                return int(line[:3]), b"\n".join(lines)

    def _line(self) -> bytes:
        while (end := self._received.find(b"\n") + 1) == 0 and len(self._received) <= REPLY_LIMIT:
            try:
                if not self._holds_more():
                    self._wait(selectors.EVENT_READ)
                got = self._when_ready(lambda: self._sock.recv(4096), selectors.EVENT_READ)
            except OSError as error:
                raise self._lost(error) from None
            if not got:
                raise self._lost(None)
            self._received += got
        line = bytes(self._received[: end or None])
        del self._received[: len(line)]
        return line

    def _lost(self, error: OSError | None) -> ChannelError:
        self.usable = False
        if self._aborted:
            return stopping()
        if isinstance(error, TimeoutError):
            return self._deadline.passed()
        return Transient("connection_lost", "The mail server closed the connection.")

    def _expect(self, expected: int, reply: tuple[int, bytes]) -> None:
        """Raise the error that a reply stands for, unless it has the expected code."""
        code = reply[0]
        if code == expected or (code // 100 == 2 and expected == 250):
            return
        text = self._reply_text(*reply)
        if code // 100 not in {4, 5} or code == 421:
            self.usable = False
        if code == 421:
            raise Throttled("smtp_421", text)
        # An enhanced code of 4.x.x (RFC 3463) marks a temporary failure, even with a basic code of 5yz.
        passing = code // 100 == 4 or (_ENHANCED.match(text, 4) is not None and text[4] == "4")
        if code // 100 in {4, 5}:
            raise (Transient if passing else Permanent)(f"smtp_{code}", text)
        raise Transient("bad_reply", f"The mail server sent an unexpected reply: {text}"[:TEXT_LIMIT])

    def _reply_text(self, code: int, reply: bytes) -> str:
        """Return the reply as one line for users, with its enhanced code once and without credentials."""
        first, *more = reply.decode("utf-8", "replace").split("\n")
        enhanced = found[0] if (found := _ENHANCED.match(first)) else ""
        text = " ".join([f"{code} {first}", *(line.removeprefix(enhanced) for line in more)])
        user, password = self._settings.username or "", self._settings.password
        if password:
            for secret in (_plain(user, password), _base64(password), password):
                text = text.replace(secret, "…")
        return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:TEXT_LIMIT]


def _watching(sock: socket.socket, event: int) -> selectors.BaseSelector:
    ready = _Selector()
    ready.register(sock, event)
    return ready


def _plain(user: str, password: str) -> str:
    """Return the initial response of AUTH PLAIN (RFC 4616)."""
    return _base64(f"\0{user}\0{password}")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
