"""Pages over the lists that fit in memory: templates, types, devices, keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from backend.api.wire import wire
from backend.clock import to_ms
from backend.inputs import Input
from backend.records import Record
from backend.store.codec import decode_cursor, encode_cursor

Limit = Annotated[int, Meta(ge=1, le=200)]
Cursor = Annotated[str, Meta(min_length=1, max_length=200)]


class Page(Input, frozen=True, kw_only=True):
    """Where in a list: ``cursor`` from the answer before."""

    limit: Limit = 50
    cursor: Cursor | None = None


def paged(name: str, rows: Sequence[Record], page: Page) -> dict[str, Any]:
    """One page of ``rows``, newest first, as ``{name: [...], "next_cursor": ...}``. Raises ValidationError.

    The cursor is the time of the last row given and how many of that very time were: what is made later comes before
    it, so paging stays stable while rows arrive.
    """
    newest = sorted(rows, key=_made, reverse=True)
    if page.cursor is not None:
        until, given = decode_cursor(page.cursor, name, 2)
        older = [row for row in newest if _made(row) < until]
        newest = [row for row in newest if _made(row) == until][max(given, 0) :] + older
        already = given
    else:
        until, already = -1, 0
    shown = newest[: page.limit]
    following = None
    if len(newest) > page.limit:
        last = _made(shown[-1])
        same = sum(_made(row) == last for row in shown)
        following = encode_cursor(name, last, same + (already if last == until else 0))
    return {name: [wire(row) for row in shown], "next_cursor": following}


def _made(row: Any) -> int:
    return to_ms(row.created_at)
