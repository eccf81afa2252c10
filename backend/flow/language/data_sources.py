"""Data sources of tables and charts: their columns and arguments, shared by checks, runtime and docs/flow.md."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from msgspec import Meta, field

from flashflow.backend.core.errors import FieldError, ValidationError
from flashflow.backend.core.timezones import UNKNOWN_ZONE, is_zone
from flashflow.backend.flow.language.declarations import FieldType, Model
from flashflow.backend.schemas.requests import AppName, Input, TypeName, UserId

Unit = Literal["text", "number", "share", "seconds", "time", "day"]
"""How a column is shown. ``share`` is 0 to 1, ``time`` RFC 3339, ``day`` an ISO date or hour."""


@dataclass(frozen=True, slots=True)
class Source:
    """Data source. The first column labels a chart, the numbers among the others are drawn. ``scope``: of one user
    (argument ``user_id``, by default the current one, required in a job), or of all users. A page without
    ``auth: admin`` has data of the current user and rows of models only."""

    name: str
    description: str
    columns: tuple[tuple[str, Unit], ...]
    arguments: tuple[str, ...] = ()
    scope: Literal["user", "all"] = "all"

    def unit(self, column: str) -> Unit | None:
        """Return the unit of a column; None for an unknown one."""
        return dict(self.columns).get(column)


Period = Annotated[int, Meta(ge=1, le=366)]
Rows = Annotated[int, Meta(ge=1, le=1000)]
Steps = Annotated[list[TypeName], Meta(min_length=2, max_length=10)]


class Arguments(Input, frozen=True, kw_only=True):
    """Arguments of all data sources."""

    user_id: UserId | None = None
    days: Period | None = None
    first: date | None = field(default=None, name="from")
    last: date | None = field(default=None, name="to")
    tz: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    app: AppName | None = None
    activity_type: TypeName | None = None
    limit: Rows | None = None
    compare: Literal["previous", "weekday", "none"] | None = None
    interval: Literal["day", "hour"] | None = None
    horizon: Period | None = None
    mode: Literal["on", "on_or_after"] | None = None
    steps: Steps | None = None
    window_days: Period | None = None


ARGUMENTS = {
    "user_id": "user; by default the current one",
    "days": "the last days including today, 1 to 366; by default 30",
    "from": 'first day, such as "2026-12-01", instead of `days`',
    "to": "last day, instead of `days`",
    "tz": "IANA time zone of the days",
    "app": "app that wrote the rows",
    "activity_type": "activities of this type only",
    "limit": "number of rows, 1 to 1000",
    "compare": "`previous`, `weekday` or `none`",
    "interval": "`day` or `hour`",
    "horizon": "days to follow each user, 1 to 366",
    "mode": "`on` or `on_or_after`",
    "steps": "2 to 10 activity types: `[signup, first_order]`",
    "window_days": "days for all steps, 1 to 366",
}


def check_arguments(arguments: Arguments) -> None:
    """Check rules between arguments. Raises ValidationError."""
    if arguments.days is not None and (arguments.first is not None or arguments.last is not None):
        raise ValidationError("", (FieldError("days", "cannot be combined with from and to"),))
    if arguments.first is not None and arguments.last is not None and arguments.first > arguments.last:
        raise ValidationError("", (FieldError("from", "must not be after to"),))
    if arguments.tz is not None and not is_zone(arguments.tz):
        raise ValidationError("", (FieldError("tz", UNKNOWN_ZONE),))


PERIOD = ("days", "from", "to", "tz", "app")
"""Arguments of analytics: the last ``days`` including today, or ``from`` and ``to``; the zone; the app."""
TYPED = (*PERIOD, "activity_type")
_NAMES: tuple[tuple[str, Unit], ...] = (("name", "text"), ("count", "number"), ("share", "share"))

_SOURCES = (
    Source(
        "recent_user_activities", "The newest activities of one user.",
        (
            ("activity_type", "text"), ("page_url", "text"), ("timestamp", "time"), ("session_id", "text"),
            ("app", "text"), ("metadata", "text"), ("referrer", "text"), ("user_id", "text"), ("id", "text"),
        ),
        ("user_id", "activity_type", "app", "limit"), "user",
    ),
    Source(
        "user_activity_trends", "Activities of one user by day.", (("day", "day"), ("activities", "number")),
        ("user_id", "days"), "user",
    ),
    Source(
        "daily_active_users", "Users with an activity, by day.", (("day", "day"), ("active_users", "number")), TYPED,
    ),
    Source("feature_usage", "The features used most.", _NAMES, (*TYPED, "limit")),
    Source(
        "user_engagement_metrics", "Users of the period with their engagement.",
        (
            ("user_name", "text"), ("user_id", "text"), ("total_activities", "number"), ("last_activity", "day"),
            ("first_activity", "day"), ("engagement_score", "number"),
        ),
        (*PERIOD, "limit"),
    ),
    Source(
        "notification_delivery_rates", "Notifications by day, and the share that was delivered and read.",
        (
            ("day", "day"), ("delivery_rate", "share"), ("read_rate", "share"), ("sent", "number"),
            ("delivered", "number"), ("read", "number"),
        ),
        ("days", "app"),
    ),
    Source(
        "notification_statistics", "Notifications by type.",
        (
            ("type", "text"), ("sent", "number"), ("delivered", "number"), ("read", "number"),
            ("open_rate", "share"), ("failed", "number"),
        ),
        ("days", "app"),
    ),
    Source(
        "overview", "The metrics of a period and of the one before.",
        (("metric", "text"), ("value", "number"), ("previous", "number"), ("change", "share")), (*TYPED, "compare"),
    ),
    Source(
        "trend", "Activities, active users and sessions by day, or activities by hour.",
        (("at", "day"), ("activities", "number"), ("active_users", "number"), ("sessions", "number")),
        (*TYPED, "interval"),
    ),
    *(
        Source(name, description, _NAMES, (*TYPED, "limit"))
        for name, description in (
            ("pages", "The pages with the most activities."), ("features", "The features used most."),
            ("referrers", "The hosts that visitors came from."), ("apps", "The apps by their activities."),
            ("types", "The activity types by their activities."),
        )
    ),
    Source(
        "heatmap", "Activities by weekday and hour.",
        (("hour", "number"), *((day, "number") for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun"))), TYPED,
    ),
    Source(
        "retention", "Average share of users who return, by day after their first.",
        (("day", "number"), ("share", "share")), (*PERIOD, "horizon", "mode"),
    ),
    Source(
        "funnel", "Users who took the steps in order.",
        (
            ("activity_type", "text"), ("users", "number"), ("share", "share"), ("of_previous", "share"),
            ("dropped", "number"), ("median_seconds", "seconds"),
        ),
        (*PERIOD, "steps", "window_days"),
    ),
    Source(
        "users", "Users of the period, last seen first.",
        (
            ("user_id", "text"), ("activities", "number"), ("first_day", "day"), ("last_day", "day"),
            ("engagement_score", "number"),
        ),
        (*PERIOD, "limit"),
    ),
)  # fmt: skip

_UNITS: dict[FieldType, Unit] = {
    "integer": "number", "decimal": "number", "timestamp": "time", "datetime": "time", "date": "day",
}  # fmt: skip


def columns_of(model: Model) -> tuple[tuple[str, Unit], ...]:
    """Return the columns of a model's rows: its fields, and first ``id``, their key, where no field is primary."""
    columns: dict[str, Unit] = {} if any(field.primary for field in model.fields) else {"id": "text"}
    return tuple((columns | {field.name: _UNITS.get(field.type, "text") for field in model.fields}).items())


SOURCES = {source.name: source for source in _SOURCES}
"""Every source but ``all_<plural>``, the rows of a model, with the model's fields as columns."""
