"""The HTTP thread: one port for the API and, where it is served, the screens."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flashflow.backend.api.framework.context import Services
from flashflow.backend.api.framework.endpoint import Answer, AsgiEndpoint, Endpoint, answer_to, drain, encode, respond
from flashflow.backend.api.framework.guard import Browsers, Guard
from flashflow.backend.api.framework.host_names import HostNames
from flashflow.backend.api.framework.openapi import document, page
from flashflow.backend.api.framework.router import Router, sub_routes
from flashflow.backend.api.http.limits import INTERNAL
from flashflow.backend.api.http.problem_json import MEDIA_TYPE, problem_bytes
from flashflow.backend.api.http.protocol import http_protocol
from flashflow.backend.api.routes import (
    activity,
    admin,
    analytics,
    channels,
    data,
    delivery_settings,
    metrics,
    notifications,
    rules,
    schedules,
)
from flashflow.backend.api.routes.stream import Stream, StreamQuery
from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.supervised_thread import SupervisedThread

log = logging.getLogger(__name__)

STOP_S = 1.5
PORTS_TO_TRY = 50
SEND_BUFFER = 256 * 1024


async def _documented(call: object) -> Answer:
    raise NotImplementedError("the stream answers for itself")


STREAM = Endpoint(
    method="GET", path="/api/stream", scope="read", handler=_documented, query=StreamQuery,
    summary="What happens, as server-sent events; Last-Event-ID goes on where a reader stood",
    answer="events: notification, notification.updated, activity, session",
)  # fmt: skip
ENDPOINTS = (
    *activity.ENDPOINTS,
    *analytics.ENDPOINTS,
    *notifications.ENDPOINTS,
    *schedules.ENDPOINTS,
    *rules.ENDPOINTS,
    *channels.ENDPOINTS,
    *delivery_settings.ENDPOINTS,
    *data.ENDPOINTS,
    *admin.ENDPOINTS,
    *metrics.ENDPOINTS,
)


class Static:
    """One unchanging answer to GET."""

    def __init__(self, body: bytes, content_type: bytes) -> None:
        self._answer = Answer(200, body, ((b"content-type", content_type), (b"content-security-policy", _DOCS_POLICY)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, self._answer)


_DOCS_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


def make_app(services: Services, screens: ASGIApp | None, url: str) -> ASGIApp:
    """Every route as one ASGI app, without the guard, served at ``url``."""
    described = (*ENDPOINTS, STREAM)
    openapi = document(described, url)
    docs = page(described, openapi["components"]["schemas"])
    below = sub_routes(ENDPOINTS)
    made = [
        *(_route(e, AsgiEndpoint(e, services), below) for e in ENDPOINTS),
        Route("/api/stream", Stream(services), methods=["GET"]),
        Route("/openapi.json", Static(encode(openapi), b"application/json"), methods=["GET"]),
        Route("/docs", Static(docs, b"text/html; charset=utf-8"), methods=["GET"]),
    ]
    whole = [route for route in made if not route.param_convertors]
    routes: list[BaseRoute] = [
        *whole,
        # An address without parameters is never read as one that has them (“send” is no notification's id), nor does a
        # method that it lacks lead on to the screens.
        *(Route(path, Nothing()) for path in dict.fromkeys(route.path for route in whole)),
        *(route for route in made if route.param_convertors),
        Route("/api/{rest:path}", Nothing()),
        Mount("/", screens or Nothing()),
    ]
    # A time-out or a fault in what is no Endpoint (the screens, the documents) is told in the same shape.
    handlers: Any = {HTTPException: _problem, TimeoutError: _timed_out, Exception: _failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Router(ENDPOINTS, services, app)


def _route(endpoint: Endpoint, app: ASGIApp, below: Mapping[str, frozenset[str]]) -> Route:
    """The endpoint's route; an id at its end does not reach into the routes ``below`` it."""
    route = Route(endpoint.path, app, methods=[endpoint.method], include_in_schema=False)
    before = endpoint.path.partition("{")[0]
    if endpoint.path.endswith(":path}") and before in below:
        names = "|".join(map(re.escape, sorted(below[before])))
        route.path_regex = re.compile(
            rf"^{re.escape(before)}(?P<{endpoint.path[len(before) + 1 : -6]}>"
            rf"(?!.*/(?:{names})(?:/|$)).*)$",
            re.DOTALL,
        )
    return route


