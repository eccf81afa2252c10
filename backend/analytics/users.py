"""Queries that distinguish users: retention, funnel, user list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from flashflow.backend.analytics.date_ranges import DateRange, ratio
from flashflow.backend.analytics.query import QueryContext, requested_key
from flashflow.backend.core.encoding import decode_cursor, encode_cursor
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.timezones import to_date
from flashflow.backend.domain.metric_definitions import DEFINITIONS
from flashflow.backend.schemas.analytics import Cohort, Funnel, FunnelStep, Retention, UserRow, UserRows
from flashflow.backend.store.analytics import cohorts_and_funnels
from flashflow.backend.store.analytics.engagement_score import Scoring

# --- retention --------------------------------------------------------------------------------------------------------


def retention(query: QueryContext, days: int, mode: str) -> Retention:
    """Return a row for each day with new users; counts of days that are not over are None."""
    part = query.slice(query.days, of_type=False)
    sizes = cohorts_and_funnels.cohort_sizes(query.conn, part)
    today = query.local.day(query.now_ms)
    if mode == "on":
        found = cohorts_and_funnels.returned_on(query.conn, part, days)
        counts = {first: [found.get((first, n), 0) for n in range(days + 1)] for first in sizes}
    else:
        counts = _or_after(cohorts_and_funnels.last_seen_after(query.conn, part), sizes, days)
    cohorts = tuple(
        Cohort(
            day=to_date(first),
            size=sizes[first],
            users=tuple(count if first + n < today else None for n, count in enumerate(counts[first])),
        )
        for first in sorted(sizes)
    )
    return Retention(
        period=query.days.record(query.until),
        timezone=query.local.zone.key,
        mode=mode,
        days=days,
        cohorts=cohorts,
        average=tuple(_average(cohorts, n) for n in range(days + 1)),
        definition=DEFINITIONS[f"retention_{mode}"],
    )


def _or_after(last_seen: Mapping[tuple[int, int], int], sizes: Mapping[int, int], days: int) -> dict[int, list[int]]:
    """Return for each cohort how many users were seen last on day N or later, for N from 0 to ``days``."""
    counts = {first: [0] * (days + 2) for first in sizes}
    for (first, n), users in last_seen.items():
        counts[first][min(n, days + 1)] += users
    for row in counts.values():
        for n in range(days, -1, -1):
            row[n] += row[n + 1]
    return {first: row[: days + 1] for first, row in counts.items()}


def _average(cohorts: Sequence[Cohort], n: int) -> float | None:
    """Return the share of users of all cohorts whose day N is over."""
    known = [(cohort.users[n], cohort.size) for cohort in cohorts if cohort.users[n] is not None]
    return ratio(sum(users or 0 for users, _ in known), sum(size for _, size in known))


# --- funnel -----------------------------------------------------------------------------------------------------------


def funnel(query: QueryContext, steps: Sequence[str], window_days: int, dropped_at: int | None, limit: int) -> Funnel:
    """Return users, drop-offs and times of each step. Raises ValidationError for invalid steps or ``dropped_at``."""
    if not 2 <= len(steps) <= cohorts_and_funnels.MOST_STEPS:
        raise ValidationError.of("steps", f"must be 2 to {cohorts_and_funnels.MOST_STEPS} activity types")
    if not all(steps):
        raise ValidationError.of("steps", "has a step without a name")
    if dropped_at is not None and not 2 <= dropped_at <= len(steps):
        raise ValidationError.of("dropped_at", "must be the number of a step after the first")
    days, bounds = query.days, None
    if query.local is not query.home:  # only the first step depends on the days: bound it by timestamps instead
        bounds = days.bounds(query.local)
        days = DateRange(query.home.day(bounds[0]), query.home.day(bounds[1] - 1))
    part = query.slice(days, of_type=False)
    types = [requested_key(query.conn, "type", name, "steps") for name in steps]
    at = None if dropped_at is None else dropped_at - 1
    counts = cohorts_and_funnels.walk(query.conn, types, part, window_days, at, limit, bounds)
    return Funnel(
        period=query.days.record(query.until),
        timezone=query.local.zone.key,
        window_days=window_days,
        steps=tuple(_steps(steps, counts)),
        dropped_at=dropped_at,
        dropped_users=tuple(cohorts_and_funnels.user_ids(query.conn, counts.dropped)),
        definition=DEFINITIONS["funnel"],
    )


def _steps(names: Sequence[str], counts: cohorts_and_funnels.FunnelCounts) -> Iterator[FunnelStep]:
    from statistics import median  # with decimal and fractions, 3 ms of the start

    before = counts.began
    for name, spent in zip(names, (None, *counts.spent), strict=True):
        users = before if spent is None else len(spent)
        yield FunnelStep(
            activity_type=name,
            users=users,
            share=ratio(users, counts.began) or 0.0,
            of_previous=ratio(users, before) or 0.0,
            dropped=before - users,
            median_seconds=median(spent) / 1000 if spent else None,
        )
        before = users


# --- users ------------------------------------------------------------------------------------------------------------


def _first_day(query: QueryContext, user: int) -> int:
    """Return the first day of a user whose first activity is before the range counted in another time zone."""
    return query.local.day(cohorts_and_funnels.first_activity_at(query.conn, query.app_key, user))


def user_list(query: QueryContext, limit: int, cursor: str | None) -> UserRows:
    """Return one page and compute each user's score. Raises ValidationError for an invalid cursor."""
    after = None
    if cursor is not None:
        last_day, key = decode_cursor(cursor, "users", 2)
        after = (last_day, key)
    part = query.slice(query.days, of_type=False)
    found = cohorts_and_funnels.seen_users(query.conn, part, limit + 1, after)
    more, found = len(found) > limit, found[:limit]
    counts = cohorts_and_funnels.count_by_user(query.conn, part, [seen.key for seen in found])
    scoring = Scoring(query.conn, query.app, query.now_ms, query.home)
    rows = []
    for seen in found:
        score, parts = scoring.of(seen.user_id)
        rows.append(
            UserRow(
                user_id=seen.user_id,
                first_day=to_date(seen.first_day if seen.first_day >= 0 else _first_day(query, seen.key)),
                last_day=to_date(seen.last_day),
                activities=counts.get(seen.key, 0),
                engagement_score=score,
                engagement_parts=parts,
            )
        )
    return UserRows(
        period=query.days.record(query.until),
        users=tuple(rows),
        next_cursor=encode_cursor("users", found[-1].last_day, found[-1].key) if more else None,
        definition=DEFINITIONS["engagement_score"],
    )
