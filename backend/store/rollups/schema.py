"""SQL fragments over the rollup tables (``models``)."""

from __future__ import annotations

from flashflow.backend.core.clock import DAY_MS

OF_USER = "active_days t CROSS JOIN user_days d ON t.type = 0 AND t.app = 0 AND d.day = t.day"
"""The days ``d`` of one ``d.user``: one look-up for each day with any active user."""


FIRST = f"(d.day * {DAY_MS} + d.at)"
LAST = f"({FIRST} + d.span)"
"""SQL for the first and the last timestamp of a row ``d`` of ``user_days`` or ``user_type_days``."""


def week_of(day: str) -> str:
    """Build SQL for the week of a local day, counted from 1970-01-01."""
    return f"({day}) / 7"
