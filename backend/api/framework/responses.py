"""Response objects, problem+json refusals and the ASGI messages that send them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from flashflow.backend.api.framework.serializers import with_times_as_text
from flashflow.backend.api.http.problem_json import MEDIA_TYPE, problem_bytes, problem_of
from flashflow.backend.core.errors import FlashFlowError

log = logging.getLogger(__name__)

JSON = b"application/json"
Headers = list[tuple[bytes, bytes]]
encode = msgspec.json.Encoder().encode


class ApiResponse(msgspec.Struct, frozen=True):
    """Status, encoded body, and headers in addition to those that ``respond`` sets."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class StreamedResponse(ApiResponse, frozen=True, kw_only=True):
    """A response produced while it is sent: ``go`` sends all of it, including the head."""

    go: Callable[[Scope, Receive, Send], Awaitable[None]]


def success(status: int = 200, /, **payload: Any) -> ApiResponse:
    """Return ``{"success": true, …}`` with ``payload``: records, lists of records, and what the encoder takes."""
    fields = {name: with_times_as_text(value) for name, value in payload.items()}
    return ApiResponse(status, encode({"success": True, **fields}))


def refusal(error: FlashFlowError) -> ApiResponse:
    """Return the problem+json response for ``error``."""
    status, body = problem_of(error)
    headers: list[tuple[bytes, bytes]] = [(b"content-type", MEDIA_TYPE.encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="FlashFlow"'))
    elif status == 429:
        headers.append((b"retry-after", b"1"))
    return ApiResponse(status, body, tuple(headers))


def error_response(error: Exception, method: str, path: str) -> ApiResponse:
    """Return the problem+json response for any exception of a request; unexpected ones are logged and become a 500."""
    if isinstance(error, FlashFlowError):
        return refusal(error)
    if isinstance(error, TimeoutError):
        changed = "Nothing was changed." if method in {"GET", "HEAD"} else "It may or may not have been written."
        return ApiResponse(504, problem_bytes(504, "timeout", "No answer in time", changed))
    log.error("%s %s failed", method, path, exc_info=error)
    return ApiResponse(500, problem_bytes(500, "internal_error", "Something went wrong", "See FlashFlow's log."))


_NO_STORE = (b"cache-control", b"no-store")
_AS_JSON = (b"content-type", JSON)
_AS_PROBLEM = (b"content-type", MEDIA_TYPE.encode())


async def respond(send: Send, response: ApiResponse, *, close: bool = False) -> None:
    """Send ``response``; ``close`` ends the connection afterwards."""
    headers: Headers = [(b"content-length", b"%d" % len(response.body)), _NO_STORE]
    if not any(name == b"content-type" for name, _ in response.headers):
        headers.append(_AS_JSON if response.status < 400 else _AS_PROBLEM)
    headers.extend(response.headers)
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
