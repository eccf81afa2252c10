"""The rollup ``session_days``: ended sessions by app and the local day they began on."""

from __future__ import annotations

from collections.abc import Iterable

from peewee import EXCLUDED, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.statement import Statement, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.models import RollupState, SessionDay

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


def first_live_day(tx: Tx) -> int:
    """Return the first day that may change: days before it are frozen (``RollupState``); -1 without frozen days."""
    return int(_LIVE.value(tx.conn))


def change(tx: Tx, changes: Iterable[tuple[Counted | None, Counted | None]]) -> None:
    """Subtract the first of each pair from its day and add the second to its day."""
    sums: dict[tuple[int, int], list[int]] = {}
    for before, after in changes:
        if before == after:
            continue
        for counted, sign in ((before, -1), (after, 1)):
            if counted is not None:
                row = sums.setdefault((counted.day, counted.app), [0, 0, 0, 0])
                for place, value in enumerate((1, counted.duration, counted.pages, counted.engaged)):
                    row[place] += sign * value
    _ADD.many(tx.conn, [(*place, *row) for place, row in sums.items()])
    for day, app in sums:
        _DELETE_EMPTY.run(tx.conn, day=day, app=app)


_LIVE = Statement(lambda: RollupState.select(fn.COALESCE(RollupState.frozen_before, -1)))
_D = SessionDay
_ADD = Statement(
    lambda: _D.insert(slots(_D.day, _D.app, _D.sessions, _D.duration, _D.pages, _D.engaged)).on_conflict(
        conflict_target=[_D.day, _D.app],
        update={
            _D.sessions: _D.sessions + EXCLUDED.sessions,
            _D.duration: _D.duration + EXCLUDED.duration,
            _D.pages: _D.pages + EXCLUDED.pages,
            _D.engaged: _D.engaged + EXCLUDED.engaged,
        },
    )
)
_DELETE_EMPTY = Statement(lambda: _D.delete().where(_D.day == slot("day"), _D.app == slot("app"), _D.sessions == 0))
