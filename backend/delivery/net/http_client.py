"""The client that asks providers over HTTP: one POST, one answer, before a deadline.

It goes straight to httpx's transport, below its client: so there are no redirects, cookies, proxies, ``.netrc``,
decompression (a bomb stays small) and no log line with the URL in it. The sockets are our own (``wire.py``), so that
the deadline holds for the exchange as a whole, and the address is the one that a Resolver allowed.
"""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_tz
from typing import TYPE_CHECKING, Any, cast

import msgspec

from flashflow.backend.core.clock import Clock
from flashflow.backend.delivery.net.sockets import DeadlineSockets, Resolver, stopping
from flashflow.backend.delivery.net.text import cut, one_line
from flashflow.backend.domain.channel import ChannelError, Permanent, Throttled, Transient

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "HttpClient", "Resolver", "json_object", "provider_message", "refusal", "retry_after"]

MAX_BODY = 64 * 1024
"""Bytes of an answer that are read; the rest is left, and the connection with it."""
MAX_TEXT = 300
"""Characters of a provider's words that are kept."""
MAX_RETRY_AFTER_S = 86_400.0
IDLE_S = 60.0
"""How long a connection that nothing is sent over is kept."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RFC850_YEAR = re.compile(r"[0-9]{2}-[A-Za-z]{3}-([0-9]{2}) ")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answered; ``headers`` by lower-case name, ``body`` at most 64 KiB as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends POSTs, ``connections`` of them side by side, and keeps connections open between them. Thread-safe.

    ``http2`` means HTTP/2 and nothing else: by ALPN over TLS, with prior knowledge over plain http. ``deadline_s`` is
    for a whole exchange: waiting for a free connection, looking up, connecting, TLS, sending and receiving.
    With a ``resolver`` every connection goes to the address it pins, while the Host header, SNI and the certificate's
    check stay with the name. ``verify`` is a context that is this client's alone: ALPN is set on it.
    """

    def __init__(
        self,
        *,
        http2: bool = False,
        deadline_s: float = 15.0,
        connections: int = 4,
        resolver: Resolver | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        if http2:  # at DEBUG hpack would log every header, the authorization among them
            logging.getLogger("hpack").setLevel(logging.INFO)
        self._deadline_s = deadline_s
        self._changed = threading.Condition()
        self._closed = False
        tls = _Tls(verify)
        self._lines = tuple(_Line(http2, resolver, tls) for _ in range(connections))
        self._idle = list(self._lines)

    def post(self, url: str, *, headers: Mapping[str, str], content: bytes) -> Answer:
        """The server's answer, whatever its status. Raises Permanent ``bad_url`` or ``bad_header``, what the resolver
        raises, and Transient ``unreachable``, ``timeout``, ``tls_failed``, ``protocol_error`` or ``stopping``."""
        deadline = time.monotonic() + self._deadline_s
        request = _request(url, headers, content)
        line = self._take(deadline)
        try:
            return line.exchange(request, deadline)
        finally:
            self._give_back(line)

    def close(self) -> None:
        """End what is under way, as ``stopping``, and close every connection. May be called twice."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for line in self._lines:
            line.wire.stop()
        for line in idle:
            line.hang_up()

    def _take(self, deadline: float) -> _Line:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle, max(0.0, deadline - time.monotonic()))
            if self._closed:
                raise stopping()
            if not self._idle:
                raise Transient("timeout", "No connection came free in time: every one is waiting for an answer.")
            return self._idle.pop()  # the one used last, whose connection is the likeliest to stand

    def _give_back(self, line: _Line) -> None:
        with self._changed:
            closed = self._closed
            if not closed:
                self._idle.append(line)
                self._changed.notify()
        if closed:
            line.hang_up()


class _Tls:
    """The TLS context of a client, made at first use: reading the certificates takes a while."""

    def __init__(self, verify: ssl.SSLContext | bool) -> None:
        self._verify = verify
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                import httpx

                self._context = httpx.create_ssl_context(self._verify, trust_env=False)
                if self._verify is True:
                    self._context.load_default_certs()  # beside certifi's: what this machine trusts
            return self._context


class _Line:
    """One thread's way out at a time: a transport of httpx, and the wire below it.

    Threads do not share an HTTP/2 connection: httpcore would let one wait for another's read, past its own deadline.
    """

    def __init__(self, http2: bool, resolver: Resolver | None, tls: _Tls) -> None:
        self.wire = DeadlineSockets(resolver)
        self._http2 = http2
        self._tls = tls
        self._transport: httpx.HTTPTransport | None = None

    def exchange(self, request: httpx.Request, deadline: float) -> Answer:
        """One request and its answer; see ``HttpClient.post`` for what it raises."""
        self.wire.deadline = deadline
        try:
            answer, whole = self._answer(request)
        except Exception as error:  # noqa: BLE001 whatever a server made the libraries do is a failure with a name
            self.hang_up()
            raise self._named(error, request.url.raw_host) from None  # theirs may repeat what was sent
        finally:
            self.wire.release()
        if not whole:
            self.hang_up()
        return answer

    def hang_up(self) -> None:
        """Close the connections. Only for the thread that holds this line."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _answer(self, request: httpx.Request) -> tuple[Answer, bool]:
        response = self._opened().handle_request(request)
        try:
            body, whole = _body(cast("Iterable[bytes]", response.stream))
        finally:
            response.close()
        return Answer(status=response.status_code, headers=dict(response.headers.items()), body=body), whole

    def _opened(self) -> httpx.HTTPTransport:
        if self._transport is None:
            import httpx

            limits = httpx.Limits(max_connections=4, max_keepalive_connections=4, keepalive_expiry=IDLE_S)
            self._transport = httpx.HTTPTransport(
                self._tls.context(), trust_env=False, http1=not self._http2, http2=self._http2, limits=limits
            )
            # httpx passes no network on to httpcore's pool, which would take one (``network_backend``).
            pool: Any = self._transport._pool
            pool._network_backend = self.wire
        return self._transport

    def _named(self, error: Exception, raw_host: bytes) -> ChannelError:
        host = raw_host.decode("ascii", "replace")
        if self.wire.stopped:
            return stopping()
        if isinstance(error, ChannelError):
            return error
        if isinstance(error, ssl.SSLError):
            why = getattr(error, "verify_message", "") or (error.reason or "").replace("_", " ").lower()
            return Transient(
                "tls_failed", provider_message(f"No secure connection to {host}: {why or 'the handshake failed'}.")
            )
        if isinstance(error, TimeoutError):
            return Transient("timeout", provider_message(f"{host} did not answer in time."))
        if isinstance(error, OSError):
            why = error.strerror or type(error).__name__
            return Transient("unreachable", provider_message(f"{host} cannot be reached: {why}."))
        words = "did not answer in HTTP, or hung up before it had"
        return Transient("protocol_error", provider_message(f"{host} {words} ({type(error).__name__})."))


def retry_after(answer: Answer, clock: Clock) -> float | None:
    """Seconds to wait by the ``Retry-After`` header, a number or an HTTP date (RFC 9110, section 10.2.3): between 0 and
    a day, None where there is none or it makes no sense."""
    value = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,20}", value):
        return min(float(value), MAX_RETRY_AFTER_S)
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    until = _http_date(value, now)
    return None if until is None else min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _http_date(text: str, now: datetime) -> datetime | None:
    """An HTTP date in any of its three forms (RFC 9110, section 5.6.7), or one of mail's; None for anything else."""
    try:
        parts = parsedate_tz(text)
        if parts is None:
            return None
        year, month, day, hour, minute, second, *_, offset_s = parts
        if match := _RFC850_YEAR.search(text):
            year = now.year // 100 * 100 + int(match[1])
            year -= 100 if year > now.year + 50 else 0
        date = datetime(year, month, day, hour, minute, second - (second == 60), tzinfo=UTC)
        # A date without a zone is UTC, as asctime's form is. Second 60 is a leap second.
        return date + timedelta(seconds=(second == 60) - (offset_s or 0))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def refusal(answer: Answer, clock: Clock, code: str, text: str) -> ChannelError:
    """The error for an answer that says no, by its status alone: 429 is Throttled, 408, 425 and 5xx are Transient (all
    with ``Retry-After``), everything else is Permanent. ``text`` has been through ``said``."""
    if answer.status == 429:
        return Throttled(code, text, retry_after(answer, clock))
    if answer.status in (408, 425) or answer.status >= 500:
        return Transient(code, text, retry_after(answer, clock))
    return Permanent(code, text)


