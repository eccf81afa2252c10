"""The moments between a day's first and last of what somebody did of one type, kept in a few bytes each.

A funnel asks for the first moment after another one. Of a day's first and last activity that is plain arithmetic; of
the others it would take a look at the bare rows for every user, a hundred times as dear. ``user_type_days`` keeps them
in ``moments``: each as the milliseconds since the day's first, in order, most significant byte first, three bytes wide
where the last is less than 2**24 milliseconds after the first, else four. Up to two activities there are none between
(NULL), and of more than MOST nobody keeps them (NULL, too): the bare rows have them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

MOST = 64
"""Activities of one type, user, app and day whose moments are kept at most: every fold writes a day's anew."""

_NUMBERS = msgspec.json.Decoder(list[int])


def packed_sql(activities: str, times: str) -> str:
    """SQL for the ``moments`` of ``activities`` (a count) at ``times`` (SQL, aggregated)."""
    return f"CASE WHEN {activities} BETWEEN 3 AND {MOST} THEN moments_of(json_group_array({times})) END"


KEPT_AND_NEW = (
    f"CASE WHEN activities + excluded.activities BETWEEN 3 AND {MOST} THEN moments_united("
    "at, span, activities, moments, excluded.at, excluded.span, excluded.activities, excluded.moments) END"
)
"""SQL for the ``moments`` of a row that is there and of one that comes to it."""


def insert_sql(conn: sqlite3.Connection) -> None:
    """Give a connection the functions that the SQL above and ``moment_after`` name."""
    conn.create_function("moments_of", 1, unpack, deterministic=True)
    conn.create_function("moments_united", 8, merge, deterministic=True)
    conn.create_function("moment_after", 4, first_after, deterministic=True)


def unpack(times: str) -> bytes:
    """The moments between the first and the last of three or more ``times`` (a JSON array, in any order)."""
    return _packed(_NUMBERS.decode(times))


def merge(
    at: int, span: int, activities: int, moments: bytes | None,
    more_at: int, more_span: int, more_activities: int, more_moments: bytes | None,
) -> bytes | None:  # fmt: skip
    """The moments of two rows together; None where those of one are not known."""
    width, shift = _width(more_at + more_span - at), more_at - at
    known = (activities < 3 or moments is not None) and (more_activities < 3 or more_moments is not None)
    if known and shift >= span and (not moments or _width(span) == width):  # as most come: one after the other
        parts = [moments or b""]
        if activities > 1:
            parts.append(span.to_bytes(width, "big"))
        if more_activities > 1:
            parts.append(shift.to_bytes(width, "big"))
        if more_moments:
            of_more = _width(more_span)
            parts += [
                (shift + int.from_bytes(more_moments[place : place + of_more], "big")).to_bytes(width, "big")
                for place in range(0, len(more_moments), of_more)
            ]
        return b"".join(parts)
    one, other = _times(at, span, activities, moments), _times(more_at, more_span, more_activities, more_moments)
    return None if one is None or other is None else _packed(one + other)


def first_after(at: int, span: int, moments: bytes, then: int) -> int:
    """The first moment after ``then``, which is not before the first one ``at`` and before the last one."""
    width = _width(span)
    since = (then - at).to_bytes(width, "big")
    for place in range(0, len(moments), width):
        moment = moments[place : place + width]
        if moment > since:
            return at + int.from_bytes(moment, "big")
    return at + span


def _times(at: int, span: int, activities: int, moments: bytes | None) -> list[int] | None:
    if activities == 1:
        return [at]
    if activities == 2:
        return [at, at + span]
    if moments is None:
        return None
    width = _width(span)
    between = (moments[place : place + width] for place in range(0, len(moments), width))
    return [at, at + span, *(at + int.from_bytes(moment, "big") for moment in between)]


def _packed(times: Sequence[int]) -> bytes:
    first, *between, last = sorted(times)
    width = _width(last - first)
    return b"".join([(time - first).to_bytes(width, "big") for time in between])


def _width(span: int) -> int:
    return 3 if span < 1 << 24 else 4
