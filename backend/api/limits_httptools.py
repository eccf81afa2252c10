"""The limits on uvicorn's httptools protocol."""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from backend.api.limits import NOT_HTTP, Guarded, Refusal, answer_500, malformed, target_fault, too_large


class Cycle(RequestResponseCycle):
    async def send_500_response(self) -> None:
        await answer_500(self)


class Refused(Exception):
    """Raised inside a parser callback to stop the parser; the reason is in the connection's ``fault``."""


class GuardedHttpTools(Guarded, HttpToolsProtocol):
    """``_bytes`` counts what was received since the last whole request: 0 when no part of a next one has come.

    In a segment that holds the end of one request and the beginning of another only the latter's later segments are
    counted. A head that is complete is measured exactly if the count leaves room for doubt.
    """

    _bytes: int = 0
    _in_head: bool = False
    _other_protocol: bool = False

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._bytes += len(data)
        self._feed(data)
        if self._bytes:
            self._received_part()
        elif self.cycle is not None and self.cycle.response_complete:
            self.rest()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._other_protocol:
                self._stay(data[upgrade.args[0] :])
            else:
                self.let_go()
                self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            self.refuse(self.fault or NOT_HTTP)

    def _received_part(self) -> None:
        if self._in_head and self._bytes > self.limits.header_bytes:
            self.refuse(too_large(self.limits.header_bytes))
        elif not self._since:
            self._since = self.loop.time()

    def is_in_body(self) -> bool:
        return not self._in_head

    def on_message_begin(self) -> None:
        self._bytes = self._bytes or 1
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._check_head()
        self._in_head = False
        if self.parser.should_upgrade():
            self._other_protocol = not self._should_upgrade()
            if not self._other_protocol:
                super().on_headers_complete()
            return
        super().on_headers_complete()
        self.cycle.__class__ = Cycle
        self.headers = []  # trailers are collected here, and do not join the headers a handler trusts

    def _check_head(self) -> None:
        hosts = [name for name, _ in self.headers].count(b"host")
        fault = target_fault(self.url, self.parser.get_http_version(), hosts)
        if fault is not None:
            self._stop(malformed(fault))
        if self._bytes > self.limits.header_bytes:
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
        super().on_message_complete()
        self._bytes = 0
        self._since = 0.0

    def _stay(self, rest: bytes) -> None:
        """Answer a request that offers another protocol than WebSocket (Java's client: h2c) as if it did not.

        RFC 9110 section 7.8 wants such an offer ignored. The parser takes it for accepted and skips the body, which
        would then be read as the next request; so the head is read again without the offer.
        """
        self._other_protocol = False
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.refuse(malformed("CONNECT is not served here."))
            return
        head = [b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(b"".join(head) + b"\r\n" + rest)
