"""Packed timestamps: a user's activities of one type and day between the first and the last, in few bytes each.

A funnel needs the first timestamp after another one. Without this column it would read the raw rows of every user, 100
times slower. ``user_type_days.timestamps`` has the milliseconds since the day's first activity, ascending, big-endian,
in three bytes each where the last is less than 2**24 milliseconds after the first, four bytes otherwise. It is NULL for
up to two activities (none in between) and for more than MOST (queries read the raw rows).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

COLUMN = "timestamps"
"""The column of ``user_type_days``."""
MOST = 64
"""Activities of one type, user, app and day up to which timestamps are packed: each aggregation rewrites the day's."""

_NUMBERS = msgspec.json.Decoder(list[int])


def packed_sql(activities: str, times: str) -> str:
    """Build SQL for the packed timestamps of ``activities`` (a count) at ``times`` (aggregated)."""
    return f"CASE WHEN {activities} BETWEEN 3 AND {MOST} THEN pack_timestamps(json_group_array({times})) END"


KEPT_AND_NEW = (
    f"CASE WHEN activities + excluded.activities BETWEEN 3 AND {MOST} THEN merge_timestamps("
    f"at, span, activities, {COLUMN}, excluded.at, excluded.span, excluded.activities, excluded.{COLUMN}) END"
)
"""SQL for the packed timestamps of a stored row and an upserted one."""


def register_functions(conn: sqlite3.Connection) -> None:
    """Register the SQL functions of this module on a connection."""
    conn.create_function("pack_timestamps", 1, pack, deterministic=True)
    conn.create_function("merge_timestamps", 8, merge, deterministic=True)
    conn.create_function("timestamp_after", 4, first_after, deterministic=True)


def pack(times: str) -> bytes:
    """Pack three or more ``times`` (a JSON array, in any order), without the first and the last."""
    return _packed(_NUMBERS.decode(times))


def merge(
    at: int, span: int, activities: int, packed: bytes | None,
    more_at: int, more_span: int, more_activities: int, more_packed: bytes | None,
) -> bytes | None:  # fmt: skip
    """Merge the packed timestamps of two rows; None where those of one are not stored."""
    width, shift = _width(more_at + more_span - at), more_at - at
    known = (activities < 3 or packed is not None) and (more_activities < 3 or more_packed is not None)
    if known and shift >= span and (not packed or _width(span) == width):  # the usual order of arrival
        parts = [packed or b""]
        if activities > 1:
            parts.append(span.to_bytes(width, "big"))
        if more_activities > 1:
            parts.append(shift.to_bytes(width, "big"))
        if more_packed:
            of_more = _width(more_span)
            parts += [
                (shift + int.from_bytes(more_packed[place : place + of_more], "big")).to_bytes(width, "big")
                for place in range(0, len(more_packed), of_more)
            ]
        return b"".join(parts)
    one, other = _times(at, span, activities, packed), _times(more_at, more_span, more_activities, more_packed)
    return None if one is None or other is None else _packed(one + other)


def first_after(at: int, span: int, packed: bytes, then: int) -> int:
    """Return the first timestamp after ``then``, which is at or after ``at`` and before the last one."""
    width = _width(span)
    since = (then - at).to_bytes(width, "big")
    for place in range(0, len(packed), width):
        offset = packed[place : place + width]
        if offset > since:
            return at + int.from_bytes(offset, "big")
    return at + span


def _times(at: int, span: int, activities: int, packed: bytes | None) -> list[int] | None:
    if activities == 1:
        return [at]
    if activities == 2:
        return [at, at + span]
    if packed is None:
        return None
    width = _width(span)
    between = (packed[place : place + width] for place in range(0, len(packed), width))
    return [at, at + span, *(at + int.from_bytes(offset, "big") for offset in between)]


def _packed(times: Sequence[int]) -> bytes:
    first, *between, last = sorted(times)
    width = _width(last - first)
    return b"".join([(time - first).to_bytes(width, "big") for time in between])


def _width(span: int) -> int:
    return 3 if span < 1 << 24 else 4
