"""Time partitions of the indexes by user: about three days each, sorted by user within a partition.

An index by user alone has each user's newest entry on another page: at ten million activities, a page for every second
activity and a third of the time of tracking. A partition has few enough pages that consecutive writes share them. A
query about a user looks into each partition of its time range.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from peewee import SQL, ColumnBase, Expression, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.activity.models import PARTITION_BITS, ActivityByUser, ActivityPartition, UserSession
from flashflow.backend.store.engine.statement import Statement, slot
from flashflow.backend.store.privacy.models import Pruned

BITS = PARTITION_BITS
"""A shorter partition costs a write fewer pages and a year's query more looks."""
LONG = 1 << BITS
ALWAYS = 1 << 62
"""A time later than any, in milliseconds since 1970."""


class Partition(NamedTuple):
    """Partition ``number``, and the range in it that a query reads (milliseconds since its start, both included)."""

    number: int
    low: int
    high: int


def partition_of(timestamp: str) -> str:
    """Build SQL for the partition of a timestamp."""
    return f"({timestamp}) >> {BITS}"


def partition(timestamp: ColumnBase) -> Expression:
    """Build the expression for the partition of a timestamp, as the sessions' index has it."""
    return Expression(timestamp, ">>", BITS)


def place_in(timestamp: str) -> str:
    """Build SQL for the offset of a timestamp in its partition, in milliseconds."""
    return f"({timestamp}) & {LONG - 1}"


def between(low: str, high: str) -> str:
    """Build the condition to join partitions ``t`` with index entries ``p`` from ``low`` to ``high``, both included."""
    start = f"(t.partition << {BITS})"
    return (
        f"t.partition BETWEEN {partition_of(low)} AND {partition_of(high)} "
        f"AND p.at BETWEEN ({low}) - {start} AND ({high}) - {start}"
    )


def rows_of_user(user: str) -> str:
    """Build SQL for all indexed activities ``a`` of the user with the key ``user``."""
    return (
        "activity_partitions t CROSS JOIN activities_by_user p ON p.partition = t.partition "
        f"CROSS JOIN user_activities a ON a.seq = p.seq WHERE p.user = {user}"
    )


def partitions(
    conn: sqlite3.Connection, low: int | None = None, high: int | None = None, *, oldest: bool = False
) -> Iterator[Partition]:
    """Iterate over the partitions from ``low`` to ``high`` (None: unbounded), newest or ``oldest`` first."""
    low = -ALWAYS if low is None else low
    high = ALWAYS if high is None else high
    parts = [part for (part,) in _PARTS.all(conn, low=low >> BITS, high=high >> BITS)]
    for part in parts if oldest else reversed(parts):
        yield Partition(part, max(0, low - (part << BITS)), min(LONG - 1, high - (part << BITS)))


def drop_empty(conn: sqlite3.Connection, through: int | None = None) -> None:
    """Delete empty partitions up to the time ``through`` (None: all)."""
    _DROP_EMPTY.run(conn, partition=(ALWAYS if through is None else through) >> BITS)


_PARTS = Statement(
    lambda: (
        ActivityPartition.select(ActivityPartition.partition)
        .where(ActivityPartition.partition.between(slot("low"), slot("high")))
        .order_by(ActivityPartition.partition)
    )
)
_DROP_EMPTY = Statement(
    lambda: ActivityPartition.delete().where(
        ActivityPartition.partition <= slot("partition"),
        ~fn.EXISTS(ActivityByUser.select(SQL("1")).where(ActivityByUser.partition == ActivityPartition.partition)),
    )
)

# Sessions have an index by partition, user and start; their partitions are computed from their starts.

SESSION_PARTITIONS = (
    f"session_partitions (partition) AS (SELECT MAX(start_time) >> {BITS} FROM user_sessions UNION ALL "
    f"SELECT (SELECT MAX(start_time) >> {BITS} FROM user_sessions WHERE start_time < s.partition << {BITS}) "
    "FROM session_partitions s WHERE s.partition IS NOT NULL)"
)
"""A recursive CTE: the partitions in which sessions began, newest first."""
BY_PART = (
    "session_partitions t CROSS JOIN user_sessions INDEXED BY user_sessions_user "
    f"ON user_sessions.start_time >> {BITS} = t.partition"
)
"""Join SESSION_PARTITIONS to sessions by their index; a condition on the user follows."""


def session_partitions(conn: sqlite3.Connection, high: int | None = None) -> Iterator[int]:
    """Iterate over the partitions in which sessions began at ``high`` or before, newest first."""
    high = ALWAYS if high is None else high
    while (start := _LATEST_START.value(conn, high=high)) is not None:
        part = int(start) >> BITS
        yield part
        high = (part << BITS) - 1


_LATEST_START = Statement(
    lambda: UserSession.select(fn.MAX(UserSession.start_time)).where(UserSession.start_time <= slot("high"))
)


def pruned_before(conn: sqlite3.Connection) -> int:
    """Return the time before which activities were pruned (milliseconds since 1970); 0 if none were."""
    return int(_PRUNED.value(conn))


_PRUNED = Statement(Pruned.select)
