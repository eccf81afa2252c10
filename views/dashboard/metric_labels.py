"""Format metrics: values, changes, durations, score parts, trend summaries. Pure functions, no Flet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

from flashflow.backend import Cohort, Metric
from flashflow.views.controls.formatting import grouped, plural
from flashflow.views.controls.relative_time import day_month
from flashflow.views.shared.values import NOTHING, Number, percent, point_text

Hours = Sequence[Sequence[int]]
"""Activities by weekday (Monday first) and hour."""

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS = {
    "C": "sessions with more pages than usual",
    "D": "sessions longer than usual",
    "R": "sessions with more pages than usual in the last 7 days",
    "I": "sessions with a key activity",
    "F": "active days of 28",
    "A": "key activities used",
}


class Change(NamedTuple):
    """Text of a change beside its arrow (1 up, -1 down, 0 none), and its text for screen readers."""

    shown: str
    spoken: str
    arrow: int = 0


def change(metric: Metric) -> Change | None:
    """Describe the change from the previous period; None without a comparison."""
    if metric.change is None:
        return None
    if isinstance(metric.change, str):
        return Change("new, none before", "new, none before")
    if metric.change == 0:
        return Change("± 0 %", "unchanged")
    size = percent(abs(metric.change))
    return Change(size, f"up {size}", 1) if metric.change > 0 else Change(size, f"down {size}", -1)


def metric_text(name: str, value: Number | None) -> str:
    """Format a metric's value: counts with thousands separators, rates in per cent."""
    if value is None:
        return NOTHING
    return percent(value) if name.endswith(("_rate", "stickiness")) else grouped(int(value))


def score(value: float | None) -> str:
    """Format an engagement score as a whole number."""
    return NOTHING if value is None else f"{value:.0f}"


def score_parts(of: Mapping[str, float]) -> tuple[str, ...]:
    """Describe each part of a score: "50 % – sessions longer than usual"."""
    return tuple(f"{percent(of[name])} – {label}" for name, label in PARTS.items() if name in of)


def day_text(of: date, today: date) -> str:
    """Format a day: "today", "yesterday", "22 Nov", with the year unless it is the current year."""
    if (gone := (today - of).days) in (0, 1):
        return ("today", "yesterday")[gone]
    return day_month(of, today)


def trend_summary(metric: str, at: Sequence[str], values: Sequence[int], before: Sequence[int]) -> str:
    """Summarise a trend: its first, last and highest value, and the highest of the period before."""
    if not values:
        return f"{metric}: nothing yet"
    top = max(range(len(values)), key=lambda n: values[n])
    text = (
        f"{metric} from {point_text(at[0])} to {point_text(at[len(values) - 1])}: first {grouped(values[0])}, "
        f"last {grouped(values[-1])}, highest {grouped(values[top])} ({point_text(at[top])})"
    )
    return f"{text}. The period before: highest {grouped(max(before))}" if before else text


def busiest(hours: Hours) -> str:
    """Describe the hour of the week with the most activities (the first in a tie)."""
    most = max(map(max, hours))
    weekday, hour = next((d, h) for d, row in enumerate(hours) for h, count in enumerate(row) if count == most)
    return f"Busiest: {weekday_hour(weekday, hour)} with {plural(most, 'activity', 'activities')}"


def weekday_hour(weekday: int, hour: int) -> str:
    return f"{WEEKDAYS[weekday]}, {hour:02}:00 to {(hour + 1) % 24:02}:00"


def retention_summary(cohorts: Sequence[Cohort], average: Sequence[float | None]) -> str:
    """Summarise retention: new users, cohorts, and the share that returned on days 1 and 7."""
    new = plural(sum(cohort.size for cohort in cohorts), "new user")
    known = [
        f"{percent(share)} returned on day {n}" for n, share in enumerate(average) if n in (1, 7) and share is not None
    ]
    return ", ".join((f"{new} in {plural(len(cohorts), 'cohort')}", *known))


def data_warnings(full: Sequence[str], pending: int) -> tuple[str, ...]:
    """Return a warning for each limit that makes the metrics incomplete."""
    lines = []
    if full:
        kinds = " and ".join(_KINDS.get(kind, f"{kind}s") for kind in full)
        lines.append(f"The limit of distinct {kinds} is reached; new ones are counted as “All others”.")
    if pending:
        are = "activity is" if pending == 1 else "activities are"
        lines.append(f"{grouped(pending)} {are} stored but not counted in the metrics yet. The disk may be full.")
    return tuple(lines)


_KINDS = {"type": "activity types", "app": "apps", "page": "pages", "feature": "features", "referrer": "referrers"}
