"""The API as one ASGI app: the endpoint table, the documents and the screens behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flashflow.backend.api.framework.context import Services
from flashflow.backend.api.framework.docs_page import page
from flashflow.backend.api.framework.endpoint import AsgiEndpoint, Endpoint
from flashflow.backend.api.framework.openapi import document
from flashflow.backend.api.framework.request_body import drain
from flashflow.backend.api.framework.responses import ApiResponse, encode, error_response, respond
from flashflow.backend.api.framework.router import Router, sub_routes
from flashflow.backend.api.http.limits import INTERNAL
from flashflow.backend.api.http.problem_json import MEDIA_TYPE, problem_bytes
from flashflow.backend.api.routes import (
    activity,
    admin,
    analytics,
    channels,
    data,
    delivery_settings,
    devices,
    metrics,
    notification_types,
    notifications,
    preferences,
    rules,
    schedules,
    templates,
)
from flashflow.backend.api.routes.stream import Stream, StreamQuery


async def _documented(call: object) -> ApiResponse:
    raise NotImplementedError("GET /api/stream is served by Stream")


STREAM = Endpoint(
    method="GET", path="/api/stream", scope="read", handler=_documented, query=StreamQuery,
    summary="Follow events as server-sent events; Last-Event-ID resumes after an event",
    answer="events: notification, notification.updated, activity, session",
)  # fmt: skip
ENDPOINTS = (
    *activity.ENDPOINTS,
    *analytics.ENDPOINTS,
    *notifications.ENDPOINTS,
    *preferences.ENDPOINTS,
    *devices.ENDPOINTS,
    *templates.ENDPOINTS,
    *notification_types.ENDPOINTS,
    *schedules.ENDPOINTS,
    *rules.ENDPOINTS,
    *channels.ENDPOINTS,
    *delivery_settings.ENDPOINTS,
    *data.ENDPOINTS,
    *admin.ENDPOINTS,
    *metrics.ENDPOINTS,
)


class Static:
    """Serve one constant document."""

    def __init__(self, body: bytes, content_type: bytes) -> None:
        headers = ((b"content-type", content_type), (b"content-security-policy", _DOCS_POLICY))
        self._response = ApiResponse(200, body, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, self._response)


_DOCS_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


def make_app(services: Services, screens: ASGIApp | None, url: str) -> ASGIApp:
    """Return one ASGI app with every route, without the guard. ``url``: the server in the OpenAPI document."""
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
        # A path without parameters never matches a pattern (“send” is not a notification id), and a method that it
        # lacks does not fall through to the screens.
        *(Route(path, NotFoundApp()) for path in dict.fromkeys(route.path for route in whole)),
        *(route for route in made if route.param_convertors),
        Route("/api/{rest:path}", NotFoundApp()),
        Mount("/", screens or NotFoundApp()),
    ]
    # Timeouts and errors outside an Endpoint (screens, documents) are problem+json too.
    handlers: Any = {HTTPException: _problem, TimeoutError: _timed_out, Exception: _failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Router(ENDPOINTS, services, app)


def _route(endpoint: Endpoint, app: ASGIApp, below: Mapping[str, frozenset[str]]) -> Route:
    """Return the endpoint's route; a trailing ``:path`` id does not match the sub-routes in ``below``."""
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


class NotFoundApp:
    """Answer 404, or 405 where the address has other methods."""

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
    answer = error_response(error, request.method, request.url.path)
    return Response(answer.body, answer.status, {"cache-control": "no-store"}, MEDIA_TYPE)


async def _failed(_request: Request, _error: Exception) -> Response:
    """Answer 500; Starlette then re-raises the error and uvicorn logs it."""
    return Response(INTERNAL.body(), INTERNAL.status, {"cache-control": "no-store"}, MEDIA_TYPE)


def _allowed(request: Request) -> list[str]:
    """Return the methods that exist at the request's address."""
    path = request.scope["path"]
    routes = [r for r in request.app.routes if isinstance(r, Route) and r.methods and r.path_regex.match(path)]
    exactly = [route for route in routes if route.path == path]
    return sorted({method for route in exactly or routes for method in route.methods or ()})
