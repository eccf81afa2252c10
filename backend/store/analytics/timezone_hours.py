"""Hours and days of one clock told by another's: which of them lie within one of the other's, and what is left over.

Between whole-hour zones every hour is one of the other's and only days are cut; between others an hour is cut, too, and
so is the one that bears the name of two where a clock is put back. What is cut has to be counted from the bare rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from flashflow.backend.core.timezones import LocalTime

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Clocks(NamedTuple):
    """Two clocks, and the moments from ``start`` to before ``end`` (milliseconds since 1970) that are looked at."""

    home: LocalTime
    away: LocalTime
    start: int
    end: int

    def away_sql(self, moment: str, unit: int) -> str:
        """SQL for the other clock's hour or day (``unit`` milliseconds) of a moment that is looked at, or lies within
        two days of these."""
        (_, offset), *changes = self.away.offsets(self.start - 2 * DAY_MS, self.end + 2 * DAY_MS)
        sql = str(offset)
        for since, offset in changes:
            sql = f"CASE WHEN {moment} >= {since} THEN {offset} ELSE {sql} END"
        return f"({moment} + {sql}) / {unit}"


class Told(NamedTuple):
    """Units of the home clock (all of which lie within the moments looked at) and which one of the other clock each is
    within; and the rest: from where to before where, in order of time."""

    whole: list[tuple[int, int]]
    rest: list[tuple[int, int]]


def told(clocks: Clocks, home_unit: int, away_unit: int | None) -> Told:
    """Hours or days (``home_unit`` milliseconds) by the other clock's hours or days; with None by the moments looked
    at as one, which is 0."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for low, high, unit, within in _pieces(clocks, home_unit, away_unit):
        found.setdefault(unit, []).append((low, high, within))
    cut = {
        _unit(clocks.home, inside, home_unit)
        for inside, outside in ((clocks.start, clocks.start - 1), (clocks.end - 1, clocks.end))
        if _unit(clocks.home, inside, home_unit) == _unit(clocks.home, outside, home_unit)
    }
    whole, rest = [], []
    for unit, pieces in found.items():
        withins = {within for _, _, within in pieces}
        if len(withins) == 1 and unit not in cut:
            whole.append((unit, withins.pop()))
        else:
            rest += [(low, high) for low, high, _ in pieces]
    return Told(whole, _joined(rest))


def _pieces(clocks: Clocks, home_unit: int, away_unit: int | None) -> Iterator[tuple[int, int, int, int]]:
    """From where to before where the moments are in one unit of both clocks, and in which."""
    home, away, start, end = clocks
    changes = sorted({since for clock in (home, away) for since, _ in clock.offsets(start, end - 1)} | {end})
    for at, high in pairwise(changes):
        low, here, there = at, home.offset(at), away.offset(at)
        while low < high:
            unit = (low + here) // home_unit
            within = 0 if away_unit is None else (low + there) // away_unit
            until = min(high, (unit + 1) * home_unit - here)
            if away_unit is not None:
                until = min(until, (within + 1) * away_unit - there)
            yield low, until, unit, within
            low = until


def _unit(clock: LocalTime, moment: int, length: int) -> int:
    return (moment + clock.offset(moment)) // length


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if joined and joined[-1][1] == low:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined
