"""HTTP client for providers: one POST and its answer within a deadline.

It uses httpx's transport directly, not its client: no redirects, cookies, proxies, ``.netrc`` or decompression (no
decompression bombs), and no log line with the URL. The sockets are those of ``sockets.py``: one deadline covers the
whole exchange, and connections go only to addresses that the resolver allowed.
"""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_tz
from typing import TYPE_CHECKING, Any, cast

import msgspec

from flashflow.backend.core.clock import Clock
from flashflow.backend.delivery.net.sockets import DeadlineSockets, stopping
from flashflow.backend.delivery.net.ssrf_guard import SsrfGuard
from flashflow.backend.delivery.net.text import cut, one_line
from flashflow.backend.domain.channel import BaseChannel, ChannelError, Permanent, Throttled, Transient

if TYPE_CHECKING:
    import httpx

MAX_BODY = 64 * 1024
"""Most bytes of a body that are read; after a longer one the connection is closed."""
MAX_TEXT = 300
"""Most characters kept of a provider's message."""
MAX_RETRY_AFTER_S = 86_400.0
IDLE_S = 60.0
"""Seconds after which an idle connection is closed."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RFC850_YEAR = re.compile(r"[0-9]{2}-[A-Za-z]{3}-([0-9]{2}) ")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A server's answer; ``headers`` by lower-case name, ``body`` at most 64 KiB, not decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json_object(self) -> dict[str, Any]:
        """Decode the body as a JSON object; return an empty one if it is anything else."""
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def retry_after_s(self, clock: Clock) -> float | None:
        """Return the seconds of the ``Retry-After`` header, a number or an HTTP date (RFC 9110, section 10.2.3).

        At most a day; None if it is missing or invalid.
        """
        value = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,20}", value):
            return min(float(value), MAX_RETRY_AFTER_S)
        now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
        until = _http_date(value, now)
        return None if until is None else min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)

    def refusal(self, clock: Clock, code: str, text: str) -> ChannelError:
        """Return the error for an unsuccessful answer by its status. ``text`` must come from ``provider_message``.

        429 is Throttled, 408, 425 and 5xx are Transient, all with ``Retry-After``; others are Permanent.
        """
        if self.status == 429:
            return Throttled(code, text, self.retry_after_s(clock))
        if self.status in (408, 425) or self.status >= 500:
            return Transient(code, text, self.retry_after_s(clock))
        return Permanent(code, text)


class HttpClient:
    """Send POST requests, at most ``connections`` at once, over persistent connections. Thread-safe.

    ``http2``: HTTP/2 only, by ALPN over TLS and with prior knowledge over plain http. ``deadline_s``: seconds for a
    whole exchange, from waiting for a free connection to the end of the answer. ``resolver``: gives the address of each
    connection; Host header, SNI and certificate check keep the name. ``verify``: a context used by this client only,
    since ALPN is set on it.
    """

    def __init__(
        self,
        *,
        http2: bool = False,
        deadline_s: float = 15.0,
        connections: int = 4,
        resolver: SsrfGuard | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        if http2:  # at DEBUG hpack logs every header, including authorization
            logging.getLogger("hpack").setLevel(logging.INFO)
        self._deadline_s = deadline_s
        self._changed = threading.Condition()
        self._closed = False
        self._verify = verify
        self._tls_lock = threading.Lock()
        self._connections = tuple(_Connection(http2, resolver, self._tls) for _ in range(connections))
        self._idle = list(self._connections)

    def post(self, url: str, *, headers: Mapping[str, str], content: bytes) -> Answer:
        """Return the server's answer of any status.

        Raises Permanent ``bad_url`` or ``bad_header``; Transient ``unreachable``, ``timeout``, ``tls_failed``,
        ``protocol_error`` or ``stopping``; and any error of the resolver.
        """
        deadline = time.monotonic() + self._deadline_s
        request = _request(url, headers, content)
        connection = self._take(deadline)
        try:
            return connection.exchange(request, deadline)
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """End exchanges in progress as ``stopping`` and close every connection. Idempotent."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for connection in self._connections:
            connection.sockets.stop()
        for connection in idle:
            connection.disconnect()

    def _tls(self) -> ssl.SSLContext:
        """Return the TLS context, created at first use: loading the certificates takes time."""
        with self._tls_lock:
            if not isinstance(self._verify, ssl.SSLContext):
                import httpx

                context = httpx.create_ssl_context(self._verify, trust_env=False)
                if self._verify:
                    context.load_default_certs()  # in addition to certifi's: those of this machine
                self._verify = context
            return self._verify

    def _take(self, deadline: float) -> _Connection:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle, max(0.0, deadline - time.monotonic()))
            if self._closed:
                raise stopping()
            if not self._idle:
                raise Transient("timeout", "No connection became free in time: all are waiting for an answer.")
            return self._idle.pop()  # the one used last: most likely still connected

    def _give_back(self, connection: _Connection) -> None:
        with self._changed:
            closed = self._closed
            if not closed:
                self._idle.append(connection)
                self._changed.notify()
        if closed:
            connection.disconnect()


