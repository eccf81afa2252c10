"""Rollup tables in ``user_activities.db``: narrow tables, one for each query.

- Users and names are integer keys (``dimensions``); ``app`` 0 and ``type`` 0 mean all.
- ``day``: local days since 1970-01-01 by the workspace's clock; ``week``: seven of them; ``hour``: 24 a day.
- ``at``: a user's first activity of a day, in milliseconds after the UTC midnight of the day of the same number
  (shorter than a timestamp; may be negative); ``span``: the milliseconds from it to the last; ``timestamps``: see
  ``packed_timestamps``.
"""

from __future__ import annotations

from typing import ClassVar

from peewee import SQL, BigIntegerField, CompositeKey, TextField

from flashflow.backend.store.engine.models import BaseModel, BytesField, false

OTHER = {"app": 1, "type": 2, "page": 3, "feature": 4, "referrer": 5, "agent": 6}
"""Kinds of names. A kind's number is also the key of its “all others”, whose name is empty."""
BLOCK_DAYS = 28
"""Local days in a block, counted from 1970-01-01. It has every weekday four times."""
WEEK_HOURS = 7 * 24


class UserKey(BaseModel):
    """The integer key of a user."""

    key = BigIntegerField(primary_key=True)
    user_id = TextField(constraints=[SQL("UNIQUE")])

    class Meta:
        table_name = "user_keys"


class Dimension(BaseModel):
    """The integer key of a name of a kind (OTHER); ``marked``: a type of key activities."""

    key = BigIntegerField(primary_key=True)
    kind = BigIntegerField()
    name = TextField()
    marked = false()

    class Meta:
        table_name = "dimensions"
        constraints: ClassVar = [SQL("UNIQUE (kind, name)")]
        initial_rows: ClassVar = tuple(
            f"INSERT INTO dimensions (key, kind, name) VALUES ({kind}, {kind}, '')" for kind in OTHER.values()
        )


class RollupState(BaseModel):
    """One row. Activities up to seq ``through`` are aggregated, by the clock of ``zone``.

    Days before ``frozen_before`` have lost activities to pruning and do not change. ``writer`` is the mark of the last
    writer of sessions (``SessionCache``). The counters of users include activities up to ``counted`` and sessions up to
    ``sessions_counted``; NULL: all of them.
    """

    through = BigIntegerField()
    counted = BigIntegerField(null=True)
    zone = TextField()
    frozen_before = BigIntegerField(null=True)
    writer = TextField(null=True)
    sessions_counted = BigIntegerField(null=True)

    class Meta:
        table_name = "rollup_state"
        primary_key = False
        initial_rows: ClassVar = ("INSERT INTO rollup_state (through, zone) VALUES (0, '')",)


class UserDay(BaseModel):
    """A user's activities in one app on one day."""

    day = BigIntegerField()
    user = BigIntegerField()
    app = BigIntegerField()
    activities = BigIntegerField()
    at = BigIntegerField()
    span = BigIntegerField()

    class Meta:
        table_name = "user_days"
        primary_key = CompositeKey("day", "user", "app")
        without_rowid = True


class UserTypeDay(BaseModel):
    """A user's activities of one type on one day."""

    # The week comes first, so that consecutive writes share pages; ``TypeWeek`` lists a type's weeks.
    week = BigIntegerField()
    type = BigIntegerField()
    user = BigIntegerField()
    day = BigIntegerField()
    app = BigIntegerField()
    activities = BigIntegerField()
    at = BigIntegerField()
    span = BigIntegerField()
    timestamps = BytesField(null=True)

    class Meta:
        table_name = "user_type_days"
        primary_key = CompositeKey("week", "type", "user", "day", "app")
        without_rowid = True


class TypeWeek(BaseModel):
    """A week in which a type has activities."""

    type = BigIntegerField()
    week = BigIntegerField()

    class Meta:
        table_name = "type_weeks"
        primary_key = CompositeKey("type", "week")
        without_rowid = True


class UserSpan(BaseModel):
    """A user's first and last day in an app."""

    app = BigIntegerField()
    user = BigIntegerField()
    first_day = BigIntegerField()
    last_day = BigIntegerField()

    class Meta:
        table_name = "user_spans"
        primary_key = CompositeKey("app", "user")
        without_rowid = True


class ActiveDay(BaseModel):
    """The number of users with activities of a type on a day."""

    type = BigIntegerField()
    app = BigIntegerField()
    day = BigIntegerField()
    users = BigIntegerField()

    class Meta:
        table_name = "active_days"
        primary_key = CompositeKey("type", "app", "day")
        without_rowid = True


class CohortDay(BaseModel):
    """The number of users of a cohort who were active on a day."""

    app = BigIntegerField()
    first_day = BigIntegerField()
    day = BigIntegerField()
    users = BigIntegerField()

    class Meta:
        table_name = "cohort_days"
        primary_key = CompositeKey("app", "first_day", "day")
        without_rowid = True


