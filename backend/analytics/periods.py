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


def overview(asked: QueryContext, compare: Compare) -> Overview:
    before = days_before(asked.days, compare, asked.local, asked.now_ms)
    now = _values(asked, asked.days)
    then = {} if before is None else _values(asked, before)
    return Overview(
        period=asked.days.record(asked.until),
        previous=None if before is None else before.record(),
        timezone=asked.local.zone.key,
        figures={name: compared(value, then.get(name)) for name, value in now.items()} | _trailing(asked),
        definitions={name: DEFINITIONS[name] for name in (*now, *_TRAILING, "change")},
        full=full_kinds(asked.conn),
        pending=user_index.tail_length(asked.conn),
    )


def _values(asked: QueryContext, days: DateRange) -> dict[str, int | float | None]:
    conn, part = asked.conn, asked.slice(days)
    values: dict[str, int | float | None] = {
        "active_users": cohorts_and_funnels.active_users(conn, part),
        "activities": totals.activities(conn, part),
    }
    if not asked.type_key:  # sessions have activities of many types, and a user is new to all types at once
        values["new_users"] = cohorts_and_funnels.new_users(conn, part)
        values |= _of_sessions(totals.sessions(conn, part, *days.bounds(asked.local), asked.app))
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


def _trailing(asked: QueryContext) -> dict[str, Metric]:
    """Compute active users of the 1, 7 and 28 days that end with the period, or today if that is earlier."""
    last = min(asked.days.last, asked.local.day(asked.now_ms))
    dau, wau, mau = (
        cohorts_and_funnels.active_users(asked.conn, asked.slice(DateRange(last - days + 1, last)))
        for days in (1, WEEK_DAYS, MONTH_DAYS)
    )
    daily = cohorts_and_funnels.daily_users(asked.conn, asked.slice(DateRange(last - MONTH_DAYS + 1, last)))
    values = (dau, wau, mau, ratio(daily / MONTH_DAYS, mau))
    return {name: Metric(value=value) for name, value in zip(_TRAILING, values, strict=True)}


def trend(asked: QueryContext, compare: Compare, interval: str) -> Trend:
    before = days_before(asked.days, compare, asked.local, asked.now_ms)
    points = _by_hour if interval == "hour" else _by_day
    return Trend(
        period=asked.days.record(asked.until),
        previous=None if before is None else before.record(),
        timezone=asked.local.zone.key,
        interval=interval,
        points=points(asked, asked.days),
        previous_points=()
        if before is None
        else points(asked, DateRange(before.first, before.first + asked.days.length - 1)),
    )


def _by_day(asked: QueryContext, days: DateRange) -> tuple[TrendPoint, ...]:
    counts = totals.by_day(asked.conn, asked.slice(days))
    sessions: dict[int, int] | None = None
    if not asked.type_key:
        sessions = totals.sessions_by_day(asked.conn, asked.slice(days))
        for start in totals.open_starts(asked.conn, asked.app, *days.bounds(asked.local)):
            day = asked.local.day(start)
            sessions[day] = sessions.get(day, 0) + 1
    return tuple(
        TrendPoint(
            at=to_date(day).isoformat(),
            activities=counts.get(day, (0, 0))[0],
            active_users=counts.get(day, (0, 0))[1],
            sessions=None if sessions is None else sessions.get(day, 0),
        )
        for day in range(days.first, days.last + 1)
    )


def _by_hour(asked: QueryContext, days: DateRange) -> tuple[TrendPoint, ...]:
    counts = totals.by_hour(asked.conn, asked.slice(days))
    return tuple(
        TrendPoint(
            at=f"{to_date(hour // 24).isoformat()}T{hour % 24:02d}",
            activities=counts.get(hour, 0),
            active_users=None,
            sessions=None,
        )
        for hour in range(days.first * 24, days.last * 24 + 24)
    )


def top(asked: QueryContext, kind: str, limit: int) -> Names:
    part = asked.slice(asked.days, of_type=kind != "types")
    rows, total = totals.top(asked.conn, KINDS[kind], part, limit)
    return Names(
        period=asked.days.record(asked.until),
        kind=kind,
        names=tuple(Named(name=name, count=count, share=count / total, is_other=not name) for name, count in rows),
        total=total,
        definition=DEFINITIONS[kind],
    )


def heatmap(asked: QueryContext) -> HeatMap:
    hours = [[0] * 24 for _ in range(7)]
    for weekday, hour, count in totals.heat(asked.conn, asked.slice(asked.days)):
        hours[weekday][hour] = count
    return HeatMap(
        period=asked.days.record(asked.until),
        timezone=asked.local.zone.key,
        hours=tuple(tuple(row) for row in hours),
        most=max(max(row) for row in hours),
        definition=DEFINITIONS["heatmap"],
    )