class HttpChannel(BaseChannel):
    """Channel that sends over ``_client``."""

    _client: HttpClient

    def close(self) -> None:
        """End sends in progress and fail later ones as ``stopping``."""
        self._client.close()


class _Connection:
    """An httpx transport and its sockets, used by one thread at a time.

    Threads do not share an HTTP/2 connection: in httpcore one would wait for the read of another, past its deadline.
    """

    def __init__(self, http2: bool, resolver: SsrfGuard | None, tls: Callable[[], ssl.SSLContext]) -> None:
        self.sockets = DeadlineSockets(resolver)
        self._http2 = http2
        self._tls = tls
        self._transport: httpx.HTTPTransport | None = None

    def exchange(self, request: httpx.Request, deadline: float) -> Answer:
        """Send one request and return its answer. Raises as ``HttpClient.post`` does."""
        self.sockets.deadline = deadline
        try:
            answer, complete = self._answer(request)
        except Exception as error:  # noqa: BLE001 a server can make the libraries raise anything
            self.disconnect()
            raise self._channel_error(error, request.url.raw_host) from None  # its text may contain the request
        finally:
            self.sockets.release()
        if not complete:
            self.disconnect()
        return answer

    def disconnect(self) -> None:
        """Close the connections. Only for the thread that uses them."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _answer(self, request: httpx.Request) -> tuple[Answer, bool]:
        response = self._opened().handle_request(request)
        try:
            body, complete = _body(cast("Iterable[bytes]", response.stream))
        finally:
            response.close()
        return Answer(status=response.status_code, headers=dict(response.headers.items()), body=body), complete

    def _opened(self) -> httpx.HTTPTransport:
        if self._transport is None:
            import httpx

            limits = httpx.Limits(max_connections=4, max_keepalive_connections=4, keepalive_expiry=IDLE_S)
            self._transport = httpx.HTTPTransport(
                self._tls(), trust_env=False, http1=not self._http2, http2=self._http2, limits=limits
            )
            # httpx does not pass a ``network_backend`` on to httpcore's pool.
            pool: Any = self._transport._pool
            pool._network_backend = self.sockets
        return self._transport

    def _channel_error(self, error: Exception, raw_host: bytes) -> ChannelError:
        host = raw_host.decode("ascii", "replace")
        if self.sockets.stopped:
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
        words = "did not answer in HTTP, or closed the connection before it had"
        return Transient("protocol_error", provider_message(f"{host} {words} ({type(error).__name__})."))


def _http_date(text: str, now: datetime) -> datetime | None:
    """Parse an HTTP date in any of its three forms (RFC 9110, section 5.6.7) or a mail date; None if invalid."""
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


def provider_message(words: object, *secrets: str | None) -> str:
    """Return a provider's text as one line of at most 300 characters without ``secrets``; "" if it is not a string."""
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
        raise Permanent("bad_url", "The address must begin with http:// or https:// and a host.")
    if parsed.userinfo:
        raise Permanent("bad_url", "The address must not contain a user name.")
    if not 1 <= (parsed.port or 80) <= 65_535:
        raise Permanent("bad_url", "The port must be between 1 and 65535.")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise Permanent("bad_header", f"A header contains invalid characters: {provider_message(name)}.")
    ours = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "FlashFlow"}
    given = {name.lower(): value.strip() for name, value in headers.items()}
    return httpx.Request("POST", parsed, headers={**ours, **given}, content=content)


def _body(parts: Iterable[bytes]) -> tuple[bytes, bool]:
    """Read at most MAX_BODY bytes; return them and whether the body ended there."""
    body = bytearray()
    for part in parts:
        body += part
        if len(body) > MAX_BODY:
            return bytes(body[:MAX_BODY]), False
    return bytes(body), True
