"""The endpoint table's row type, and the ASGI app that reads, validates and answers one endpoint's requests."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from flashflow.backend.api.framework.api_request import ApiRequest, authorize
from flashflow.backend.api.framework.body_decoder import BodyDecoder, decode_query
from flashflow.backend.api.framework.context import Services
from flashflow.backend.api.framework.request_body import Disconnected, headers_of, read_body, require_json
from flashflow.backend.api.framework.response_schemas import ResponseType
from flashflow.backend.api.framework.responses import (
    ApiResponse,
    StreamedResponse,
    error_response,
    refusal,
    respond,
)
from flashflow.backend.api.http.connection_limits import recognise
from flashflow.backend.api.http.problem_json import WHOLE
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import PayloadTooLarge, RateLimited, ValidationError
from flashflow.backend.schemas.requests import Input
from flashflow.backend.schemas.validation import Malformed, decode


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the endpoint table: it routes requests and documents them in OpenAPI."""

    method: str
    path: str
    scope: str | None
    handler: Callable[[ApiRequest], Awaitable[ApiResponse]]
    summary: str
    answer: str
    """The response in words."""
    responses: Mapping[int, ResponseType] = {}
    """Response type by status; empty for other than JSON."""
    media_types: tuple[str, ...] = ("application/json",)
    operation: str = ""
    """The operation id in OpenAPI; by default the handler's name."""
    body: type[Input] | None = None
    body_optional: bool = False
    example: Mapping[str, Any] | None = None
    """A valid body."""
    refusals: tuple[int, ...] = ()
    """Error statuses beyond those that follow from the path, the method and the scope."""
    query: type[Input] | None = None
    creates: bool = False
    check: Callable[[ApiRequest], object] | None = None
    """Checks beyond the fields' types. Also runs on the valid fields when others are malformed, so that one response
    names every fault. Raises ValidationError."""


class AsgiEndpoint:
    """Serve an Endpoint over ASGI: read, validate, call the handler, respond, count. Never raises."""

    def __init__(self, endpoint: Endpoint, services: Services) -> None:
        self._endpoint = endpoint
        self._services = services
        self._decoder = None if endpoint.body is None else BodyDecoder(endpoint.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        close = False
        started = time.perf_counter()
        try:
            response = await self._respond(scope, receive)
        except PayloadTooLarge as error:
            # The rest of the body stays unread, so the connection cannot carry another request.
            response, close = refusal(error), True
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001 error_response logs it
            response = error_response(error, self._endpoint.method, self._endpoint.path)
        self._services.requests.add(scope["method"], response.status, time.perf_counter() - started)
        if isinstance(response, StreamedResponse):
            await response.go(scope, receive, send)
            return
        usual = response.status < 300 and not response.headers and not close and scope["method"] != "HEAD"
        if usual and WHOLE in scope.get("extensions", ()):
            await send({"type": WHOLE, "status": response.status, "head": _USUAL, "body": response.body})
            return
        await respond(send, response, close=close)

    async def _respond(self, scope: Scope, receive: Receive) -> ApiResponse:
        headers = headers_of(scope)
        body = await read_body(receive, headers)
        endpoint = self._endpoint
        caller = authorize(self._services, headers, endpoint.scope)
        if endpoint.scope is not None:
            recognise(scope, caller.app)
        call = ApiRequest(scope, self._services, caller, headers)
        call.raw = body
        has_body = bool(body) or not (self._decoder is None or endpoint.body_optional)
        if has_body:
            require_json(headers)
        try:
            if has_body:
                call.body = decode(_NOTHING, body) if self._decoder is None else self._decoder.decode(body)
            if endpoint.query is not None or scope["query_string"]:
                call.query = decode_query(scope["query_string"], endpoint.query or _Nothing)
        except Malformed as error:
            raise self._every_fault(call, scope["query_string"], error) from None
        response = await endpoint.handler(call)
        if endpoint.method == "GET" and not self._services.outgoing.has_room(caller.app, len(response.body)):
            raise RateLimited("This key has too many unread response bytes. Read the open responses first.")
        return response

    def _every_fault(self, call: ApiRequest, query: bytes, first: Malformed) -> ValidationError:
        """Return ``first`` joined with the faults of the query and of ``check``."""
        faults = ErrorCollector()
        with faults:
            raise first
        first.__traceback__ = None  # it refers to this frame: a cycle that only the garbage collector would free
        if call.body is None and call.raw:
            call.body = first.part
        try:
            call.query = decode_query(query, self._endpoint.query or _Nothing)
        except Malformed as error:
            call.query = error.part
            with faults:
                raise
        if self._endpoint.check is not None and (call.body if self._endpoint.body else call.query) is not None:
            with faults:
                self._endpoint.check(call)
        return faults.error()


class _Nothing(Input, frozen=True, kw_only=True):
    """Accept no field."""


_NOTHING = msgspec.json.Decoder(_Nothing)

_USUAL = b"content-type: application/json\r\ncache-control: no-store\r\n"
