"""The rollup ``session_days``: ended sessions by app and the local day they began on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from flashflow.backend.store.engine.writer import Tx

ENGAGED_MS = 10_000
ENGAGED_PAGES = 2
"""A session is engaged if longer than ten seconds, with two distinct pages, or with a key activity [GA4]."""


class Counted(NamedTuple):
    """One session's share of its day: ``duration`` in milliseconds, ``engaged`` 0 or 1."""

    day: int
    app: int
    duration: int
    pages: int
    engaged: int


def engaged(duration_ms: int, pages: int, key_activities: int) -> bool:
    """Whether a session is engaged (domain/metric_definitions)."""
    return duration_ms > ENGAGED_MS or pages >= ENGAGED_PAGES or key_activities > 0


ENGAGED = f"({{duration}} > {ENGAGED_MS} OR {{pages}} >= {ENGAGED_PAGES} OR key_activities > 0)"
"""The same in SQL, over a row of ``user_sessions``."""

_ADD = (
    "INSERT INTO session_days (day, app, sessions, duration, pages, engaged) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions, duration = duration + excluded.duration, "
    "pages = pages + excluded.pages, engaged = engaged + excluded.engaged"
)


def change(tx: Tx, changes: Iterable[tuple[Counted | None, Counted | None]]) -> None:
    """Subtract the first of each pair from its day and add the second to its day."""
    sums: dict[tuple[int, int], list[int]] = {}
    for before, after in changes:
        if before == after:
            continue
        for counted, sign in ((before, -1), (after, 1)):
            if counted is not None:
                row = sums.setdefault((counted.day, counted.app), [0, 0, 0, 0])
                for place, value in enumerate((1, *counted[2:])):
                    row[place] += sign * value
    if sums:
        tx.conn.executemany(_ADD, [(*place, *row) for place, row in sums.items()])
        tx.conn.executemany("DELETE FROM session_days WHERE day = ? AND app = ? AND sessions = 0", list(sums))
