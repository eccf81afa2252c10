"""How every refusal is said over HTTP: one RFC 9457 body, wherever in the server it was decided."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from flashflow.backend.core.errors import FieldError, FlashFlowError, ValidationError

MEDIA_TYPE = "application/problem+json"

WHOLE = "flashflow.answer"
"""An ASGI extension of our own protocol: one message with ``status``, ``head`` (the headers' bytes, but for date,
length and connection) and ``body`` in place of two."""


class FieldProblem(msgspec.Struct, frozen=True):
    """One bad field; ``field`` is a dotted path, empty for the whole body."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an error answer, its fields in the order they are written."""

    type: str
    title: str
    status: int
    detail: str
    success: bool = False
    code: str
    errors: tuple[FieldProblem, ...] | msgspec.UnsetType = msgspec.UNSET


def problem_bytes(status: int, code: str, title: str, detail: str, errors: Sequence[FieldError] = ()) -> bytes:
    """The JSON of one problem. ``type`` leads to the paragraph of our own documentation about ``code``."""
    fields = tuple(FieldProblem(_text(error.field), _text(error.message)) for error in errors)
    return msgspec.json.encode(
        Problem(
            type=f"/docs#errors-{code}",
            title=title,
            status=status,
            detail=_text(detail),
            code=code,
            errors=fields or msgspec.UNSET,
        )
    )


def problem_of(error: FlashFlowError) -> tuple[int, bytes]:
    """The status and the body that answer ``error``."""
    errors = error.errors if isinstance(error, ValidationError) else ()
    return error.status, problem_bytes(error.status, error.code, error.title, str(error) or error.title, errors)


def raw_response(status: int, body: bytes) -> bytes:
    """A whole HTTP/1.1 answer, for where there is no request to answer through: the connection ends after it."""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: {MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\n"
        "cache-control: no-store\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _text(text: str) -> str:
    """``text`` as it can be encoded: a lone surrogate in what a caller sent must not turn its 400 into a 500."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
