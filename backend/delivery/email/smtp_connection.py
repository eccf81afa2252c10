"""One SMTP connection (RFC 5321) that keeps to a deadline and says of every failure what it means.

421 → Throttled: the server closes shop for all mails. Other 4xx → Transient. 5xx → Permanent, a refused login (535)
too: each further try would be one more towards a locked account. What the owner can repair without touching a mail is
Transient, so that what waited still goes out: an unreachable server, a certificate that does not hold (``tls_failed``).
"""

from __future__ import annotations

import base64
import errno
import os
import re
import selectors
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from flashflow.backend.delivery.email.message import Address
from flashflow.backend.delivery.email.timeouts import SLOW_S, Deadline, Overdue, Timeouts
from flashflow.backend.domain.channel import ChannelError, Permanent, Throttled, Transient
from flashflow.backend.settings.model import EmailSettings

CHECK_AFTER_S = 5.0
"""A connection that was idle for longer is asked whether it still stands before a mail is trusted to it."""
REPLY_LIMIT = 65_536
TEXT_LIMIT = 300

T = TypeVar("T")
OnSlow = Callable[["Connection"], None]
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""It has no file descriptor of its own to close and, where there is poll, takes any number of open files."""
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3} ")


class Mail(NamedTuple):
    """One message on its way."""

    sender: Address
    target: Address
    data: bytes

    @property
    def needs_utf8(self) -> bool:
        """Whether an address has a local part beyond ASCII, which a header shows as it is."""
        return not self.data.isascii()


class Connection(smtplib.SMTP):
    """One SMTP connection, opened once. One thread at a time uses it; only ``abort`` may come from another.

    Everything it does raises ChannelErrors. smtplib's own reading and writing is replaced, since its timeouts start
    afresh with every byte: here each step has a deadline of its own. ``on_slow`` is called where a mail has waited
    ``slow_s`` seconds for one step.
    """

    def __init__(self, settings: EmailSettings, on_slow: OnSlow, slow_s: float = SLOW_S) -> None:
        super().__init__(local_hostname="[127.0.0.1]")  # smtplib would ask the DNS for our name
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
        """Whether it is open and in step with the server."""
        self.begun = False
        """Whether the mail at hand was begun: its MAIL was accepted."""
        self.mails = 0
        self.idle_since = 0.0

    # --- opening

    def open(self, addresses: Sequence[Any], context: Callable[[], ssl.SSLContext]) -> None:
        """From nothing to where mails can be sent."""
        self._dial(addresses)
        if self._settings.security == "tls":
            self._secure(context())
        self._deadline = self.timeouts.greeting()
        self._expect(220, self.getreply())
        self._greet()
        if self._settings.security == "starttls":
            if not self.has_extn("starttls"):
                raise Permanent("no_starttls", "The mail server does not offer STARTTLS, and nothing is sent without.")
            self._expect(220, self.docmd("STARTTLS"))
            if self._received:  # said before TLS, and so by anyone (CVE-2011-0411)
                raise Transient("tls_failed", "The mail server's words went on past its agreement to TLS.")
            self._secure(context())
            self._greet()  # anew: what was offered before TLS does not count (RFC 3207, section 4.2)
        if self._settings.username is not None:
            self._log_in(self._settings.username, self._settings.password or "")
        self.usable = True

    def _dial(self, addresses: Sequence[Any]) -> None:
        failure: ChannelError = Transient("unreachable", "The mail server's name leads nowhere.")
        self._deadline = self.timeouts.connect()
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            try:
                self._attach(socket.socket(family, kind, protocol))
                self._connect(address, self._deadline.sooner(1 / (len(addresses) - number)))
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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

    def _connect(self, address: Any, deadline: Deadline) -> None:
        """In short waits: not every system ends a connect whose socket is shut down by another thread."""
        self._sock.setblocking(False)
        fault = self._sock.connect_ex(address)
        if fault in {errno.EINPROGRESS, errno.EWOULDBLOCK}:
            with selectors.DefaultSelector() as ready:
                ready.register(self._sock, selectors.EVENT_WRITE)
                while not ready.select(min(0.1, deadline.left())) and not self._aborted:
                    pass
            fault = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self._aborted:
            raise self._stopping()
        if fault:
            raise OSError(fault, os.strerror(fault))

    def _greet(self) -> None:
        code, reply = self.ehlo()
        if code // 100 == 5:
            code, reply = self.helo()
        self._expect(250, (code, reply))

    def _secure(self, context: ssl.SSLContext) -> None:
        self._deadline = self.timeouts.connect()
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
                raise self._stopping() from None
            why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
            raise Transient("tls_failed", f"No TLS with the mail server: {why}.") from None

    def _log_in(self, user: str, password: str) -> None:
        """By PLAIN, else LOGIN, and only once: smtplib would offer a refused password again by each method."""
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
        """Raises a ChannelError if it cannot take another mail. The server is asked only if the connection was idle for
        long, or a mail broken off on it."""
        self.begun = False
        if self._received:
            raise Transient("connection_lost", "The mail server had said more than it was asked.")
        if not self._in_transaction and now - self.idle_since < CHECK_AFTER_S:
            return
        self._deadline = self.timeouts.check()
        try:
            self.send(b"RSET\r\n")
            self._expect(250, self.getreply())
        except ChannelError as error:
            raise Transient("connection_lost", error.text) from None
        self._in_transaction = False

    def deliver(self, mail: Mail) -> str:
        """The server's words of acceptance."""
        self.begun = False
        if mail.needs_utf8 and not self.has_extn("smtputf8"):
            self.begun = True  # another connection would not help
            raise Permanent("smtputf8_not_offered", "The mail server takes only addresses of ASCII characters.")
        self.command_encoding = "utf-8" if mail.needs_utf8 else "ascii"
        options = f" SIZE={len(mail.data)}" if "size" in self.esmtp_features else ""
        options += " BODY=8BITMIME SMTPUTF8" if mail.needs_utf8 else ""
        self.mails += 1
        self._in_transaction = True
        self._expect(250, self.docmd("MAIL", f"FROM:<{mail.sender}>{options}"))
        self.begun = True
        self._expect(250, self.docmd("RCPT", f"TO:<{mail.target}>"))
        self._expect(354, self.docmd("DATA"))
        self._deadline = self.timeouts.data()
        self.send(mail.data.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        self._deadline = self.timeouts.answer()
        try:
            reply = self.getreply()
        except ChannelError as error:
            text = f"The mail may have arrived: it was handed over whole, but then: {error.text}"
            raise Transient("no_answer_after_data", text) from None
        self._in_transaction = False
        self._expect(250, reply)
        return self._words(*reply)

    # --- leaving

    def leave(self) -> None:
        """Say goodbye, without waiting for an answer on which nothing depends."""
        if self.usable:
            self.usable = False
            with suppress(OSError):
                self._sock.settimeout(0.2)
                self._sock.sendall(b"QUIT\r\n")
        self.close()

    def abort(self) -> None:
        """From another thread: what it waits for ends now."""
        with self._guard:
            self._aborted = True
            if self.sock is not None:
                with suppress(OSError):
                    # Not SSLSocket's own, which takes off its TLS first while the other thread may still be writing.
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

    # A socket with a timeout asks the system twice for every step, and each question gives the interpreter away: beside
    # a dozen other workers that is what a mail costs. So it never blocks, and is waited for where it has to be.

    def _when_ready(self, step: Callable[[], T], event: int) -> T:
        """``step`` as soon as it can be done; without TLS it waits for ``event``."""
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
        """Whether TLS has read more from the wire than it has given out."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def _wait(self, event: int) -> None:
        """Until the socket is ready; raises TimeoutError where that is past the deadline."""
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
                raise self._stopping()

    def putcmd(self, cmd: str, args: str = "") -> None:
        self._deadline = self.timeouts.command()
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
        """The code, and the lines without it."""
        said: list[bytes] = []
        size = 0
        while True:
            line = self._line()
            size += len(line)
            said.append(line[4:].strip())
            if not line[:3].isdigit() or line[3:4] not in b" -\r\n" or size > REPLY_LIMIT:
                self.usable = False
                raise Transient("bad_reply", "The mail server does not speak SMTP.")
            if line[3:4] != b"-":
                return int(line[:3]), b"\n".join(said)

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
            return self._stopping()
        if isinstance(error, TimeoutError):
            return self._deadline.passed()
        return Transient("connection_lost", "The mail server closed the connection.")

    def _stopping(self) -> Transient:
        return Transient("stopping", "FlashFlow is stopping.")

    def _expect(self, wanted: int, reply: tuple[int, bytes]) -> None:
        """Raises what the answer means, unless it is of the wanted kind."""
        code = reply[0]
        if code == wanted or (code // 100 == 2 and wanted == 250):
            return
        text = self._words(*reply)
        if code // 100 not in {4, 5} or code == 421:
            self.usable = False
        if code == 421:
            raise Throttled("smtp_421", text)
        # An enhanced code of 4.x.x (RFC 3463) says that it may pass, whatever stands before it.
        passing = code // 100 == 4 or (_ENHANCED.match(text, 4) is not None and text[4] == "4")
        if code // 100 in {4, 5}:
            raise (Transient if passing else Permanent)(f"smtp_{code}", text)
        raise Transient("bad_reply", f"The mail server answered out of turn: {text}"[:TEXT_LIMIT])

    def _words(self, code: int, reply: bytes) -> str:
        """What the server said, as one line for people: its enhanced code once, and no secret that it repeats."""
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


def bare_host(host: str) -> str:
    """Without the brackets of an IPv6 address."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _plain(user: str, password: str) -> str:
    """RFC 4616."""
    return _base64(f"\0{user}\0{password}")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
