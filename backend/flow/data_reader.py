"""Read data sources of tables, charts and loops, over the services."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import msgspec

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.analytics.query import Filters
from flashflow.backend.analytics.service import Analytics
from flashflow.backend.core.clock import Clock, rfc3339_of
from flashflow.backend.core.encoding import decode_cursor, encode_cursor, to_json
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import Forbidden, NotFound, ValidationError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import DAYS, LocalTime, is_zone, to_date, to_day, zone_of
from flashflow.backend.flow.language.data_sources import SOURCES, Source, Unit, columns_of
from flashflow.backend.flow.language.declarations import DataSource, Model, Project, Sort
from flashflow.backend.flow.language.expressions import evaluate_all
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.schemas.requests import AppName, TypeName, UserId
from flashflow.backend.schemas.validation import convert
from flashflow.backend.store.analytics.notification_totals import NotificationTotals, totals_by_type, totals_of
from flashflow.backend.store.flow import rows as table
from flashflow.backend.store.flow.rows import USER_MODEL

MOST_ROWS = 200
"""Rows of one read."""
MOST_SORTED = 1_000
"""Rows of a paged source that are read to sort them."""
MOST_DAYS = 366
DEFAULT_DAYS = 30
Row = dict[str, Any]
Rows = tuple[Sequence[Row], str | None]
"""Rows by column, and the cursor of the next ones."""


@dataclass(frozen=True, slots=True)
class SourceData:
    """Rows of a data source. ``columns``: names and units of all columns, in order. ``next_cursor`` is None on the last
    page."""

    columns: tuple[tuple[str, Unit], ...]
    rows: tuple[Row, ...]
    next_cursor: str | None = None


class Parts(Protocol):
    """The services that sources read."""

    clock: Clock
    me: str
    activity: UserActivityService
    notifications: NotificationService


class Arguments(NamedTuple):
    """Checked arguments. ``days`` is None where the source uses its default."""

    user_id: str | None = None
    activity_type: str | None = None
    app: str | None = None
    limit: int | None = None
    days: int | None = None
    first: date | None = None
    last: date | None = None
    tz: ZoneInfo | None = None
    compare: str = "previous"
    interval: str = "day"
    horizon: int = 30
    mode: str = "on"
    steps: tuple[str, ...] = ()
    window_days: int = 7


def read_source(
    parts: Parts,
    project: Project,
    source: DataSource,
    scope: Mapping[str, Any],
    *,
    limit: int,
    cursor: str | None,
    sort: Sort | None,
    all_users: bool,
) -> SourceData:
    """Read a page of a source. ``all_users``: whether data of all users may be read. Raises ValidationError for an
    argument, Forbidden for data of other users, NotFound for an unknown source."""
    limit = max(1, min(limit, MOST_ROWS))
    model = None if source.model is None else project.model(source.model)
    if model is not None:
        most = evaluate_all(source.arguments, scope).get("limit")
        if most is not None:
            _CHECKS["limit"]("limit", most)
        if most is None or sort is not None:
            return _model_rows(parts, model, limit, cursor, sort)
        found = _model_rows(parts, model, min(limit, most), cursor, sort)
        return found if cursor is not None else replace(found, next_cursor=None)
    known = SOURCES.get(source.name)
    if known is None:
        raise NotFound(f"There is no data source “{source.name}”.")
    arguments = _checked(known, evaluate_all(source.arguments, scope))
    current = (scope.get("current_user") or {}).get("id")
    if known.scope == "user":
        arguments = arguments._replace(user_id=arguments.user_id or current)
        if arguments.user_id is None:
            raise ValidationError.of("user_id", f"is required for {known.name}")
    if not all_users and (known.scope == "all" or arguments.user_id != current):
        raise Forbidden(f"{known.name} has data of other users; put it on a page with auth: admin.")
    if arguments.limit is not None and sort is None:
        limit = min(limit, arguments.limit)
    read = _READERS[known.name]
    if sort is None or (known.name, sort) == _BY_TIME:
        rows, following = read(parts, arguments, limit, cursor)
        more = arguments.limit is None or cursor is not None
        return SourceData(known.columns, tuple(rows), following if more else None)
    return _sorted(known, _all_rows(parts, read, arguments), limit, cursor, sort)


_BY_TIME = ("recent_user_activities", Sort("timestamp", descending=True))
"""The order that the source has by itself."""


def _all_rows(parts: Parts, read: Read, arguments: Arguments) -> list[Row]:
    most = MOST_SORTED if arguments.limit is None else min(MOST_SORTED, arguments.limit)
    rows, following = read(parts, arguments, min(most, MOST_ROWS), None)
    found = [*rows]
    while following is not None and len(found) < most:
        rows, following = read(parts, arguments, min(most - len(found), MOST_ROWS), following)
        found += rows
    return found


def _sorted(known: Source, rows: list[Row], limit: int, cursor: str | None, sort: Sort) -> SourceData:
    if known.unit(sort.column) is None:
        raise ValidationError.of("sort", f"{known.name} has no column “{sort.column}”")
    (offset,) = (0,) if cursor is None else decode_cursor(cursor, "sorted", 1)
    offset = max(0, offset)
    rows.sort(key=lambda row: _order(row.get(sort.column)), reverse=sort.descending)
    following = encode_cursor("sorted", offset + limit) if offset + limit < len(rows) else None
    return SourceData(known.columns, tuple(rows[offset : offset + limit]), following)


def _order(value: Any) -> tuple[int, Any]:
    """Return a key that orders null, then numbers, then text."""
    if value is None:
        return 0, 0
    return (1, value) if isinstance(value, int | float) else (2, str(value))


# --- arguments --------------------------------------------------------------------------------------------------------


def _checked(source: Source, given: Mapping[str, Any]) -> Arguments:
    """Check the values of a source's arguments. Raises ValidationError that names each wrong one."""
    faults = ErrorCollector()
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in source.arguments:
            faults.add(name, f"is no argument of {source.name}; it takes {', '.join(source.arguments)}")
        elif value is not None:
            with faults:
                found[_FIELDS.get(name, name)] = _CHECKS[name](name, value)
    first, last = found.get("first"), found.get("last")
    if found.get("days") is not None and (first or last):
        faults.add("days", "give either days, or from and to")
    if first is not None and last is not None and first > last:
        faults.add("from", "must not be after to")
    if source.name == "funnel" and "steps" not in found:
        faults.add("steps", "is required: a list of 2 to 10 activity types")
    faults.done()
    return Arguments(**found)


