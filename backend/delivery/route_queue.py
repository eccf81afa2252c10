"""One route's way out: its channel, how many tries run side by side, how many may begin in a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flashflow.backend.delivery.back_off import BackOff
from flashflow.backend.domain.channel import BaseChannel


class RouteQueue:
    """What a route's clerk and the outbox know of each other. Thread-safe; ``now`` is a monotonic time in seconds.

    ``connections`` tries run side by side at most, beside those that stand aside. ``ahead`` more deliveries may be
    claimed, so that a connection need not wait while a commit records what it has just done.
    """

    def __init__(
        self,
        channel: BaseChannel,
        *,
        connections: int = 2,
        ahead: int = 0,
        rate_per_second: float | None = None,
        back_off: BackOff | None = None,
    ) -> None:
        self.channel = channel
        self.back_off = back_off or BackOff()
        """When its failed deliveries are tried again; may be replaced at any time."""
        self._connections = connections
        self._ahead = ahead
        self.retired = False
        self._gap_s = 0.0 if rate_per_second is None else 1 / rate_per_second
        self._next_start = 0.0
        self._paused_until = 0.0
        self._wake: Callable[[], None] | None = None
        self._changed = threading.Condition()
        channel.on_aside = self.wake

    @property
    def connections(self) -> int:
        """Tries side by side at most, and those that stand aside."""
        return self._connections + self.channel.aside

    @property
    def places(self) -> int:
        """Deliveries in hand at most: claimed, and not recorded yet."""
        return self.connections + self._ahead

    # --- its clerk, of whom there is one at a time

    @property
    def busy(self) -> bool:
        """Whether its clerk is there, and so whether anything may be under way."""
        return self._wake is not None

    def enter(self, wake: Callable[[], None]) -> bool:
        """Take the clerk's place; whether it was free. ``wake`` has this clerk look again."""
        with self._changed:
            if self.retired or self._wake is not None:
                return False
            self._wake = wake
            return True

    def leave(self) -> None:
        with self._changed:
            self._wake = None
            self._changed.notify_all()

    def wake(self) -> None:
        """Something may be due."""
        with self._changed:
            if self._wake is not None:
                self._wake()

    def retire(self) -> None:
        """Begin nothing any more."""
        with self._changed:
            self.retired = True
        self.wake()

    def wait_until_idle(self, end: float) -> bool:
        """Whether nothing is under way any more, by the time ``end`` of ``time.monotonic``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.busy, max(0.0, end - time.monotonic()))

    # --- when tries may begin

    @property
    def is_rated(self) -> bool:
        """Whether only so many tries may begin in a second."""
        return self._gap_s > 0

    def pause(self, until: float) -> None:
        """The provider asked for patience: begin nothing before ``until``."""
        with self._changed:
            self._paused_until = max(self._paused_until, until)

    def is_open(self, now: float) -> bool:
        """Whether it is neither retired nor pauses."""
        return not self.retired and self._paused_until <= now

    def wait_s(self, now: float) -> float:
        """Seconds until the next try may begin, by its pause and its rate."""
        return max(self._paused_until, self._next_start) - now

    def reserve(self, most: int, now: float) -> int:
        """Take up to ``most`` starts; how many its rate allows now."""
        if not self.is_rated or most <= 0:
            return max(0, most)
        with self._changed:
            if self._next_start > now:
                return 0
            self._next_start = now + self._gap_s
            return 1

    def unreserve(self, count: int) -> None:
        """Give back starts that were not made."""
        with self._changed:
            self._next_start -= self._gap_s * count
