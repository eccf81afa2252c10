"""Answers to the questions over the figures, as the API and the screens get them."""

from __future__ import annotations

from datetime import date, datetime

from flashflow.backend.schemas.records import Record

Number = int | float


class Period(Record, frozen=True, kw_only=True):
    """Local days, both included; ``until`` is where the last of them has come to, None where it is over."""

    first: date
    last: date
    until: datetime | None = None


class Metric(Record, frozen=True, kw_only=True):
    """A value beside the previous period's; ``change`` is a share (0.12: 12 % more), "new" where nothing was before,
    None where there is nothing to compare with."""

    value: Number | None
    previous: Number | None = None
    change: float | str | None = None


class Overview(Record, frozen=True, kw_only=True):
    """The figures of a period by name, each with its meaning in ``definitions``."""

    period: Period
    previous: Period | None
    timezone: str
    figures: dict[str, Metric]
    definitions: dict[str, str]
    full: tuple[str, ...]
    """Kinds of names with no room for another: what comes new counts as all others."""
    pending: int
    """Activities that are stored and not in the figures yet: none, but where the disk is full."""


class TrendPoint(Record, frozen=True, kw_only=True):
    """One day (``2026-11-26``) or hour (``2026-11-26T10``); None where an hour has no such figure."""

    at: str
    activities: int
    active_users: int | None
    sessions: int | None


class Trend(Record, frozen=True, kw_only=True):
    """The period's points, oldest first, and the previous period's at the same places."""

    period: Period
    previous: Period | None
    timezone: str
    interval: str
    points: tuple[TrendPoint, ...]
    previous_points: tuple[TrendPoint, ...]


class Named(Record, frozen=True, kw_only=True):
    """A name and its activities; ``share`` of all that have such a name; an empty name is all others together."""

    name: str
    count: int
    share: float
    is_other: bool = False


class Names(Record, frozen=True, kw_only=True):
    """The names with the most activities, most first."""

    period: Period
    kind: str
    names: tuple[Named, ...]
    total: int
    definition: str


class HeatMap(Record, frozen=True, kw_only=True):
    """Activities by weekday (Monday first) and hour: seven rows of 24."""

    period: Period
    timezone: str
    hours: tuple[tuple[int, ...], ...]
    most: int
    definition: str


class Cohort(Record, frozen=True, kw_only=True):
    """The users whose first day was ``day``: how many, and how many of them on each following day (None: not over)."""

    day: date
    size: int
    users: tuple[int | None, ...]


class Retention(Record, frozen=True, kw_only=True):
    """A row for each day of the period that somebody was new on; ``average`` by day N, weighted by cohort size."""

    period: Period
    timezone: str
    mode: str
    days: int
    cohorts: tuple[Cohort, ...]
    average: tuple[float | None, ...]
    definition: str


class FunnelStep(Record, frozen=True, kw_only=True):
    """A step: who took it, as a share of the first and of the one before, and how long it took from that one."""

    activity_type: str
    users: int
    share: float
    of_previous: float
    dropped: int
    median_seconds: float | None


class Funnel(Record, frozen=True, kw_only=True):
    """The steps in order; ``dropped_users`` are some of those who took the step before ``dropped_at`` and not that."""

    period: Period
    timezone: str
    window_days: int
    steps: tuple[FunnelStep, ...]
    dropped_at: int | None
    dropped_users: tuple[str, ...]
    definition: str


class UserRow(Record, frozen=True, kw_only=True):
    """A user of the period: local days of the first and the last activity ever, and what came in between."""

    user_id: str
    first_day: date
    last_day: date
    activities: int
    engagement_score: float | None
    engagement_parts: dict[str, float]


class UserRows(Record, frozen=True, kw_only=True):
    """The latest seen first."""

    period: Period
    users: tuple[UserRow, ...]
    next_cursor: str | None
    definition: str


class ActivityType(Record, frozen=True, kw_only=True):
    """A type of activity, and whether the owner made it a key activity."""

    name: str
    key: bool
