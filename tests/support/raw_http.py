"""A real uvicorn under our limits in a thread, a small application in it, and a peer that is a bare socket."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvicorn

from flashflow.backend.api.http.connection_limits import Limits
from flashflow.backend.api.http.protocol import http_protocol

PATIENCE = 10.0


class App:
    """A small ASGI application; ``go`` lets its stream end, ``ended`` says that a handler came to its end."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.ended = threading.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})
            return
        handler = getattr(self, scope["path"].strip("/"), self.echo)
        try:
            await handler(scope, receive, send)
        finally:
            self.ended.set()

    async def answer(self, send: Any, body: bytes, status: int = 200, more: bool = False) -> None:
        headers = [] if more else [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def echo(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        names = [name.decode() for name, _ in scope["headers"]]
        await self.answer(send, json.dumps({"path": scope["path"], "body": len(body), "headers": names}).encode())

    async def stream(self, _scope: Any, _receive: Any, send: Any) -> None:
        await self.answer(send, b"first", more=True)
        while not self.go.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"last", "more_body": False})

    async def early(self, _scope: Any, _receive: Any, send: Any) -> None:
        await self.answer(send, b"too much", status=413)

    async def refuse(self, _scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"3"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"big"})

    async def flood(self, _scope: Any, receive: Any, send: Any) -> None:
        gone = asyncio.create_task(self.until_gone(receive))
        await self.answer(send, b"", more=True)
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)

    async def until_gone(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def fail(self, _scope: Any, _receive: Any, _send: Any) -> None:
        raise ValueError("secret")

    async def silent(self, _scope: Any, _receive: Any, _send: Any) -> None:
        return


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The one shape, asserted."""
        assert self.headers["content-type"] == "application/problem+json"
        assert self.headers["connection"] == "close"
        problem: dict[str, Any] = json.loads(self.body)
        assert list(problem) == ["type", "title", "status", "detail", "success", "code"]
        assert problem["status"] == self.status
        assert problem["success"] is False
        assert problem["type"] == f"/docs#errors-{problem['code']}"
        return problem


class Peer:
    def __init__(self, port: int, receive_buffer: int = 0, deadline: float = PATIENCE) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(deadline)
        self.socket.connect(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> Peer:
        self.socket.sendall(data)
        return self

    def drip(self, data: bytes, rest: bytes) -> None:
        """``data``, then ``rest`` byte by byte as long as the server does not answer."""
        self.send(data)
        for byte in rest:
            if select.select([self.socket], [], [], 0.02)[0]:
                return
            self.send(bytes([byte]))
        raise AssertionError("the server took all of it")

    def read(self) -> Answer:
        status = int(self.file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        if headers.get("transfer-encoding") != "chunked":
            return Answer(status, headers, self.file.read(int(headers.get("content-length", 0))))
        return Answer(status, headers, self.read_chunk())

    def read_chunk(self) -> bytes:
        chunk = self.file.read(int(self.file.readline(), 16))
        self.file.readline()
        return chunk

    def is_closed(self) -> bool:
        """Blocks until the server says something or closes."""
        return self.file.read(1) == b""

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class Running:
    def __init__(self, port: int, app: App) -> None:
        self.port, self.app = port, app
        self.peers: list[Peer] = []

    def peer(self, receive_buffer: int = 0) -> Peer:
        self.peers.append(Peer(self.port, receive_buffer))
        return self.peers[-1]

    def leave(self) -> None:
        while self.peers:
            self.peers.pop().close()

    def get(self, path: str = "/echo") -> Answer:
        return self.peer().send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()).read()


@contextmanager
def serving(parser: Any, limits: Limits, keep_alive: int = 5) -> Iterator[Running]:
    app = App()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=http_protocol(limits, parser),
        loop="asyncio" if parser == "h11" else "auto",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    running = Running(listener.getsockname()[1], app)
    try:
        yield running
    finally:
        app.go.set()
        running.leave()
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()
    assert not thread.is_alive(), "a connection kept the server from stopping"


def head(size: int) -> bytes:
    """A request whose line and headers are ``size`` bytes together."""
    start = b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Fill: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"
