"""Results of analytics queries, as the API and the screens receive them."""

from __future__ import annotations

from datetime import date, datetime

from flashflow.backend.schemas.records import Record

Number = int | float


class Period(Record, frozen=True, kw_only=True):
    """Inclusive range of local days; ``until`` is the current time within its last day, None once that day is over."""

    first: date
    last: date
    until: datetime | None = None


class Metric(Record, frozen=True, kw_only=True):
    """Value of a period and of the previous one. ``change`` is a share (0.12: 12 % more), "new" where the previous
    value is 0, None without a comparison."""

    value: Number | None
    previous: Number | None = None
    change: float | str | None = None


class Overview(Record, frozen=True, kw_only=True):
    """Metrics of a period by name, with their ``definitions``."""

    period: Period
    previous: Period | None
    timezone: str
    figures: dict[str, Metric]
    definitions: dict[str, str]
    full: tuple[str, ...]
    """Dimensions that are full: a new name counts as "all others"."""
    pending: int
    """Stored activities that the rollups do not include yet; 0 unless the disk is full."""


class TrendPoint(Record, frozen=True, kw_only=True):
    """Values of one day (``2026-11-26``) or hour (``2026-11-26T10``); None for metrics without hourly values."""

    at: str
    activities: int
    active_users: int | None
    sessions: int | None


class Trend(Record, frozen=True, kw_only=True):
    """Points of the period, oldest first, and of the previous period at the same positions."""

    period: Period
    previous: Period | None
    timezone: str
    interval: str
    points: tuple[TrendPoint, ...]
    previous_points: tuple[TrendPoint, ...]


class Named(Record, frozen=True, kw_only=True):
    """Activities of one name, and their share of all activities with such a name; an empty name is "all others"."""

    name: str
    count: int
    share: float
    is_other: bool = False


class Names(Record, frozen=True, kw_only=True):
    """Names with the most activities, in descending order."""

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
    """Users whose first day was ``day``: their number, and how many returned on day N (None: that day is not over)."""

    day: date
    size: int
    users: tuple[int | None, ...]


class Retention(Record, frozen=True, kw_only=True):
    """Cohorts of the period, one per day with new users; ``average`` by day N, weighted by cohort size."""

    period: Period
    timezone: str
    mode: str
    days: int
    cohorts: tuple[Cohort, ...]
    average: tuple[float | None, ...]
    definition: str


class FunnelStep(Record, frozen=True, kw_only=True):
    """Step of a funnel: users who took it, their share of the first and of the previous step, seconds since it."""

    activity_type: str
    users: int
    share: float
    of_previous: float
    dropped: int
    median_seconds: float | None


class Funnel(Record, frozen=True, kw_only=True):
    """Steps in order; ``dropped_users`` is a sample of users who took the step before ``dropped_at`` only."""

    period: Period
    timezone: str
    window_days: int
    steps: tuple[FunnelStep, ...]
    dropped_at: int | None
    dropped_users: tuple[str, ...]
    definition: str


class UserRow(Record, frozen=True, kw_only=True):
    """User active in the period; first and last day and number of activities are over all time."""

    user_id: str
    first_day: date
    last_day: date
    activities: int
    engagement_score: float | None
    engagement_parts: dict[str, float]


class UserRows(Record, frozen=True, kw_only=True):
    """Page of users, most recently active first."""

    period: Period
    users: tuple[UserRow, ...]
    next_cursor: str | None
    definition: str


class ActivityType(Record, frozen=True, kw_only=True):
    """Activity type, and whether the owner marked it as a key activity."""

    name: str
    key: bool
