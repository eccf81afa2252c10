"""Limits for uvicorn's h11 protocol, used where httptools is not installed."""

from __future__ import annotations

import re
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from flashflow.backend.api.http.limits import (
    LimitedCycle,
    LimitedProtocol,
    Refusal,
    head_fault,
    malformed,
    rebound,
    too_large,
)

_FRAMING = re.compile(rb"^(content-length|transfer-encoding)[ \t]*:", re.IGNORECASE | re.MULTILINE)


class Cycle(LimitedCycle, RequestResponseCycle):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scope["flashflow.peer"] = self.on_response.__self__.peer  # type: ignore[typeddict-unknown-key,attr-defined]


class Connection(h11.Connection):
    """h11 made as strict as llhttp. h11 measures only incomplete heads, and prefers Transfer-Encoding to a length."""

    def __init__(self, header_bytes: int) -> None:
        super().__init__(h11.SERVER, header_bytes)
        self.header_bytes = header_bytes
        self.fault: Refusal | None = None
        self.in_body = False

    def next_event(self) -> Any:
        state = self.their_state
        self.in_body = state is h11.SEND_BODY
        if state is not h11.IDLE:
            return super().next_event()
        received = self.trailing_data[0]
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                self.fault = too_large(self.header_bytes)
            raise
        if type(event) is h11.Request:
            head = received[: len(received) - len(self.trailing_data[0])]
            self.fault = self._fault_of(event, head)
            if self.fault is not None:
                raise h11.RemoteProtocolError(self.fault.detail)
        return event

    def _fault_of(self, request: h11.Request, head: bytes) -> Refusal | None:
        if len(head) > self.header_bytes:
            return too_large(self.header_bytes)
        names = [name for name, _ in request.headers]
        framed = b"content-length" in names or b"transfer-encoding" in names
        if framed and len(_FRAMING.findall(head)) > 1:  # h11 merges equal lengths
            return malformed("The length of the body is given more than once.")
        fault = head_fault(request.target, request.http_version.decode("ascii"), names)
        if fault is None and request.method == b"CONNECT":
            fault = "CONNECT is not served here."
        return malformed(fault) if fault else None


_handle_events = rebound(H11Protocol.handle_events, RequestResponseCycle=Cycle)


class LimitedH11(LimitedProtocol, H11Protocol):
    conn: Connection

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = Connection(self.limits.header_bytes)

    def data_received(self, data: bytes) -> None:
        if self._input_closed:
            self.discard(data)
        else:
            super().data_received(data)

    def on_response_complete(self) -> None:
        if self._lingering:
            self.server_state.total_requests += 1
        else:
            super().on_response_complete()

    def handle_events(self) -> None:
        if self._input_closed:
            return
        self._idle_since = 0.0
        _handle_events(self)
        state = self.conn.their_state
        if state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0]):
            self._since = self._since or self.loop.time()
            return
        self._since = 0.0
        if state is h11.IDLE and self.cycle is not None and self.cycle.response_complete:
            self.start_idle()

    def send_400_response(self, msg: str) -> None:
        self.fault = self.conn.fault
        super().send_400_response(msg)

    def is_in_body(self) -> bool:
        return self.conn.in_body

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        if self.hand_over():
            super().handle_websocket_upgrade(event)
