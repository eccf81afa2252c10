"""Queries about a period as a whole: overview, trend, most frequent names, heat map."""

from __future__ import annotations

from flashflow.backend.analytics.date_ranges import (
    MONTH_DAYS,
    WEEK_DAYS,
    Compare,
    DateRange,
    compared,
    days_before,
    ratio,
)
from flashflow.backend.analytics.query import QueryContext
from flashflow.backend.core.timezones import to_date
from flashflow.backend.domain.metric_definitions import DEFINITIONS
from flashflow.backend.schemas.analytics import HeatMap, Metric, Named, Names, Overview, Trend, TrendPoint
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.analytics import cohorts_and_funnels, totals
from flashflow.backend.store.analytics.totals import SessionSums
from flashflow.backend.store.rollups.dimensions import full_kinds

KINDS = {"pages": "page", "features": "feature", "referrers": "referrer", "apps": "app", "types": "type"}


def overview(query: QueryContext, compare: Compare) -> Overview:
    before = days_before(query.days, compare, query.local, query.now_ms)
    now = _values(query, query.days)
    then = {} if before is None else _values(query, before)
    return Overview(
        period=query.days.record(query.until),
        previous=None if before is None else before.record(),
        timezone=query.local.zone.key,
        figures={name: compared(value, then.get(name)) for name, value in now.items()} | _trailing(query),
        definitions={name: DEFINITIONS[name] for name in (*now, *_TRAILING, "change")},
        full=full_kinds(query.conn),
        pending=user_index.tail_length(query.conn),
    )


def _values(query: QueryContext, days: DateRange) -> dict[str, int | float | None]:
    conn, part = query.conn, query.slice(days)
    values: dict[str, int | float | None] = {
        "active_users": cohorts_and_funnels.active_users(conn, part),
        "activities": totals.activities(conn, part),
    }
    if not query.type_key:  # sessions have activities of many types, and a user is new to all types at once
        values["new_users"] = cohorts_and_funnels.new_users(conn, part)
        values |= _of_sessions(totals.sessions(conn, part, *days.bounds(query.local), query.app))
    return values


def _of_sessions(sums: SessionSums) -> dict[str, int | float | None]:
    rate = ratio(sums.engaged, sums.sessions)
    return {
        "sessions": sums.sessions,
        "engagement_rate": rate,
        "bounce_rate": None if rate is None else 1 - rate,
        "avg_session_duration": ratio(sums.duration / 1000, sums.sessions),
        "pages_per_session": ratio(sums.pages, sums.sessions),
    }


_TRAILING = ("dau", "wau", "mau", "stickiness")


def _trailing(query: QueryContext) -> dict[str, Metric]:
    """Compute active users of the 1, 7 and 28 days that end with the period, or today if that is earlier."""
    last = min(query.days.last, query.local.day(query.now_ms))
    dau, wau, mau = (
        cohorts_and_funnels.active_users(query.conn, query.slice(DateRange(last - days + 1, last)))
        for days in (1, WEEK_DAYS, MONTH_DAYS)
    )
    daily = cohorts_and_funnels.daily_users(query.conn, query.slice(DateRange(last - MONTH_DAYS + 1, last)))
    values = (dau, wau, mau, ratio(daily / MONTH_DAYS, mau))
    return {name: Metric(value=value) for name, value in zip(_TRAILING, values, strict=True)}


def trend(query: QueryContext, compare: Compare, interval: str) -> Trend:
    before = days_before(query.days, compare, query.local, query.now_ms)
    points = _by_hour if interval == "hour" else _by_day
    return Trend(
        period=query.days.record(query.until),
        previous=None if before is None else before.record(),
        timezone=query.local.zone.key,
        interval=interval,
        points=points(query, query.days),
        previous_points=()
        if before is None
        else points(query, DateRange(before.first, before.first + query.days.length - 1)),
    )


def _by_day(query: QueryContext, days: DateRange) -> tuple[TrendPoint, ...]:
    counts = totals.by_day(query.conn, query.slice(days))
    sessions: dict[int, int] | None = None
    if not query.type_key:
        sessions = totals.sessions_by_day(query.conn, query.slice(days))
        for start in totals.open_starts(query.conn, query.app, *days.bounds(query.local)):
            day = query.local.day(start)
            sessions[day] = sessions.get(day, 0) + 1
    return tuple(
        TrendPoint(
            at=to_date(day).isoformat(),
            activities=found.activities,
            active_users=found.users,
            sessions=None if sessions is None else sessions.get(day, 0),
        )
        for day in range(days.first, days.last + 1)
        for found in (counts.get(day, totals.NOTHING),)
    )


def _by_hour(query: QueryContext, days: DateRange) -> tuple[TrendPoint, ...]:
    counts = totals.by_hour(query.conn, query.slice(days))
    return tuple(
        TrendPoint(
            at=f"{to_date(hour // 24).isoformat()}T{hour % 24:02d}",
            activities=counts.get(hour, 0),
            active_users=None,
            sessions=None,
        )
        for hour in range(days.first * 24, days.last * 24 + 24)
    )


def top(query: QueryContext, kind: str, limit: int) -> Names:
    part = query.slice(query.days, of_type=kind != "types")
    rows, total = totals.top(query.conn, KINDS[kind], part, limit)
    return Names(
        period=query.days.record(query.until),
        kind=kind,
        names=tuple(Named(name=name, count=count, share=count / total, is_other=not name) for name, count in rows),
        total=total,
        definition=DEFINITIONS[kind],
    )


def heatmap(query: QueryContext) -> HeatMap:
    hours = [[0] * 24 for _ in range(7)]
    for weekday, hour, count in totals.heat(query.conn, query.slice(query.days)):
        hours[weekday][hour] = count
    return HeatMap(
        period=query.days.record(query.until),
        timezone=query.local.zone.key,
        hours=tuple(tuple(row) for row in hours),
        most=max(max(row) for row in hours),
        definition=DEFINITIONS["heatmap"],
    )
