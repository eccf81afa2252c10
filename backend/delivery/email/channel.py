"""E-mail through the owner's SMTP server: one recipient each, over a few connections that are used again.

"sent" means that the server took the mail (250 after its last dot). A mail whose fate is unknown, because the answer
to that dot never came, is transient and says so; it goes out again under the same Message-ID.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Any

from flashflow.backend.core.clock import Clock
from flashflow.backend.delivery.email.message import Address, Letterhead, compose, parse_address, parse_sender
from flashflow.backend.delivery.email.smtp_connection import Connection, Mail, bare_host
from flashflow.backend.delivery.email.timeouts import SLOW_S, Deadline, Timeouts, longest_s
from flashflow.backend.domain.channel import (
    BaseChannel,
    ChannelError,
    DeliveryMessage,
    Health,
    Outcome,
    Permanent,
    Transient,
)
from flashflow.backend.settings.model import EmailSettings

PORTS = {"none": 25, "starttls": 587, "tls": 465}
MAILS_EACH = 100
"""After so many mails a connection is closed: servers count, too."""
ASIDE_SHARE = 3
"""How many mails may wait beside the others for a slow server, for each connection of the settings."""

Resolve = Callable[..., Sequence[Any]]
"""``socket.getaddrinfo``, or what answers like it."""


class EmailChannel(BaseChannel):
    """Sends each notice as one mail. Thread-safe.

    At most ``settings.connections`` mails are under way at once. One that has waited ``slow_s`` seconds for a step
    stands aside: it goes on waiting, and its place is free. Connections that were idle for ``idle_s`` seconds are
    closed. ``ssl_context`` replaces the system's trusted certificates.
    """

    name = "email"

    def __init__(
        self,
        settings: EmailSettings,
        clock: Clock,
        *,
        idle_s: float = 30.0,
        slow_s: float = SLOW_S,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._port = settings.port or PORTS[settings.security]
        self._fault = _fault(settings)
        self._letterhead = None if self._fault else _letterhead(settings)
        self._lookup = Lookup(bare_host(settings.host), self._port, resolve)
        self._pool = Pool(settings, clock, idle_s, slow_s, on_aside=self._call_lane)
        self.lease_ms = round(longest_s(settings) * 1000)
        self._ssl_context = ssl_context
        self._first = threading.Lock()

    def health(self) -> Health:
        """What is configured; the server is not asked."""
        if self._fault:
            return Health(works=False, detail=self._fault[1])
        if self._settings.ca_file is not None and self._settings.security != "none":
            try:
                _private_trust(self._settings.ca_file)
            except Transient as error:
                return Health(works=False, detail=error.text)
        security = {"none": "without TLS", "starttls": "with STARTTLS", "tls": "with TLS"}[self._settings.security]
        return Health(works=True, detail=f"{self._settings.host}:{self._port} {security}")

    @property
    def aside(self) -> int:
        return self._pool.aside

    def _call_lane(self) -> None:
        self.on_aside()  # which its lane may set later

    def close(self) -> None:
        """Let go of every connection; mails under way end now, as ``stopping`` or ``no_answer_after_data``."""
        self._pool.close()
        self._lookup.close()

    def _send(self, notice: DeliveryMessage) -> Outcome:
        mail = self._mail(notice)
        timeouts = Timeouts(self._settings, self._clock, notice.patience_s)
        connection = self._pool.borrow(timeouts.connect())
        connection.timeouts = timeouts
        try:
            if connection.usable:
                try:
                    return _accepted(self._delivered_again(connection, mail))
                except ChannelError as error:
                    if connection.begun or error.code in {"timeout", "stopping"}:
                        raise
                # It was closed meanwhile, or the server has had enough of it: that is no failure of this mail.
                connection = self._pool.replace(connection)
                connection.timeouts = timeouts
            connection.open(self._lookup.addresses(timeouts.connect()), self._context)
            return _accepted(connection.deliver(mail))
        finally:
            self._pool.give_back(connection)

    def _delivered_again(self, connection: Connection, mail: Mail) -> str:
        """By a connection that was used before."""
        connection.check(self._clock.monotonic())
        return connection.deliver(mail)

    def _mail(self, notice: DeliveryMessage) -> Mail:
        if self._fault:
            raise Permanent(*self._fault)
        assert self._letterhead is not None
        target = _target(notice.target)
        # Now, not when the notice was made: one that was scheduled or held would look as old as it is.
        data = compose(notice, self._letterhead, target, self._clock.now_ms())
        return Mail(self._letterhead.sender.address, target, data)

    def _context(self) -> ssl.SSLContext:
        """Made at the first need: reading the system's certificates takes its time."""
        if self._settings.ca_file is not None and self._ssl_context is None:
            return _private_trust(self._settings.ca_file)  # read for each connection: it may be renewed
        with self._first:
            if self._ssl_context is None:
                self._ssl_context = ssl.create_default_context()
            return self._ssl_context


