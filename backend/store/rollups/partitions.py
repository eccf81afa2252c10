"""A user's rows lie in parts of some three days each, and within a part by user.

An index by user alone has each user's newest entry on a page of its own, so the more there is, the more pages a write
touches (measured at ten million activities: one page for every second activity, a third of the time tracking took). A
part holds few enough pages that every write meets the same ones again. What a question asks of a user it looks up in
each part that its time reaches into; a moment alone says which part that is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

BITS = 28
"""A part is 2**28 milliseconds: 3.1 days. A shorter one costs a write fewer pages, a question of a year more looks."""
LONG = 1 << BITS
ALWAYS = 1 << 62
"""A moment later than any."""


class Partition(NamedTuple):
    """Part ``number``, and from where to where in it (milliseconds since its start, both included) a question asks."""

    number: int
    low: int
    high: int


def partition_of(moment: str) -> str:
    """SQL for the part of a moment (milliseconds since 1970)."""
    return f"({moment}) >> {BITS}"


def place_in(moment: str) -> str:
    """SQL for where in its part a moment lies."""
    return f"({moment}) & {LONG - 1}"


def between(low: str, high: str) -> str:
    """SQL that leads from the parts ``t`` to the entries ``p`` of a user from ``low`` to ``high``, both included."""
    start = f"(t.part << {BITS})"
    return (
        f"t.part BETWEEN {partition_of(low)} AND {partition_of(high)} "
        f"AND p.at BETWEEN ({low}) - {start} AND ({high}) - {start}"
    )


def rows_of_user(user: str) -> str:
    """SQL for all indexed activities ``a`` of a user, by its key."""
    return (
        "activity_parts t CROSS JOIN activities_by_user p ON p.part = t.part "
        f"CROSS JOIN user_activities a ON a.seq = p.seq WHERE p.user = {user}"
    )


def partitions(
    conn: sqlite3.Connection, low: int | None = None, high: int | None = None, *, oldest: bool = False
) -> Iterator[Partition]:
    """The parts of the activities from ``low`` to ``high`` (None: without end), the newest or the ``oldest`` first."""
    low = -ALWAYS if low is None else low
    high = ALWAYS if high is None else high
    rows = conn.execute(
        f"SELECT part FROM activity_parts WHERE part BETWEEN ? AND ? ORDER BY part {'ASC' if oldest else 'DESC'}",
        (low >> BITS, high >> BITS),
    ).fetchall()
    for (part,) in rows:
        yield Partition(part, max(0, low - (part << BITS)), min(LONG - 1, high - (part << BITS)))


def drop_empty(conn: sqlite3.Connection, through: int | None = None) -> None:
    """Let parts go that hold nobody's activities any more (those up to the moment ``through``, or all)."""
    conn.execute(
        "DELETE FROM activity_parts WHERE part <= ? AND NOT EXISTS "
        "(SELECT 1 FROM activities_by_user p WHERE p.part = activity_parts.part)",
        ((ALWAYS if through is None else through) >> BITS,),
    )


# Sessions are told apart by an index over part, user and start; which parts there are their starts say.

SESSION_PARTS = (
    f"session_parts (part) AS (SELECT MAX(start_time) >> {BITS} FROM user_sessions UNION ALL "
    f"SELECT (SELECT MAX(start_time) >> {BITS} FROM user_sessions WHERE start_time < s.part << {BITS}) "
    "FROM session_parts s WHERE s.part IS NOT NULL)"
)
"""A recursive CTE: the parts that sessions began in, the newest first."""
BY_PART = (
    "session_parts t CROSS JOIN user_sessions INDEXED BY user_sessions_user "
    f"ON user_sessions.start_time >> {BITS} = t.part"
)
"""By SESSION_PARTS, the sessions of a user that a condition names."""


def session_partitions(conn: sqlite3.Connection, high: int | None = None) -> Iterator[int]:
    """The parts that sessions began in at ``high`` or before, the newest first."""
    high = ALWAYS if high is None else high
    while True:
        (part,) = conn.execute(
            f"SELECT MAX(start_time) >> {BITS} FROM user_sessions WHERE start_time <= ?", (high,)
        ).fetchone()
        if part is None:
            return
        yield int(part)
        high = (part << BITS) - 1


def pruned_before(conn: sqlite3.Connection) -> int:
    """Activities older than this (milliseconds since 1970) are no longer all there; 0: nothing was pruned."""
    return int(conn.execute("SELECT before FROM pruned").fetchone()[0])
