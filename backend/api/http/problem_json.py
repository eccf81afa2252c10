"""The body of every error response: problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from flashflow.backend.core.errors import FieldError, FlashFlowError, ValidationError

MEDIA_TYPE = "application/problem+json"

WHOLE = "flashflow.answer"
"""ASGI extension of LimitedHttpTools: one message with ``status``, ``head`` (header bytes without date, length and
connection) and ``body`` replaces two."""


class FieldProblem(msgspec.Struct, frozen=True):
    """One invalid field; ``field`` is a dotted path, empty for the whole body."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an error response, fields in written order."""

    type: str
    title: str
    status: int
    detail: str
    success: bool = False
    code: str
    errors: tuple[FieldProblem, ...] | msgspec.UnsetType = msgspec.UNSET


def problem_bytes(status: int, code: str, title: str, detail: str, errors: Sequence[FieldError] = ()) -> bytes:
    """Return the JSON of one problem. ``type`` links to the row about ``code`` on the /docs page."""
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
    """Return the status and the body for ``error``."""
    errors = error.errors if isinstance(error, ValidationError) else ()
    return error.status, problem_bytes(error.status, error.code, error.title, str(error) or error.title, errors)


def raw_response(status: int, body: bytes) -> bytes:
    """Return a complete HTTP/1.1 response that closes the connection, for use without a request cycle."""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: {MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\n"
        "cache-control: no-store\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _text(text: str) -> str:
    """Return ``text`` without lone surrogates: one from a client's input must not turn a 400 into a 500."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
