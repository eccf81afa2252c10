"""Rollups of names and hours by blocks of four weeks: a query over a year reads few rows.

A block is 28 local days, counted from 1970-01-01. It has every weekday four times, so ``hour_blocks`` has the hour of
the week (0 to 167, from Thursday 00:00). ``app`` 0 and ``type`` 0 mean all; queries for one app and one type together
read the tables by day. Triggers update both tables on every write to ``name_days`` and ``activity_hours``.
"""

from __future__ import annotations

import sqlite3

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.rollups.models import BLOCK_DAYS, HOUR_BLOCK_TRIGGERS, NAME_BLOCK_TRIGGERS, WEEK_HOURS

DAYS = BLOCK_DAYS
WORTH = 2 * DAYS
"""The shortest range in days that reads blocks."""


def _sums(kind: str, of: str, table: str) -> str:
    """Build the SELECT of the blocks of ``table``: over all apps and types, by app, and by type."""
    return " UNION ALL ".join(
        f"SELECT {kind}{app}, {type_}, {of}, SUM(activities) FROM {table}{where} GROUP BY {kind}{grouped}{of}"
        for app, type_, where, grouped in (
            ("0", "0", "", ""),
            ("app", "0", "", "app, "),
            ("0", "type", " WHERE type > 0", "type, "),
        )
    )


NAME_ROWS = _sums("kind, ", f"day / {DAYS}, name", "name_days")
HOUR_ROWS = _sums("", f"hour / {24 * DAYS}, hour % {WEEK_HOURS}", "activity_hours")


def keep_blocks(conn: sqlite3.Connection) -> None:
    """Create the triggers that update the tables."""
    for trigger in (*NAME_BLOCK_TRIGGERS, *HOUR_BLOCK_TRIGGERS):
        conn.execute(trigger)


def leave_blocks(conn: sqlite3.Connection) -> None:
    """Drop the triggers for a rebuild of the tables; ``keep_blocks`` follows in the same transaction."""
    for blocks in ("name_blocks", "hour_blocks"):
        for when in ("more", "else", "less"):
            conn.execute(f"DROP TRIGGER {blocks}_{when}")


class Blocks(NamedTuple):
    """Blocks ``first`` to ``last``, both included, within the days ``from_day`` to ``to_day``, both included."""

    first: int
    last: int
    from_day: int
    to_day: int

    @property
    def left_over(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The days before and after the blocks, both included; an empty range ends before it starts."""
        return (self.from_day, self.first * DAYS - 1), ((self.last + 1) * DAYS, self.to_day)


def blocks_within(first: int, last: int, oldest: int | None, newest: int | None) -> Blocks | None:
    """Return the blocks to sum for the days ``first`` to ``last`` of a table with days from ``oldest`` to ``newest``;
    None where the query reads days only."""
    if oldest is None or newest is None or last - first + 1 < WORTH:
        return None
    begin = oldest // DAYS if first <= oldest else -(-first // DAYS)
    end = newest // DAYS if last >= newest else (last + 1) // DAYS - 1
    return Blocks(begin, end, first, last) if begin <= end else None
