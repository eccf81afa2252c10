"""E-mail channel through the owner's SMTP server: one recipient per mail, over a pool of connections.

"sent" means that the server accepted the mail (250 after the final dot). If the answer to that dot never came, the
result is unknown: the try counts as transient, and the mail is sent again under the same Message-ID.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.deadline import run_in_thread
from flashflow.backend.delivery.email.message import Letterhead, compose, parse_address, parse_sender
from flashflow.backend.delivery.email.smtp_connection import Connection, Mail
from flashflow.backend.delivery.email.timeouts import SLOW_S, Deadline, Timeouts, longest_s
from flashflow.backend.delivery.net.sockets import stopping
from flashflow.backend.delivery.net.text import bare_host
from flashflow.backend.domain.channel import BaseChannel, ChannelError, Permanent, Transient, accepted
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.settings.model import EmailSettings

PORTS = {"none": 25, "starttls": 587, "tls": 465}
MAILS_EACH = 100
"""Mails after which a connection is closed: servers limit them."""
ASIDE_SHARE = 3
"""Most mails aside, waiting for a slow server, per connection in the settings."""

Resolve = Callable[..., Sequence[Any]]
"""``socket.getaddrinfo`` or a replacement."""


class EmailChannel(BaseChannel):
    """Send each notification as one mail. Thread-safe.

    At most ``settings.connections`` mails are sent at once. A mail that has waited ``slow_s`` seconds for one step
    moves aside: it continues to wait and no longer counts. Connections are closed after ``idle_s`` idle seconds.
    ``ssl_context`` replaces the system's trusted certificates.
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
        self._lookup = Lookup(bare_host(settings.host), self._port, resolve)
        self._pool = Pool(settings, clock, idle_s, slow_s, on_aside=self._report_aside)
        self.lease_ms = round(longest_s(settings) * 1000)
        self._ssl_context = ssl_context
        self._first = threading.Lock()

    @property
    def aside(self) -> int:
        return self._pool.aside

    def _report_aside(self) -> None:
        self.on_aside()  # looked up here: the route queue may set it later

    def close(self) -> None:
        """Close every connection; mails in progress end as ``stopping`` or ``no_answer_after_data``."""
        self._pool.close()
        self._lookup.close()

    def _probe(self) -> str:
        """Check the settings without connecting to the server."""
        _ = self._letterhead  # raises Permanent if the settings prevent every mail
        if self._settings.ca_file is not None and self._settings.security != "none":
            _private_trust(self._settings.ca_file)
        security = {"none": "without TLS", "starttls": "with STARTTLS", "tls": "with TLS"}[self._settings.security]
        return f"{self._settings.host}:{self._port} {security}"

    def _send(self, notification: DeliveryMessage) -> Outcome:
        mail = self._mail(notification)
        timeouts = Timeouts(self._clock, notification.time_limit_s)
        connection = self._pool.borrow(timeouts.start(self._settings.connect_timeout))
        connection.timeouts = timeouts
        try:
            if connection.usable:
                try:
                    connection.check(self._clock.monotonic())
                    return accepted(connection.deliver(mail))
                except ChannelError as error:
                    if connection.begun or error.code in {"timeout", "stopping"}:
                        raise
                # The server closed the idle connection or refuses more mails on it: not a failure of this mail.
                connection = self._pool.replace(connection)
                connection.timeouts = timeouts
            addresses = self._lookup.addresses(timeouts.start(self._settings.connect_timeout))
            connection.open(addresses, self._context)
            return accepted(connection.deliver(mail))
        finally:
            self._pool.give_back(connection)

    def _mail(self, notification: DeliveryMessage) -> Mail:
        letterhead = self._letterhead
        try:
            target = parse_address(notification.target or "")
        except ValueError as error:
            raise Permanent("bad_address", f"The target is not one e-mail address: {error}.") from None
        # Dated now, not at creation: a scheduled or held notification would look old.
        return Mail(letterhead.sender.address, target, compose(notification, letterhead, target, self._clock.now_ms()))

    @cached_property
    def _letterhead(self) -> Letterhead:
        """Headers common to all mails. Raises Permanent if the settings prevent every mail."""
        settings = self._settings
        try:
            sender = parse_sender(settings.sender)
        except ValueError as error:
            raise Permanent("bad_sender", f"The sender is not an e-mail address: {error}.") from None
        try:
            reply_to = None if settings.reply_to is None else parse_sender(settings.reply_to, "Reply-To")
        except ValueError as error:
            raise Permanent("bad_reply_to", f"reply_to is not an address: {error}.") from None
        if settings.username is not None and settings.security == "none" and not _is_this_machine(settings.host):
            raise Permanent("insecure_login", "A password is sent to another machine only over TLS: set security.")
        return Letterhead(sender, reply_to, settings.unsubscribe_url)

    def _context(self) -> ssl.SSLContext:
        """Return the TLS context, created at first use: loading the system's certificates takes time."""
        if self._settings.ca_file is not None and self._ssl_context is None:
            return _private_trust(self._settings.ca_file)  # read again for each connection: the file may change
        with self._first:
            if self._ssl_context is None:
                self._ssl_context = ssl.create_default_context()
            return self._ssl_context


