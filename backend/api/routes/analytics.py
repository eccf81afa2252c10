"""Analytics: overview, trend, top lists, retention, funnel, users, activity types. A `read` key sees its app's rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, field

from flashflow.backend.analytics.date_ranges import Compare
from flashflow.backend.analytics.query import Filters
from flashflow.backend.analytics.service import Analytics
from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.pagination import Cursor, Limit
from flashflow.backend.api.framework.response_schemas import page_type, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.timezones import is_zone
from flashflow.backend.schemas.analytics import (
    ActivityType,
    Funnel,
    HeatMap,
    Names,
    Overview,
    Period,
    Retention,
    Trend,
    UserRow,
)
from flashflow.backend.schemas.records import Record
from flashflow.backend.schemas.requests import ActivityTypeIn, AppName, Input, TypeName, build
from flashflow.backend.store.analytics.verify import Difference

Steps = Annotated[
    str, Meta(min_length=1, max_length=1100, description="2 to 10 activity types, with commas between, or a JSON list")
]


class AnalyticsQuery(Input, frozen=True, kw_only=True):
    """Local days ``from`` to ``to``, both included; by default the last seven, including today. ``tz``: the IANA zone
    of the days; by default the workspace's."""

    first: date | None = field(default=None, name="from")
    last: date | None = field(default=None, name="to")
    tz: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    app: AppName | None = None


class TypedQuery(AnalyticsQuery, frozen=True, kw_only=True):
    """``activity_type``: count activities of this type only."""

    activity_type: TypeName | None = None


class OverviewQuery(TypedQuery, frozen=True, kw_only=True):
    """``compare``: with the ``previous`` days, with the same weekdays whole weeks before (``weekday``), or not."""

    compare: Compare = "previous"


class TrendQuery(OverviewQuery, frozen=True, kw_only=True):
    """``interval``: by day, or by hour (activities only)."""

    interval: Literal["day", "hour"] = "day"


class TopQuery(TypedQuery, frozen=True, kw_only=True):
    limit: Limit = 10


class RetentionQuery(AnalyticsQuery, frozen=True, kw_only=True):
    """First days of the cohorts, and the number of days to follow each."""

    days: Annotated[int, Meta(ge=1, le=366)] = 30
    mode: Literal["on", "on_or_after"] = "on"


class FunnelQuery(AnalyticsQuery, frozen=True, kw_only=True):
    """``dropped_at``: list users who stopped before that step (2 is the second)."""

    steps: Steps
    window_days: Annotated[int, Meta(ge=1, le=366)] = 7
    dropped_at: Annotated[int, Meta(ge=2, le=10)] | None = None
    limit: Limit = 50


class VerifyIn(Input, frozen=True, kw_only=True):
    """``rebuild``: repair the differences."""

    rebuild: bool = False


class UsersQuery(AnalyticsQuery, frozen=True, kw_only=True):
    limit: Limit = 50
    cursor: Cursor | None = None


Q = TypeVar("Q", bound=AnalyticsQuery)


def _filters(call: ApiRequest, query: AnalyticsQuery) -> Filters:
    zone = None
    faults = ErrorCollector()
    if query.tz is not None:
        if is_zone(query.tz):
            zone = ZoneInfo(query.tz)
        else:
            faults.add("tz", "is not an IANA time zone, like Europe/Berlin")
    if query.first is not None and query.last is not None and query.first > query.last:
        faults.add("from", "must not be after to")
    faults.done()
    kind = query.activity_type if isinstance(query, TypedQuery) else None
    return Filters(first=query.first, last=query.last, app=call.app_filter(query.app), activity_type=kind, zone=zone)


def _check(call: ApiRequest) -> None:
    _filters(call, msgspec.structs.replace(call.query, app=None))


def _endpoint(
    name: str,
    query_type: type[Q],
    record: type[Record],
    calculate: Callable[[Analytics, Filters, Q], Record],
    *,
    summary: str,
    answer: str,
    operation: str = "",
    by_days: bool = True,
) -> Endpoint:
    """Return the endpoint of one analytics query; its ``record`` stands under ``name`` in the response.

    ``by_days``: it counts local days, which is slow in a zone other than the workspace's.
    """

    async def handle(call: ApiRequest) -> ApiResponse:
        query: Q = call.query or build(query_type)
        filters = _filters(call, query)
        analytics = call.services.activity.analytics

        def read() -> ApiResponse:
            return success(**{name: calculate(analytics, filters, query)})

        return await call.read(read, long=by_days and analytics.uses_other_timezone(filters))

    title = operation.title().replace("_", "") or record.__name__
    return Endpoint(
        method="GET", path=f"/api/analytics/{name}", scope="read", handler=handle, query=query_type, check=_check,
        operation=operation or f"get_{name}", summary=summary, answer=answer,
        responses={200: response_type(f"{title}Answer", **{name: record})},
    )  # fmt: skip


def _top(kind: str, summary: str) -> Endpoint:
    """Return the endpoint of the names with the most activities."""
    return _endpoint(
        kind, TopQuery, Names, lambda a, f, q: a.top(f, kind, q.limit), operation=f"top_{kind}", summary=summary,
        answer=f"{kind}: period, names (name, count, share; an empty name: all others), total, definition",
    )  # fmt: skip