class Nothing:
    """404 for whatever has no route; 405 where another method has one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "There is nothing at this address."})
            return
        raise HTTPException(404)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"cache-control": "no-store"}
    if not await drain(request.receive, request.scope["headers"]):
        headers["connection"] = "close"
    allowed = _allowed(request)
    if allowed:
        body = problem_bytes(
            405, "method_not_allowed", "Not that method", f"{request.url.path} takes {', '.join(allowed)}."
        )
        return Response(body, 405, {"allow": ", ".join(allowed), **headers}, MEDIA_TYPE)
    body = problem_bytes(404, "not_found", "Not found", "There is nothing at this address.")
    return Response(body, 404, headers, MEDIA_TYPE)


async def _timed_out(request: Request, error: Exception) -> Response:
    answer = answer_to(error, request.method, request.url.path)
    return Response(answer.body, answer.status, {"cache-control": "no-store"}, MEDIA_TYPE)


async def _failed(_request: Request, _error: Exception) -> Response:
    """Starlette raises the error again after this answer, and uvicorn logs it."""
    return Response(INTERNAL.body(), INTERNAL.status, {"cache-control": "no-store"}, MEDIA_TYPE)


def _allowed(request: Request) -> list[str]:
    """The methods that the request's address has."""
    path = request.scope["path"]
    routes = [r for r in request.app.routes if isinstance(r, Route) and r.methods and r.path_regex.match(path)]
    exactly = [route for route in routes if route.path == path]
    return sorted({method for route in exactly or routes for method in route.methods or ()})


def bind(host: str, port: int, *, next_free: bool) -> socket.socket:
    """A listening socket on ``host``; ``next_free`` goes on to the next ports when one is in use. Raises PortTaken."""
    tries = range(port, min(port + PORTS_TO_TRY, 65_536)) if next_free and port else [port]
    problem: OSError | None = None
    for candidate in tries:
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            sock = socket.socket(family, socket.SOCK_STREAM)
        except UnicodeError as error:
            raise PortTaken(f"Cannot listen on {host!r}: it is no host name.") from error
        except OSError as error:
            raise PortTaken(f"Cannot listen on {host}: {error.strerror or error}.") from error
        try:
            if sys.platform != "win32":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Its connections inherit it. Left to itself, Linux keeps up to 4 MiB for each client that does not read.
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
    """The port cannot be had, said in one line."""

    code = "port_taken"


_IN_USE = {98, 48, 10048}
"""EADDRINUSE on Linux, macOS and Windows."""


class HttpThread:
    """uvicorn in a thread of its own, on a socket that is already bound."""

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], Awaitable[tuple[ASGIApp, Services]]],
        hosts: HostNames,
        browsers: Browsers | None,
        finish: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._sock = sock
        self._make = make
        self._hosts = hosts
        self._browsers = browsers
        self._finish = finish
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._services: Services | None = None
        self._stopping = threading.Event()
        self.thread = SupervisedThread("flashflow-http", self._run, self._stopping.is_set)

    def start(self) -> None:
        """Return once requests are answered. Raises what kept the server from starting."""
        self.thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End streams and connections, then the thread. Safe to call twice."""
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
            self._failure = error  # it never served: the caller of start hears of it
            self._stopping.set()
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app, services = await self._make()
        self._services = services
        config = uvicorn.Config(
            Guard(app, self._hosts, self._browsers, services.requests),
            http=http_protocol(services.limits, watch=services.watch),
            ws="websockets-sansio" if self._browsers is not None else "none",
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
        # A duplicate: uvicorn closes what it gets, and this one is served again if the thread has to start again.
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._sock.dup()]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        self._ready.set()
        try:
            await serving
        finally:
            if self._finish is not None:
                await self._finish()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
