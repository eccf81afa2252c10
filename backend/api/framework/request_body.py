"""Read request bodies: size limit, media type, and draining of refused requests."""

from __future__ import annotations

from starlette.types import Receive, Scope

from flashflow.backend.api.framework.responses import JSON, Headers
from flashflow.backend.api.http.limits import BODY_BYTES
from flashflow.backend.core.errors import PayloadTooLarge, UnsupportedMediaType


class Disconnected(Exception):
    """The client disconnected before its request was read."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers by name, from the guard where it has run. The last of several equal names wins."""
    headers: dict[bytes, bytes] | None = scope.get("flashflow.headers")
    return dict(scope["headers"]) if headers is None else headers


async def read_body(receive: Receive, headers: dict[bytes, bytes]) -> bytes:
    """Return the whole body. Raises PayloadTooLarge above BODY_BYTES, and Disconnected."""
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > BODY_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > BODY_BYTES:
            raise _too_large()
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge("A body may have 1 MiB (1,048,576 bytes) at most.")


async def drain(receive: Receive, headers: Headers) -> bool:
    """Read a refused request's body to its end, so that no remainder is parsed as the next request.

    False if the body is too large or the client is gone: the connection then closes after the response.
    """
    try:
        await read_body(receive, dict(headers))
    except (PayloadTooLarge, Disconnected):
        return False
    return True


async def wait_for_disconnect(receive: Receive) -> None:
    """Return once the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


def require_json(headers: dict[bytes, bytes]) -> None:
    """Raise UnsupportedMediaType unless the body is declared as JSON in UTF-8."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Send the body as it is, without a Content-Encoding.")
    declared = headers.get(b"content-type", b"")
    if declared == JSON:
        return
    kind, _, parameters = declared.lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'"')
    if kind.strip() != JSON or charset not in {b"", b"utf-8"}:
        raise UnsupportedMediaType("Send `Content-Type: application/json`, in UTF-8.")
