"""The HTTP server: its port, its thread with uvicorn, and its launch links."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable
from typing import Protocol

import uvicorn
from starlette.types import Receive, Scope, Send

from flashflow.backend.api.app import make_app
from flashflow.backend.api.framework.context import BackendParts, ReadThreads, Services
from flashflow.backend.api.framework.guard import Guard
from flashflow.backend.api.framework.host_names import HostNames, bracketed, is_everywhere
from flashflow.backend.api.framework.launch_links import LaunchLinks
from flashflow.backend.api.http.protocol import http_protocol
from flashflow.backend.core.errors import FlashFlowError, NotFound
from flashflow.backend.core.supervised_thread import SupervisedThread

STOP_S = 1.5
PORTS_TO_TRY = 50
SEND_BUFFER = 256 * 1024


class Screens(Protocol):
    """The screens as an ASGI app, closed when the server stops."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...
    async def close(self) -> None: ...


class HttpServer:
    """Run uvicorn in a thread. The constructor binds the port (raises PortTaken); ``start`` begins to answer."""

    def __init__(self, parts: BackendParts, readers: ReadThreads, screens: Screens | None, started_at: float) -> None:
        config = parts.config
        self._parts = parts
        self._readers = readers
        self._screens = screens
        self._started_at = started_at
        self._sock = bind(config.host, config.port, next_free=config.next_free_port)
        port = self._sock.getsockname()[1]
        name = "127.0.0.1" if is_everywhere(config.host) else config.host
        self.url = f"http://{bracketed(name)}:{port}"
        try:
            self._links = LaunchLinks(parts.data_dir, port, parts.clock) if screens is not None else None
            self._hosts = HostNames(config.host, port, config.allowed_hosts)
        except BaseException:
            self._sock.close()
            raise
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._services: Services | None = None
        self._stopping = threading.Event()
        self.thread = SupervisedThread("flashflow-http", self._run, self._stopping.is_set)

    def new_launch_link(self) -> str:
        """Return a one-time URL that opens the screens in a browser. Raises NotFound without screens."""
        if self._links is None:
            raise NotFound("This server was started with --no-ui.")
        return self.url + self._links.new_link()

    def start(self) -> None:
        """Start the thread and wait until requests are answered. Re-raises the error of a failed start."""
        self.thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End streams and connections, then the thread. A second call does nothing."""
        self._stopping.set()
        loop, server, services = self._loop, self._server, self._services
        if loop is not None and server is not None and services is not None and self.thread.is_alive():
            loop.call_soon_threadsafe(services.stopping.set)
            server.should_exit = True
        if self.thread.ident is not None:
            self.thread.join(STOP_S + 2)
        self._sock.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self._ready.is_set():
                raise
            self._failure = error  # it never served: start raises it
            self._stopping.set()
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        services = Services(self._parts, self._readers, self.new_launch_link, self._started_at)
        app = make_app(services, self._screens, self.url)
        self._services = services
        config = uvicorn.Config(
            Guard(app, self._hosts, self._links, services.requests),
            http=http_protocol(services.limits, watch=services.watch),
            ws="websockets-sansio" if self._links is not None else "none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
            ws_max_size=1024 * 1024,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)
        # A duplicate: uvicorn closes its socket, and a restarted thread serves the original again.
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._sock.dup()]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        self._ready.set()
        try:
            await serving
        finally:
            if self._screens is not None:
                await self._screens.close()


def bind(host: str, port: int, *, next_free: bool) -> socket.socket:
    """Return a listening socket on ``host``; ``next_free`` tries the following ports. Raises PortTaken."""
    tries = range(port, min(port + PORTS_TO_TRY, 65_536)) if next_free and port else [port]
    problem: OSError | None = None
    for candidate in tries:
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            sock = socket.socket(family, socket.SOCK_STREAM)
        except UnicodeError as error:
            raise PortTaken(f"Cannot listen on {host!r}: it is not a host name.") from error
        except OSError as error:
            raise PortTaken(f"Cannot listen on {host}: {error.strerror or error}.") from error
        try:
            if sys.platform != "win32":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit it. By default Linux buffers up to 4 MiB for each client that does not read.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            sock.bind((host, candidate))
            sock.listen(512)
        except OSError as error:
            sock.close()
            problem = error
            continue
        return sock
    raise PortTaken(
        f"Port {port} on {host} is in use. Stop what uses it, choose another with --port, or add --next-free-port."
        if problem is not None and problem.errno in _IN_USE
        else f"Cannot listen on {host}:{port}: {problem.strerror if problem else ''}."
    )


class PortTaken(FlashFlowError):
    """The port cannot be bound; the message is one line."""

    code = "port_taken"


_IN_USE = {98, 48, 10048}
"""EADDRINUSE on Linux, macOS and Windows."""


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
