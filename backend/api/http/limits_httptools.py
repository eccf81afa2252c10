"""Limits for uvicorn's httptools protocol."""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from flashflow.backend.api.http.limits import (
    NOT_HTTP,
    LimitedCycle,
    LimitedProtocol,
    Refusal,
    head_fault,
    malformed,
    rebound,
    too_large,
)
from flashflow.backend.api.http.problem_json import WHOLE


class Cycle(LimitedCycle, RequestResponseCycle):
    """uvicorn's request cycle, with a fast path for complete responses (the ASGI extension WHOLE).

    Two messages and the check of every header take a third of the protocol time of a small response. The API's usual
    headers are known to be valid, and its lengths are correct.
    """

    _unbounded = False
    """Whether the response to an HTTP/1.0 client has a body of unknown length."""

    async def send(self, message: Any) -> None:
        if message["type"] != WHOLE:
            if self.scope["http_version"] == "1.0":
                self._until_close(message)
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_started:
            raise RuntimeError("A complete response was sent after another had begun.")
        parts = [STATUS_LINE[message["status"]]]
        for name, value in self.default_headers:
            parts += (name, b": ", value, b"\r\n")
        body: bytes = message["body"]
        parts.append(message["head"])
        parts.append(b"content-length: %d\r\n\r\n" % len(body) if self.keep_alive else _LAST % len(body))
        parts.append(body)
        self.transport.write(b"".join(parts))
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _until_close(self, message: Any) -> None:
        """End a body without a length by closing: HTTP/1.0 has no chunks (RFC 9112 section 7.1)."""
        if message["type"] == "http.response.start":
            self._unbounded = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            if self._unbounded:
                self.chunked_encoding = self.keep_alive = False
        elif self._unbounded:
            self.expected_content_length = len(message.get("body", b""))  # uvicorn counts it down


_LAST = b"content-length: %d\r\nconnection: close\r\n\r\n"
_EXTENSIONS: dict[str, dict[object, object]] = {WHOLE: {}}


class Refused(Exception):
    """Stops the parser from inside a callback; the reason is the connection's ``fault``."""


_PERCENT = ord("%")
_start_request = rebound(HttpToolsProtocol.on_headers_complete, RequestResponseCycle=Cycle)


class LimitedHttpTools(LimitedProtocol, HttpToolsProtocol):
    """The limits on llhttp. ``_bytes`` counts the bytes received since the last complete request.

    A head that begins in the middle of a segment, after another request, is counted from its next segment on and
    measured exactly when complete; so is one whose count may be above the limit.

    This is the hot path: ``data_received``, ``on_message_complete`` and ``on_response_complete`` replace uvicorn's
    methods. The time saved, mainly a timer per response, pays for the checks.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bytes = 0
        self._in_body = False
        self._began_inside = False
        self._other_protocol = False

    def data_received(self, data: bytes) -> None:
        if self._input_closed:
            self.discard(data)
            return
        self._idle_since = 0.0
        self._bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.refuse(self.fault or NOT_HTTP)
            return
        cycle = self.cycle
        if self._bytes or self.scope is not cycle.scope:
            self._received_part()
        elif cycle.response_complete:
            self.start_idle()

    def _received_part(self) -> None:
        if not self._bytes:
            self._bytes = 1
            self._began_inside = True
        if not self._in_body and self._bytes > self.limits.header_bytes:
            self.refuse(too_large(self.limits.header_bytes))
        elif not self._since:
            self._since = self.loop.time()

    def is_in_body(self) -> bool:
        return self._in_body

    def is_queued(self) -> bool:
        return bool(self.pipeline)

    def on_headers_complete(self) -> None:
        plain = self._is_plain()
        if not plain:
            self._check_head()
        if not 0 < self._bytes <= self.limits.header_bytes or self._began_inside:
            self._measure()
        self._in_body = True
        if self.parser.should_upgrade():
            self._other_protocol = not self._should_upgrade()
            if not self._other_protocol:
                if self._is_answering():
                    self._stop(malformed("A WebSocket cannot be requested before the previous response has arrived."))
                super().on_headers_complete()
            return
        self.scope["extensions"] = _EXTENSIONS
        self.scope["flashflow.peer"] = self.peer  # type: ignore[typeddict-unknown-key]
        _start_request(self)
        if not plain:
            if self.scope["http_version"] == "1.0":
                self.cycle.waiting_for_100_continue = False  # RFC 9110 section 10.1.1: Expect is ignored in HTTP/1.0
            self.headers = []  # trailers are collected here, apart from the headers a handler trusts

    def _is_plain(self) -> bool:
        """Whether this head is valid by a quick check (0.3 us; ``_check_head`` takes 0.8).

        Without a Connection or Proxy-Connection header, llhttp keeps only HTTP/1.1 alive.
        """
        url = self.url
        fields = dict(self.headers)
        return (
            b"host" in fields
            and b"connection" not in fields
            and b"proxy-connection" not in fields
            and b"transfer-encoding" not in fields
            and len(fields) == len(self.headers)
            and url[:1] == b"/"
            and _PERCENT not in url
            and url.isascii()
            and self.parser.should_keep_alive()
        )

    def _check_head(self) -> None:
        fault = head_fault(self.url, self.parser.get_http_version(), [name for name, _ in self.headers])
        if fault is not None:
            self._stop(malformed(fault))

    def _measure(self) -> None:
        self._began_inside = False
        size = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n\r\n")
        size += sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        if size > self.limits.header_bytes:
            self._stop(too_large(self.limits.header_bytes))

    def _stop(self, fault: Refusal) -> None:
        self.fault = fault
        raise Refused

    def on_message_complete(self) -> None:
        if self._other_protocol:
            return
        self._in_body = False
        self._bytes = 0
        self._since = 0.0
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._lingering or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if not self.pipeline:
            self.start_idle()
            return
        cycle, app = self.pipeline.pop()
        if cycle.disconnected:  # refused while queued
            self.write_refusal(self.fault or NOT_HTTP)
        else:
            self._start_asgi_task(cycle, app)

    def _upgrade(self, rest: bytes) -> None:
        """Hand over to WebSocket; ignore an offer of another protocol, such as h2c by Java's client.

        RFC 9110 section 7.8: such an offer is ignored. The parser assumes it accepted and skips the body, which would
        be parsed as the next request; so the head is parsed again without the offer.
        """
        if not self._other_protocol:
            if self.hand_over():
                self.handle_websocket_upgrade()
            return
        self._other_protocol = self._in_body = False
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.refuse(malformed("CONNECT is not served here."))
            return
        head = [b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._bytes = 0
        self.data_received(b"".join(head) + b"\r\n" + rest)
