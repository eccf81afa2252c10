"""The API as one ASGI app: the endpoint table, the documents and the screens behind it."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from flashflow.backend.api.framework.context import Services
from flashflow.backend.api.framework.docs_page import page
from flashflow.backend.api.framework.openapi import document
from flashflow.backend.api.framework.responses import ApiResponse, encode, error_response, respond
from flashflow.backend.api.framework.router import Router
from flashflow.backend.api.http.limits import INTERNAL
from flashflow.backend.api.http.problem_json import MEDIA_TYPE
from flashflow.backend.api.http.request_metrics import RequestMetrics, counting
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
    stream,
    templates,
)

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
    *stream.ENDPOINTS,
)


class Static:
    """Serve one constant document."""

    def __init__(self, requests: RequestMetrics, body: bytes, content_type: bytes) -> None:
        self._requests = requests
        headers = ((b"content-type", content_type), (b"content-security-policy", _DOCS_POLICY))
        self._response = ApiResponse(200, body, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(counting(self._requests, scope, send), self._response)


_DOCS_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


def make_app(services: Services, screens: ASGIApp | None, url: str) -> ASGIApp:
    """Return one ASGI app with every route, without the guard. ``url``: the server in the OpenAPI document."""
    openapi = document(ENDPOINTS, url)
    docs = page(ENDPOINTS, openapi)
    documents = {
        "/openapi.json": Static(services.requests, encode(openapi), b"application/json"),
        "/docs": Static(services.requests, docs, b"text/html; charset=utf-8"),
    }
    return Router(ENDPOINTS, services, documents, None if screens is None else _with_problems(screens))


def _with_problems(screens: ASGIApp) -> ASGIApp:
    """Return ``screens`` with time-outs and errors as problem+json too."""
    handlers: Any = {TimeoutError: _timed_out, Exception: _failed}
    return Starlette(routes=[Mount("/", screens)], exception_handlers=handlers)


async def _timed_out(request: Request, error: Exception) -> Response:
    answer = error_response(error, request.method, request.url.path)
    return Response(answer.body, answer.status, {"cache-control": "no-store"}, MEDIA_TYPE)


async def _failed(_request: Request, _error: Exception) -> Response:
    """Answer 500; Starlette then re-raises the error and uvicorn logs it."""
    return Response(INTERNAL.body(), INTERNAL.status, {"cache-control": "no-store"}, MEDIA_TYPE)
