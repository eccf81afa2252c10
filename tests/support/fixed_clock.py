"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class StillClock:
    """Noon of 10 June 2026 in UTC, a Wednesday, unless told otherwise."""

    def __init__(self, moment: datetime = datetime(2026, 6, 10, 12, tzinfo=UTC)) -> None:
        self.now = moment

    def now_ms(self) -> int:
        return round(self.now.timestamp() * 1000)

    def monotonic(self) -> float:
        return self.now.timestamp()

    def go(self, **spans: float) -> datetime:
        """Move on, by ``timedelta``'s own words (``minutes=31``); returns the new time."""
        self.now += timedelta(**spans)
        return self.now

    def at(self, **spans: float) -> datetime:
        """The time that far from now: ``at(hours=-2)`` is two hours ago."""
        return self.now + timedelta(**spans)