def _steps(text: str) -> list[str]:
    """Return the steps' names from a comma-separated or JSON list."""
    if text.lstrip().startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except (msgspec.DecodeError, RecursionError):
            raise ValidationError.of("steps", "is not a JSON list of activity types") from None
    return [step.strip() for step in text.split(",")]


def _funnel(analytics: Analytics, filters: Filters, query: FunnelQuery) -> Funnel:
    return analytics.funnel(filters, _steps(query.steps), query.window_days, query.dropped_at, query.limit)


async def list_users(call: ApiRequest) -> ApiResponse:
    query: UsersQuery = call.query or UsersQuery()
    filters = _filters(call, query)
    analytics = call.services.activity.analytics

    def read() -> ApiResponse:
        return success(**msgspec.structs.asdict(analytics.user_list(filters, query.limit, query.cursor)))

    return await call.read(read, long=analytics.uses_other_timezone(filters))


async def list_activity_types(call: ApiRequest) -> ApiResponse:
    return success(activity_types=await call.read(call.services.activity.rollups.activity_types))


async def mark_activity_type(call: ApiRequest) -> ApiResponse:
    body: ActivityTypeIn = call.body
    marked = await call.services.activity_writes.run(
        call.services.activity.rollups.mark_key_activity_write(body.name, body.key)
    )
    await call.wait(lambda: call.services.activity.rollups.recount(RECOUNT_S))
    return success(activity_type=marked)


RECOUNT_S = 4.0
"""Seconds until the response; the recount then continues in the background."""


async def verify_analytics(call: ApiRequest) -> ApiResponse:
    rollups = call.services.activity.rollups
    body: VerifyIn | None = call.body

    def check() -> ApiResponse:
        differences = rollups.verify()
        if differences and body is not None and body.rebuild:
            rollups.rebuild()
        return success(differences=differences, rebuilt=bool(differences and body and body.rebuild))

    return await call.wait(check)


ENDPOINTS = (
    _endpoint(
        "overview", OverviewQuery, Overview, lambda a, f, q: a.overview(f, q.compare),
        summary="The metrics of a period and of the period before",
        answer="overview: period, previous, timezone, `figures` (value, previous, change), definitions, full, pending",
    ),
    _endpoint(
        "trend", TrendQuery, Trend, lambda a, f, q: a.trend(f, q.compare, q.interval),
        summary="Activities, active users and sessions by day, or activities by hour",
        answer="trend: points (at, activities, active_users, sessions) and previous_points",
    ),
    _top("pages", "The pages with the most activities"),
    _top("features", "The features used most"),
    _top("referrers", "The hosts that visitors came from"),
    _top("apps", "The apps by their activities"),
    _top("types", "The activity types by their activities"),
    _endpoint(
        "heatmap", TypedQuery, HeatMap, lambda a, f, _: a.heatmap(f),
        summary="Activities by weekday and hour", answer="heatmap: hours (seven rows from Monday, of 24), most",
    ),
    _endpoint(
        "retention", RetentionQuery, Retention, lambda a, f, q: a.retention(f, q.days, q.mode),
        summary="Retention of users by the day of their first activity",
        answer="retention: cohorts (day, size, users on each day from 0 on; null: not over), average",
    ),
    _endpoint(
        "funnel", FunnelQuery, Funnel, _funnel, by_days=False,
        summary="Users who took these steps in order, and who stopped",
        answer="funnel: steps (activity_type, users, share, of_previous, dropped, median_seconds), dropped_users",
    ),
    Endpoint(
        method="GET", path="/api/analytics/users", scope="read", handler=list_users, query=UsersQuery,
        check=_check,
        summary="Users of the period with engagement scores, last seen first",
        answer="users (user_id, first_day, last_day, activities, engagement_score, engagement_parts), next_cursor",
        responses={200: page_type("UsersAnswer", "users", UserRow, period=Period, definition=str)},
    ),
    Endpoint(
        method="GET", path="/api/activity-types", scope="admin", handler=list_activity_types,
        summary="Activity types, and which are key activities", answer="activity_types: name, key",
        responses={200: response_type("ActivityTypesAnswer", activity_types=list[ActivityType])},
    ),
    Endpoint(
        method="POST", path="/api/activity-types", scope="admin", handler=mark_activity_type, body=ActivityTypeIn,
        example={"name": "purchase", "key": True},
        summary="Mark or unmark an activity type as key activity", answer="activity_type: name, key",
        responses={200: response_type("ActivityTypeAnswer", activity_type=ActivityType)},
    ),
    Endpoint(
        method="POST", path="/api/analytics/verify", scope="admin", handler=verify_analytics, body=VerifyIn,
        example={"rebuild": False},
        body_optional=True,
        summary="Recalculate every metric from the raw rows; may take minutes",
        answer="differences (table, missing and surplus rows; empty if all is correct), rebuilt",
        responses={200: response_type("VerifyAnswer", differences=list[Difference], rebuilt=bool)},
    ),
)  # fmt: skip
