"""Servers for the client's tests: one that knows the key and answers as planned, however badly."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from email.parser import BytesParser
from typing import Any, NamedTuple

KEY = "ff_0123456789abcdefghijklmnopqrstuvwxyzABCD"


class Request(NamedTuple):
    """One request; ``end`` is set when the server stops."""

    method: str
    path: str
    headers: Message
    body: bytes
    socket: socket.socket
    end: threading.Event

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def ids(self) -> list[str]:
        """The ids of a batch."""
        return [row["activity_id"] for row in self.json["activities"]]


Plan = Callable[[Request], bytes | None]
"""Returns the bytes to send, None to hang up."""


def http(status: int, body: dict[str, Any] | bytes, headers: str = "") -> bytes:
    """A response; ``headers`` are lines that end in CRLF."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
    return head.encode() + content


def problem(status: int, code: str, headers: str = "") -> bytes:
    body = {"success": False, "status": status, "code": code, "title": code, "detail": f"It is {code}."}
    return http(status, body, headers)


def accept(request: Request) -> bytes:
    """As FlashFlow answers."""
    if request.path.endswith("/batch"):
        return http(200, {"success": True, "accepted": len(request.ids), "duplicates": 0, "rejected": []})
    if request.path.endswith("/send"):
        return http(201, {"success": True, "notification_id": "n1", "status": "delivered", "deliveries": []})
    return http(200, {"success": True})


class Server:
    """A threaded server on a port of its own. ``plan`` answers requests; ``plans`` come first, one each."""

    def __init__(
        self, plan: Plan, key: str = KEY, *, proves: bool = True, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.plan, self.key, self.proves = plan, key, proves
        self.plans: list[Plan] = []
        self.requests: list[Request] = []
        self.proofs: list[Request] = []
        self.connections = 0
        self._end = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._tls = tls
        self.url = f"http{'' if tls is None else 's'}://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    @property
    def activities(self) -> list[str]:
        """Every activity id that came, in order."""
        return [each for request in self.requests if request.path.endswith("/batch") for each in request.ids]

    def _listen(self) -> None:
        while not self._end.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:  # the client trusts no such certificate
                return
            self._open.append(connection)
        with connection, suppress(OSError), connection.makefile("rb") as file:
            while (line := file.readline()).endswith(b"\n"):
                method, path, _ = line.decode().split()
                head = b""
                while (more := file.readline()).strip():
                    head += more
                headers = BytesParser().parsebytes(head)
                length = int(headers.get("Content-Length", 0))
                if len(body := file.read(length)) < length or not more.endswith(b"\n"):
                    return  # the client has gone
                answer = self._answer(Request(method, path, headers, body, connection, self._end))
                if answer is None:
                    return
                connection.sendall(answer)

    def _answer(self, request: Request) -> bytes | None:
        if request.path == "/api/proof" and self.proves:
            self.proofs.append(request)
            return http(200, {"success": True, "proof": self._proof(request)})
        self.requests.append(request)
        plan = self.plans.pop(0) if self.plans else self.plan
        return plan(request)

    def _proof(self, request: Request) -> str:
        digest = hashlib.sha256(self.key.encode()).digest()
        if request.json["key_id"] != hashlib.sha256(b"id" + digest).hexdigest()[:16]:
            return "unknown"
        message = b"flashflow-proof-1" + bytes.fromhex(request.json["nonce"]) + request.headers["Host"].encode()
        return hmac.new(digest, message, "sha256").hexdigest()

    def close(self) -> None:
        self._end.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@contextmanager
def server(
    plan: Plan = accept, key: str = KEY, *, proves: bool = True, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    running = Server(plan, key, proves=proves, port=port, tls=tls)
    try:
        yield running
    finally:
        running.close()