def json_object(answer: Answer) -> dict[str, Any]:
    """The answer's body, a JSON object; empty where it is anything else."""
    try:
        found = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def provider_message(words: object, *secrets: str | None) -> str:
    """A provider's words for people: one line, at most 300 characters, none of ``secrets`` in it; "" if not a text."""
    text = one_line(words[: 20 * MAX_TEXT]) if isinstance(words, str) else ""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "[…]")
    return cut(text, MAX_TEXT)


def _request(url: str, headers: Mapping[str, str], content: bytes) -> httpx.Request:
    import httpx

    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise Permanent("bad_url", "The address is not a URL.") from None
    if parsed.scheme not in ("http", "https") or not parsed.raw_host:
        raise Permanent("bad_url", "The address does not begin with http:// or https:// and a host.")
    if parsed.userinfo:
        raise Permanent("bad_url", "The address has a user name in it.")
    if not 1 <= (parsed.port or 80) <= 65_535:
        raise Permanent("bad_url", "The address has a port that there is not.")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise Permanent("bad_header", f"A header cannot be sent as it is: {provider_message(name)}.")
    ours = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "FlashFlow"}
    given = {name.lower(): value.strip() for name, value in headers.items()}
    return httpx.Request("POST", parsed, headers={**ours, **given}, content=content)


def _body(parts: Iterable[bytes]) -> tuple[bytes, bool]:
    """At most MAX_BODY bytes, and whether that was all."""
    body = bytearray()
    for part in parts:
        body += part
        if len(body) > MAX_BODY:
            return bytes(body[:MAX_BODY]), False
    return bytes(body), True