class Pool:
    """Connection pool, last in, first out, so that surplus connections become idle. Thread-safe."""

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
        """Number of lent connections that wait for a slow server and do not count against the limit."""
        return len(self._aside)

    def borrow(self, deadline: Deadline) -> Connection:
        """Return a connection, open or still to be opened. Raises Transient ``busy`` if none became free in time."""
        with self._changed:
            if not self._changed.wait_for(self._has_one, deadline.left()):
                raise Transient("busy", "Every connection to the mail server is in use by other mails.")
            return self._lend(self._idle.pop() if self._idle else self._new())

    def replace(self, spent: Connection) -> Connection:
        """Exchange ``spent`` for a connection still to be opened."""
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
        """Let another mail start while this one waits. Bounded, since servers limit connections."""
        with self._changed:
            if connection in self._aside or len(self._aside) >= ASIDE_SHARE * self._settings.connections:
                return
            self._aside.add(connection)
            self._changed.notify()
        self._on_aside()

    def _lend(self, connection: Connection) -> Connection:
        if self._closed:
            raise stopping()
        self._lent.add(connection)
        return connection

    def _watch(self) -> None:
        """Start the timer that closes the oldest idle connection. The caller holds the lock."""
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
    """Look up a host's addresses, one look-up at a time, shared by its callers. Thread-safe."""

    def __init__(self, host: str, port: int, resolve: Resolve) -> None:
        self._work = partial(resolve, host, port, type=socket.SOCK_STREAM)
        self._lock = threading.Lock()
        self._running: Future[Sequence[Any]] | None = None
        self._closed = False

    def addresses(self, deadline: Deadline) -> Sequence[Any]:
        """Return the rows of ``getaddrinfo``. Raises Transient ``unreachable``, ``timeout`` or ``stopping``."""
        with self._lock:
            if self._closed:
                raise stopping()
            if self._running is None or self._running.done():
                self._running = run_in_thread("email-lookup", self._work)
            running = self._running
        try:
            return running.result(deadline.left())
        except TimeoutError:
            raise deadline.passed() from None
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "invalid host name"
            raise Transient("unreachable", f"The mail server's name was not found: {why}.") from None

    def close(self) -> None:
        """End waiting and later look-ups as ``stopping``."""
        with self._lock:
            self._closed = True
            if self._running is not None:
                with suppress(InvalidStateError):
                    self._running.set_exception(stopping())


def _private_trust(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts only the certificates in a file.

    Raises Transient ``tls_failed``, not Permanent: mails can wait until the owner repairs the file.
    """
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