class SessionDay(BaseModel):
    """Sessions that began on a day in an app, and sums over them."""

    day = BigIntegerField()
    app = BigIntegerField()
    sessions = BigIntegerField()
    duration = BigIntegerField()
    pages = BigIntegerField()
    engaged = BigIntegerField()

    class Meta:
        table_name = "session_days"
        primary_key = CompositeKey("day", "app")
        without_rowid = True


class NameBlock(BaseModel):
    """Activities by name and block; triggers on NameDay update it."""

    kind = BigIntegerField()
    app = BigIntegerField()
    type = BigIntegerField()
    block = BigIntegerField()
    name = BigIntegerField()
    activities = BigIntegerField()

    class Meta:
        table_name = "name_blocks"
        primary_key = CompositeKey("kind", "app", "type", "block", "name")
        without_rowid = True


class HourBlock(BaseModel):
    """Activities by block and hour of the week (0 to 167, from Thursday 00:00); triggers on ActivityHour update it."""

    app = BigIntegerField()
    type = BigIntegerField()
    block = BigIntegerField()
    hour = BigIntegerField()
    activities = BigIntegerField()

    class Meta:
        table_name = "hour_blocks"
        primary_key = CompositeKey("app", "type", "block", "hour")
        without_rowid = True


def _block_triggers(blocks: type[BaseModel], days: str, keys: dict[str, str]) -> tuple[str, ...]:
    """Build the triggers on ``days`` that update ``blocks``; ``keys``: its columns and their SQL over a row."""
    table = blocks._meta.table_name
    target = ", ".join(field.name for field in blocks._meta.get_primary_keys())  # type: ignore[no-untyped-call]

    def of(row: str, text: str) -> str:
        return text.replace("{row}", row)

    def add(row: str, amount: str) -> str:
        columns, values = ", ".join(keys), ", ".join(of(row, value) for value in keys.values())
        return " ".join(
            f"INSERT INTO {table} (app, type, {columns}, activities) SELECT {app}, {type_}, {values}, {amount} "
            f"WHERE {where} ON CONFLICT ({target}) DO UPDATE SET activities = activities + excluded.activities;"
            for app, type_, where in (
                ("0", "0", "true"),
                (f"{row}.app", "0", "true"),
                ("0", f"{row}.type", f"{row}.type > 0"),
            )
        )

    here = " AND ".join(f"{column} = {of('old', value)}" for column, value in keys.items())
    where = f"{here} AND app IN (0, old.app) AND type IN (0, old.type) AND (app = 0 OR type = 0)"
    return (
        f"CREATE TRIGGER {table}_more AFTER INSERT ON {days} BEGIN {add('new', 'new.activities')} END",
        f"CREATE TRIGGER {table}_else AFTER UPDATE OF activities ON {days} WHEN new.activities <> old.activities "
        f"BEGIN {add('new', 'new.activities - old.activities')} END",
        f"CREATE TRIGGER {table}_less AFTER DELETE ON {days} BEGIN "
        f"UPDATE {table} SET activities = activities - old.activities WHERE {where}; "
        f"DELETE FROM {table} WHERE {where} AND activities = 0; END",
    )


NAME_BLOCK_TRIGGERS = _block_triggers(
    NameBlock, "name_days", {"kind": "{row}.kind", "block": f"{{row}}.day / {BLOCK_DAYS}", "name": "{row}.name"}
)
HOUR_BLOCK_TRIGGERS = _block_triggers(
    HourBlock,
    "activity_hours",
    {"block": f"{{row}}.hour / {24 * BLOCK_DAYS}", "hour": f"{{row}}.hour % {WEEK_HOURS}"},
)


class NameDay(BaseModel):
    """Activities by name (a page, feature or referrer) on a day; ``type`` is 0 on days pruned by older versions."""

    kind = BigIntegerField()
    day = BigIntegerField()
    app = BigIntegerField()
    name = BigIntegerField()
    type = BigIntegerField()
    activities = BigIntegerField()

    class Meta:
        table_name = "name_days"
        primary_key = CompositeKey("kind", "day", "app", "name", "type")
        without_rowid = True
        triggers: ClassVar = NAME_BLOCK_TRIGGERS


class ActivityHour(BaseModel):
    """Activities by local hour, app and type."""

    hour = BigIntegerField()
    app = BigIntegerField()
    type = BigIntegerField()
    activities = BigIntegerField()

    class Meta:
        table_name = "activity_hours"
        primary_key = CompositeKey("hour", "app", "type")
        without_rowid = True
        triggers: ClassVar = HOUR_BLOCK_TRIGGERS


class HeavyUser(BaseModel):
    """A user with very many activities, whose name counts are kept in UserName."""

    user = BigIntegerField(primary_key=True)

    class Meta:
        table_name = "heavy_users"


class UserName(BaseModel):
    """Activities of a heavy user by name."""

    user = BigIntegerField()
    app = BigIntegerField()
    kind = BigIntegerField()
    name = BigIntegerField()
    activities = BigIntegerField()

    class Meta:
        table_name = "user_names"
        primary_key = CompositeKey("user", "app", "kind", "name")
        without_rowid = True
