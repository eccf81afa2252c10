"""Dashboard selections: period, comparison, trend metric and funnel steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal, NamedTuple

from flashflow.backend import Filters

MOST_STEPS = 5
FEWEST_STEPS = 2
WINDOWS = (1, 7, 14, 30, 90)
"""Conversion windows of a funnel, in days."""
METRICS = {"activities": "Activities", "active_users": "Active users", "sessions": "Sessions"}


class Period(NamedTuple):
    """A number of days that ends today."""

    label: str
    days: int
    phrase: str


PERIODS = (
    Period("Today", 1, "today"),
    Period("7 days", 7, "in 7 days"),
    Period("28 days", 28, "in 28 days"),
    Period("90 days", 90, "in 90 days"),
    Period("12 months", 365, "in 12 months"),
)


@dataclass
class Selection:
    """One page's selections; they are kept while the page shows another screen."""

    period: Period = PERIODS[1]
    compared: bool = True
    metric: str = "activities"
    steps: list[str | None] = field(default_factory=lambda: [None] * FEWEST_STEPS)
    window: int = 7
    dropped_at: int | None = None

    def filters(self, today: date) -> Filters:
        """Return the filters for the period up to ``today``."""
        return Filters(first=today - timedelta(days=self.period.days - 1), last=today)

    @property
    def compare(self) -> Literal["previous", "none"]:
        return "previous" if self.compared else "none"

    @property
    def interval(self) -> str:
        """Interval of the trend: "hour" for one day, else "day"."""
        return "hour" if self.period.days == 1 else "day"

    @property
    def funnel(self) -> tuple[str, ...] | None:
        """The funnel's steps; None until at least FEWEST_STEPS are set and none is empty."""
        steps = tuple(step for step in self.steps if step is not None)
        return steps if len(steps) == len(self.steps) >= FEWEST_STEPS else None
