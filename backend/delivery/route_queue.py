"""Route queue: a route's channel, its concurrency and its rate limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flashflow.backend.delivery.back_off import BackOff
from flashflow.backend.domain.channel import BaseChannel


class RouteQueue:
    """State shared by a route's dispatcher and the outbox. Thread-safe; ``now`` is monotonic time in seconds.

    ``connections``: most concurrent sends, not counting those aside (see ``BaseChannel.aside``). ``ahead``: further
    deliveries that may be claimed, so that no connection waits for the commit of its last result.
    ``rate_per_second``: most starts per second, None for no limit.
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
        """When failed deliveries are tried again. May be replaced at any time."""
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
        """Most concurrent sends, including those aside."""
        return self._connections + self.channel.aside

    @property
    def places(self) -> int:
        """Most deliveries in flight: claimed and not yet recorded."""
        return self.connections + self._ahead

    # --- its dispatcher, one at a time

    @property
    def busy(self) -> bool:
        """Whether a dispatcher runs, so that sends may be in progress."""
        return self._wake is not None

    def enter(self, wake: Callable[[], None]) -> bool:
        """Register a dispatcher and its ``wake``; return False if there is one already or the queue is retired."""
        with self._changed:
            if self.retired or self._wake is not None:
                return False
            self._wake = wake
            return True

    def leave(self) -> None:
        """Unregister the dispatcher."""
        with self._changed:
            self._wake = None
            self._changed.notify_all()

    def wake(self) -> None:
        """Make the dispatcher look for due deliveries."""
        with self._changed:
            if self._wake is not None:
                self._wake()

    def retire(self) -> None:
        """Start no further sends."""
        with self._changed:
            self.retired = True
        self.wake()

    def wait_until_idle(self, end: float) -> bool:
        """Block until no dispatcher runs or ``time.monotonic`` reaches ``end``; return whether none runs."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.busy, max(0.0, end - time.monotonic()))

    # --- rate limit and pause

    @property
    def is_rated(self) -> bool:
        """Whether starts per second are limited."""
        return self._gap_s > 0

    def pause(self, until: float) -> None:
        """Start nothing before ``until``: the provider asked to wait."""
        with self._changed:
            self._paused_until = max(self._paused_until, until)

    def is_open(self, now: float) -> bool:
        """Whether the queue is neither retired nor paused."""
        return not self.retired and self._paused_until <= now

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next start that pause and rate allow."""
        return max(self._paused_until, self._next_start) - now

    def reserve(self, most: int, now: float) -> int:
        """Reserve up to ``most`` starts; return how many the rate allows now."""
        if not self.is_rated or most <= 0:
            return max(0, most)
        with self._changed:
            if self._next_start > now:
                return 0
            self._next_start = now + self._gap_s
            return 1

    def unreserve(self, count: int) -> None:
        """Return ``count`` reserved starts that were not used."""
        with self._changed:
            self._next_start -= self._gap_s * count
