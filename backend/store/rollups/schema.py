"""Schema of the rollup tables in ``user_activities.db``: narrow tables, one for each query.

- Users and names are integer keys (``dimensions``); ``app`` 0 and ``type`` 0 mean all.
- ``day``: local days since 1970-01-01 by the workspace's clock; ``week``: seven of them; ``hour``: 24 a day.
- ``at``: a user's first activity of a day, in milliseconds after the UTC midnight of the day of the same number
  (shorter than a timestamp; may be negative); ``span``: the milliseconds from it to the last; ``moments``: see
  ``packed_timestamps``.
- ``user_type_days`` begins with the week, so that consecutive writes share pages; ``type_weeks`` lists a type's weeks.
- ``figures_state``: activities up to seq ``through`` are aggregated, by the clock of ``zone``; days before
  ``frozen_before`` have lost activities to pruning and do not change; ``writer`` is the mark of the last writer of
  sessions (``SessionCache``).
"""

from __future__ import annotations

import sqlite3

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.store.rollups.models import OTHER

OF_USER = "active_days t CROSS JOIN user_days d ON t.type = 0 AND t.app = 0 AND d.day = t.day"
"""The days ``d`` of one ``d.user``: one look-up for each day with any active user."""


FIRST = f"(d.day * {DAY_MS} + d.at)"
LAST = f"({FIRST} + d.span)"
"""SQL for the first and the last timestamp of a row ``d`` of ``user_days`` or ``user_type_days``."""


def week_of(day: str) -> str:
    """Build SQL for the week of a local day, counted from 1970-01-01."""
    return f"({day}) / 7"


ROLLUPS_DDL = """
CREATE TABLE figure_users (key INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE);
CREATE TABLE figure_names (
    key INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    marked INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kind, name)
);
CREATE TABLE user_days (
    day INTEGER NOT NULL,
    user INTEGER NOT NULL,
    app INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    PRIMARY KEY (day, user, app)
) WITHOUT ROWID;
CREATE TABLE user_type_days (
    type INTEGER NOT NULL,
    user INTEGER NOT NULL,
    day INTEGER NOT NULL,
    app INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    span INTEGER NOT NULL,
    PRIMARY KEY (type, user, day, app)
) WITHOUT ROWID;
CREATE TABLE user_spans (
    app INTEGER NOT NULL,
    user INTEGER NOT NULL,
    first_day INTEGER NOT NULL,
    last_day INTEGER NOT NULL,
    PRIMARY KEY (app, user)
) WITHOUT ROWID;
CREATE TABLE active_days (
    type INTEGER NOT NULL,
    app INTEGER NOT NULL,
    day INTEGER NOT NULL,
    users INTEGER NOT NULL,
    PRIMARY KEY (type, app, day)
) WITHOUT ROWID;
CREATE TABLE cohort_days (
    app INTEGER NOT NULL,
    first_day INTEGER NOT NULL,
    day INTEGER NOT NULL,
    users INTEGER NOT NULL,
    PRIMARY KEY (app, first_day, day)
) WITHOUT ROWID;
CREATE TABLE activity_hours (
    hour INTEGER NOT NULL,
    app INTEGER NOT NULL,
    type INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    PRIMARY KEY (hour, app, type)
) WITHOUT ROWID;
CREATE TABLE name_days (
    kind INTEGER NOT NULL,
    day INTEGER NOT NULL,
    app INTEGER NOT NULL,
    name INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    PRIMARY KEY (kind, day, app, name)
) WITHOUT ROWID;
CREATE TABLE session_days (
    day INTEGER NOT NULL,
    app INTEGER NOT NULL,
    sessions INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    engaged INTEGER NOT NULL,
    PRIMARY KEY (day, app)
) WITHOUT ROWID;
CREATE TABLE figures_state (
    through INTEGER NOT NULL,
    counted INTEGER,
    zone TEXT NOT NULL,
    frozen_before INTEGER,
    writer TEXT
);
INSERT INTO figures_state VALUES (0, NULL, '', NULL, NULL);
"""

BY_USER_DDL = """
CREATE TABLE activities_by_user (
    user INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (user, timestamp, seq)
) WITHOUT ROWID;
"""


def create_rollups(conn: sqlite3.Connection) -> None:
    """Create the tables, with each kind's “all others”."""
    for statement in (ROLLUPS_DDL + BY_USER_DDL).split(";\n"):
        conn.execute(statement)
    conn.executemany("INSERT INTO figure_names (key, kind, name) VALUES (?, ?, '')", [(k, k) for k in OTHER.values()])
