"""Cursor pagination over sequence numbers, newest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from msgspec import Meta

from flashflow.backend.core.encoding import decode_cursor, encode_cursor
from flashflow.backend.schemas.records import Record
from flashflow.backend.schemas.requests import Input

Limit = Annotated[int, Meta(ge=1, le=200)]
Cursor = Annotated[str, Meta(min_length=1, max_length=200)]


class Page(Input, frozen=True, kw_only=True):
    """A position in a list: ``cursor`` is ``next_cursor`` of the previous page."""

    limit: Limit = 50
    cursor: Cursor | None = None


def paged(name: str, rows: Sequence[tuple[int, Record]], page: Page | None) -> dict[str, Any]:
    """Return one page of ``rows`` (sequence number, record) as ``{name: [...], "next_cursor": ...}``.

    Sequence numbers are unique, so rows of one millisecond keep their order and rows added or removed between two pages
    move no other. Raises ValidationError for an invalid cursor.
    """
    newest = sorted(rows, key=lambda row: row[0], reverse=True)

    def below(before: int, limit: int) -> tuple[Sequence[tuple[int, Record]], bool]:
        found = [row for row in newest if row[0] < before]
        return found[:limit], len(found) > limit

    return paged_rows(name, below, page)


NEWEST = (1 << 63) - 1
"""Above every sequence number."""


def paged_rows(
    name: str, newest: Callable[[int, int], tuple[Sequence[tuple[int, Record]], bool]], page: Page | None
) -> dict[str, Any]:
    """Return one page like ``paged``, for lists too large for memory.

    ``newest(before, limit)`` returns rows with a sequence number below ``before``, possibly fewer than ``limit``, and
    whether more follow.
    """
    page = page or Page()
    before = NEWEST if page.cursor is None else decode_cursor(page.cursor, name, 1)[0]
    rows, more = newest(before, page.limit)
    return {name: [row for _, row in rows], "next_cursor": encode_cursor(name, rows[-1][0]) if more else None}