class Pool:
    """Connections, each lent to one mail at a time; the last one given back goes out first, so the others can age."""

    def __init__(
        self, settings: EmailSettings, clock: Clock, idle_s: float, slow_s: float, on_aside: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._idle_s = idle_s
        self._slow_s = slow_s
        self._on_aside = on_aside
        self._changed = threading.Condition()
        self._idle: list[Connection] = []
        self._lent: set[Connection] = set()
        self._aside: set[Connection] = set()
        self._timer: threading.Timer | None = None
        self._closed = False

    @property
    def aside(self) -> int:
        """How many lent connections wait for a slow server and take nobody's place."""
        return len(self._aside)

    def borrow(self, deadline: Deadline) -> Connection:
        """One that stands, or one still to be opened. Raises Transient ``busy`` if none came free in time."""
        with self._changed:
            if not self._changed.wait_for(self._has_one, deadline.left()):
                raise Transient("busy", "Every connection to the mail server was taken by other mails.")
            return self._lend(self._idle.pop() if self._idle else self._new())

    def replace(self, spent: Connection) -> Connection:
        """Another for it, still to be opened."""
        spent.leave()
        with self._changed:
            self._lent.discard(spent)
            self._aside.discard(spent)
            return self._lend(self._new())

    def give_back(self, connection: Connection) -> None:
        with self._changed:
            self._lent.discard(connection)
            self._aside.discard(connection)
            room = len(self._idle) + self._active() < self._settings.connections
            kept = room and connection.usable and connection.mails < MAILS_EACH and not self._closed
            if kept:
                connection.idle_since = self._clock.monotonic()
                self._idle.append(connection)
                self._watch()
            self._changed.notify()
        if not kept:
            connection.leave()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            if self._timer is not None:
                self._timer.cancel()
            for connection in self._lent:
                connection.abort()
            self._changed.notify_all()
        for connection in idle:
            connection.leave()

    def _has_one(self) -> bool:
        return self._active() < self._settings.connections or self._closed

    def _active(self) -> int:
        return len(self._lent) - len(self._aside)

    def _new(self) -> Connection:
        return Connection(self._settings, self._stand_aside, self._slow_s)

    def _stand_aside(self, connection: Connection) -> None:
        """Let another mail begin while this one waits; only so many, for servers count connections."""
        with self._changed:
            if connection in self._aside or len(self._aside) >= ASIDE_SHARE * self._settings.connections:
                return
            self._aside.add(connection)
            self._changed.notify()
        self._on_aside()

    def _lend(self, connection: Connection) -> Connection:
        if self._closed:
            raise Transient("stopping", "FlashFlow is stopping.")
        self._lent.add(connection)
        return connection

    def _watch(self) -> None:
        """See to it that the oldest idle connection is closed in time; the lock is held."""
        if self._timer is None and self._idle and not self._closed:
            age = self._clock.monotonic() - self._idle[0].idle_since
            self._timer = threading.Timer(max(0.01, self._idle_s - age), self._close_idle)
            self._timer.daemon = True
            self._timer.start()

    def _close_idle(self) -> None:
        with self._changed:
            last = self._clock.monotonic() - self._idle_s
            old = [connection for connection in self._idle if connection.idle_since <= last]
            self._idle = [connection for connection in self._idle if connection.idle_since > last]
            self._timer = None
            self._watch()
        for connection in old:
            connection.leave()


class Lookup:
    """A host's addresses. ``getaddrinfo`` knows no deadline, so a thread asks, and only one at a time."""

    def __init__(self, host: str, port: int, resolve: Resolve) -> None:
        self._host = host
        self._port = port
        self._resolve = resolve
        self._lock = threading.Lock()
        self._asked: Future[Sequence[Any]] | None = None
        self._closed = False

    def addresses(self, deadline: Deadline) -> Sequence[Any]:
        """As ``getaddrinfo`` gives them. Raises Transient ``unreachable`` or ``timeout``."""
        with self._lock:
            if self._closed:
                raise Transient("stopping", "FlashFlow is stopping.")
            if self._asked is None or self._asked.done():
                self._asked = Future()
                threading.Thread(target=self._ask, args=(self._asked,), name="email-lookup", daemon=True).start()
            asked = self._asked
        try:
            return asked.result(deadline.left())
        except TimeoutError:
            raise deadline.passed() from None
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "that is no host name"
            raise Transient("unreachable", f"The mail server's name was not found: {why}.") from None

    def close(self) -> None:
        """Who waits waits no longer."""
        with self._lock:
            self._closed = True
            if self._asked is not None:
                self._answer(self._asked.set_exception, Transient("stopping", "FlashFlow is stopping."))

    def _ask(self, asked: Future[Sequence[Any]]) -> None:
        try:
            found = self._resolve(self._host, self._port, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 it is raised again where the question was asked
            self._answer(asked.set_exception, error)
        else:
            self._answer(asked.set_result, found)

    def _answer(self, settle: Callable[[Any], None], answer: object) -> None:
        with suppress(InvalidStateError):
            settle(answer)


def _fault(settings: EmailSettings) -> tuple[str, str] | None:
    """What is wrong with the settings, for every mail: the code and the words of a Permanent."""
    try:
        parse_sender(settings.sender)
    except ValueError as error:
        return "bad_sender", f"The sender's address is not one: {error}."
    try:
        parse_sender(settings.reply_to or settings.sender)
    except ValueError as error:
        return "bad_reply_to", f"reply_to is not an address: {error}."
    if settings.username is not None and settings.security == "none" and not _is_this_machine(settings.host):
        return "insecure_login", "A password goes to another machine only over TLS: set security."
    return None


def _letterhead(settings: EmailSettings) -> Letterhead:
    reply_to = None if settings.reply_to is None else parse_sender(settings.reply_to, "Reply-To")
    return Letterhead(parse_sender(settings.sender), reply_to, settings.unsubscribe_url)


def _private_trust(ca_file: str) -> ssl.SSLContext:
    """Trust the certificates in a file alone. Raises Transient ``tls_failed``: mails can wait for its repair."""
    try:
        return ssl.create_default_context(cafile=str(Path(ca_file).expanduser()))
    except ssl.SSLError:
        why = "it holds no certificate in PEM form"
    except OSError as error:
        why = error.strerror or type(error).__name__
    except RuntimeError:
        why = "there is no such home directory"
    raise Transient("tls_failed", f"ca_file cannot be used: {why}.")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(bare_host(host)).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _target(text: str | None) -> Address:
    try:
        return parse_address(text or "")
    except ValueError as error:
        raise Permanent("bad_address", f"That is not one e-mail address: {error}.") from None


def _accepted(words: str) -> Outcome:
    return Outcome(outcome="sent", code="accepted", text=words)