_FIELDS = {"from": "first", "to": "last"}


def _number(most: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ValidationError.of(name, f"must be a whole number from 1 to {most:,}")
        return value

    return check


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if value not in choices:
            raise ValidationError.of(name, f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def _typed(type_: Any) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        holder = msgspec.defstruct("Argument", [(name, type_)])
        if name == "user_id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return getattr(convert({name: value}, holder), name)

    return check


def _day(name: str, value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValidationError.of(name, "must be a day, like 2026-11-22") from None


def _zone(name: str, value: Any) -> ZoneInfo:
    if not isinstance(value, str) or not is_zone(value):
        raise ValidationError.of(name, "is not an IANA time zone, like Europe/Berlin")
    return zone_of(value)


def _steps(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= 10 or not all(isinstance(one, str) for one in value):
        raise ValidationError.of(name, "must be a list of 2 to 10 activity types")
    return tuple(value)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "user_id": _typed(UserId),
    "activity_type": _typed(TypeName),
    "app": _typed(AppName),
    "limit": _number(MOST_SORTED),
    "days": _number(MOST_DAYS),
    "from": _day,
    "to": _day,
    "tz": _zone,
    "compare": _one_of("previous", "weekday", "none"),
    "interval": _one_of("day", "hour"),
    "horizon": _number(MOST_DAYS),
    "mode": _one_of("on", "on_or_after"),
    "steps": _steps,
    "window_days": _number(MOST_DAYS),
}


def _filters(parts: Parts, arguments: Arguments, days: int = DEFAULT_DAYS) -> Filters:
    first, last = arguments.first, arguments.last
    if first is None:
        local = LocalTime(arguments.tz or parts.activity.analytics.zone)
        end = last or to_date(local.day(parts.clock.now_ms()))
        first = end - timedelta(days=(arguments.days or days) - 1)
    return Filters(
        first=first, last=last, app=arguments.app, activity_type=arguments.activity_type, zone=arguments.tz
    )  # fmt: skip


# --- sources ----------------------------------------------------------------------------------------------------------

Read = Callable[[Parts, Arguments, int, str | None], Rows]


def _whole(read: Callable[[Analytics, Parts, Arguments, int], Sequence[Row]]) -> Read:
    """Page a source whose rows are read at once."""

    def page(parts: Parts, arguments: Arguments, limit: int, cursor: str | None) -> Rows:
        (offset,) = (0,) if cursor is None else decode_cursor(cursor, "source", 1)
        offset = max(0, offset)
        rows = read(parts.activity.analytics, parts, arguments, offset + limit + 1)
        following = encode_cursor("source", offset + limit) if len(rows) > offset + limit else None
        return rows[offset : offset + limit], following

    return page


def _recent(parts: Parts, arguments: Arguments, limit: int, cursor: str | None) -> Rows:
    page = parts.activity.list_activities(
        user_id=arguments.user_id, activity_type=arguments.activity_type, app=arguments.app, limit=limit, cursor=cursor
    )
    rows = [
        {
            "activity_type": one.activity_type,
            "page_url": one.page_url,
            "timestamp": rfc3339_of(one.timestamp),
            "session_id": one.session_id,
            "app": one.app,
            "metadata": to_json(one.metadata) if one.metadata else "",
            "referrer": one.referrer,
            "user_id": one.user_id,
            "id": one.id,
        }
        for one in page.activities
    ]
    return rows, page.next_cursor


def _user_trend(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
    today, _, _ = analytics.today_bounds()
    days = [today - timedelta(days=back) for back in reversed(range(arguments.days or DEFAULT_DAYS))]
    counts = analytics.user_days(str(arguments.user_id), days[0], today)
    return [{"day": day.isoformat(), "activities": counts.get(day, 0)} for day in days]


def _trend(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
    trend = analytics.trend(_filters(parts, arguments), "none", arguments.interval)
    return [msgspec.structs.asdict(point) for point in trend.points]


def _daily_active(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
    trend = analytics.trend(_filters(parts, arguments), "none", "day")
    return [{"day": point.at, "active_users": point.active_users} for point in trend.points]


def _top(kind: str) -> Read:
    def read(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
        names = analytics.top(_filters(parts, arguments), kind, min(most, MOST_ROWS)).names
        return [{"name": one.name or "all others", "count": one.count, "share": one.share} for one in names]

    return _whole(read)


def _engagement(parts: Parts, arguments: Arguments, limit: int, cursor: str | None) -> Rows:
    page = parts.activity.analytics.user_list(_filters(parts, arguments), limit, cursor)
    names = user_names(parts, [user.user_id for user in page.users])
    rows = [
        {
            "user_name": names[user.user_id],
            "user_id": user.user_id,
            "total_activities": user.activities,
            "last_activity": user.last_day.isoformat(),
            "first_activity": user.first_day.isoformat(),
            "engagement_score": user.engagement_score,
        }
        for user in page.users
    ]
    return rows, page.next_cursor


def _users(parts: Parts, arguments: Arguments, limit: int, cursor: str | None) -> Rows:
    page = parts.activity.analytics.user_list(_filters(parts, arguments), limit, cursor)
    rows = [
        {
            "user_id": user.user_id,
            "activities": user.activities,
            "first_day": user.first_day.isoformat(),
            "last_day": user.last_day.isoformat(),
            "engagement_score": user.engagement_score,
        }
        for user in page.users
    ]
    return rows, page.next_cursor


def _overview(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
    overview = analytics.overview(_filters(parts, arguments), arguments.compare)  # type: ignore[arg-type]
    return [
        {
            "metric": name,
            "value": metric.value,
            "previous": metric.previous,
            "change": metric.change if isinstance(metric.change, float) else None,
        }
        for name, metric in overview.figures.items()
    ]


def _heatmap(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
    days = analytics.heatmap(_filters(parts, arguments)).hours
    return [{"hour": hour, **{day: days[at][hour] for at, day in enumerate(DAYS)}} for hour in range(24)]


def _retention(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
    found = analytics.retention(_filters(parts, arguments), arguments.horizon, arguments.mode)
    return [{"day": day, "share": share} for day, share in enumerate(found.average)]


def _funnel(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
    found = analytics.funnel(_filters(parts, arguments), arguments.steps, arguments.window_days)
    return [msgspec.structs.asdict(step) for step in found.steps]


def _delivery_rates(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
    today, _, _ = analytics.today_bounds()
    local = LocalTime(analytics.zone)
    days = [to_day(today) - back for back in reversed(range(arguments.days or DEFAULT_DAYS))]
    ranges = [(local.start(day), local.start(day + 1)) for day in days]
    found = parts.notifications.store.read(lambda conn: [totals_of(conn, *span, arguments.app) for span in ranges])
    return [
        {
            "day": to_date(day).isoformat(),
            "delivery_rate": _share(one.delivered, one.sent),
            "read_rate": _share(one.read, one.delivered),
            "sent": one.sent,
            "delivered": one.delivered,
            "read": one.read,
        }
        for day, one in zip(days, found, strict=True)
    ]


def _statistics(analytics: Analytics, parts: Parts, arguments: Arguments, most: int) -> Sequence[Row]:
    today, _, end = analytics.today_bounds()
    start = LocalTime(analytics.zone).start(to_day(today) - (arguments.days or DEFAULT_DAYS) + 1)

    def row(name: str, one: NotificationTotals) -> Row:
        return {"type": name, **one._asdict(), "open_rate": _share(one.read, one.delivered)}

    found = parts.notifications.store.read(lambda conn: totals_by_type(conn, start, end, arguments.app))
    return [row(name, one) for name, one in found.items()]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


_READERS: Mapping[str, Read] = {
    "recent_user_activities": _recent,
    "user_activity_trends": _whole(_user_trend),
    "daily_active_users": _whole(_daily_active),
    "feature_usage": _top("features"),
    "user_engagement_metrics": _engagement,
    "notification_delivery_rates": _whole(_delivery_rates),
    "notification_statistics": _whole(_statistics),
    "overview": _whole(_overview),
    "trend": _whole(_trend),
    **{kind: _top(kind) for kind in ("pages", "features", "referrers", "apps", "types")},
    "heatmap": _whole(_heatmap),
    "retention": _whole(_retention),
    "funnel": _whole(_funnel),
    "users": _users,
}

# --- rows of models ---------------------------------------------------------------------------------------------------


def _model_rows(parts: Parts, model: Model, limit: int, cursor: str | None, sort: Sort | None) -> SourceData:
    columns = columns_of(model)
    store = parts.notifications.store
    if sort is None:
        (before,) = (1 << 62,) if cursor is None else decode_cursor(cursor, "rows", 1)
        rows, more = store.read(lambda conn: table.newest_rows(conn, model.name, before, limit))
        following = encode_cursor("rows", rows[-1].seq) if more else None
    else:
        if model.field(sort.column) is None:
            raise ValidationError.of("sort", f"{model.name} has no field “{sort.column}”")
        (offset,) = (0,) if cursor is None else decode_cursor(cursor, "sorted", 1)
        offset = max(0, offset)
        rows, more = store.read(
            lambda conn: table.sorted_rows(conn, model.name, sort.column, sort.descending, limit, offset)
        )
        following = encode_cursor("sorted", offset + len(rows)) if more else None
    return SourceData(columns, tuple({name: row.body.get(name) for name, _ in columns} for row in rows), following)


def user_row(parts: Parts, user_id: str) -> Row:
    """Return ``id``, ``name`` and the stored fields of a user; without a row of the model User the name is the id."""
    store = parts.notifications.store
    row = store.read(lambda conn: _user(conn, user_id))
    return {"name": user_id, **({} if row is None else row.body), "id": user_id}


def user_names(parts: Parts, user_ids: Sequence[str]) -> dict[str, str]:
    """Return the names of users."""

    def read(conn: Any) -> dict[str, str]:
        found = {user_id: _user(conn, user_id) for user_id in user_ids}
        return {user_id: str((row and row.body.get("name")) or user_id) for user_id, row in found.items()}

    return parts.notifications.store.read(read)


def _user(conn: Any, user_id: str) -> table.Row | None:
    row = table.find_row(conn, USER_MODEL, user_id)
    if row is None and user_id.isdecimal() and len(user_id) < 19:
        row = table.find_row(conn, USER_MODEL, int(user_id))
    return row


def key_as_user(key: str) -> str:
    """Return the user id that a row's key, given as JSON, stands for."""
    value = json.loads(key)
    return value if isinstance(value, str) else str(value)
