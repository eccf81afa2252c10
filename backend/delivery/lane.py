"""One route's way out: its channel, how many tries run side by side, how many may begin in a second."""

from __future__ import annotations

import threading
import time

from backend.delivery.channel import BaseChannel
from backend.delivery.clerk import Clerk
from backend.handover import Claimed, Turn


class Lane:
    """Counts a route's workers. Thread-safe; ``now`` is a monotonic time in seconds.

    ``connections`` tries run side by side at most. ``ahead`` more workers may stand behind them with a delivery in
    hand, so that a connection need not wait while a commit records what it has just done.
    """

    def __init__(
        self, channel: BaseChannel, *, connections: int = 2, ahead: int = 0, rate_per_second: float | None = None
    ) -> None:
        self.channel = channel
        self.retired = False
        self._connections = connections
        self._places = connections + ahead
        self._gap_s = 0.0 if rate_per_second is None else 1 / rate_per_second
        self._busy = 0
        self._connected = 0
        self._standing_by = 0
        self._next_start = 0.0
        self._paused_until = 0.0
        self._freed = threading.Condition()
        self._free = threading.Condition()  # told of one connection, it wakes one: to wake all costs more than a mail
        self.clerk: Clerk[Turn, Claimed | None] = Clerk()

    @property
    def busy(self) -> int:
        """Workers under way."""
        return self._busy

    @property
    def has_room(self) -> bool:
        return self._busy < self._places

    @property
    def is_rated(self) -> bool:
        """Whether only so many tries may begin in a second."""
        return self._gap_s > 0

    @property
    def is_saturated(self) -> bool:
        """Whether there are more deliveries in hand than connections for them: a worker that takes its time at the
        store keeps none of them idle."""
        return self._connected + self._standing_by > self._connections

    def enter(self) -> bool:
        """Take a worker's place; whether there was one."""
        with self._freed:
            if self.retired or self._busy >= self._places:
                return False
            self._busy += 1
            return True

    def leave(self) -> None:
        with self._freed:
            self._busy -= 1
            self._freed.notify_all()

    def connect(self, wait_s: float) -> bool:
        """Take a connection as soon as one is free; False where none was within ``wait_s``, or the lane retired."""
        with self._free:
            self._standing_by += 1
            self._free.wait_for(lambda: self.retired or self._connected < self._connections, wait_s)
            self._standing_by -= 1
            if self.retired or self._connected >= self._connections:
                return False
            self._connected += 1
            return True

    def disconnect(self) -> None:
        """Give the connection back."""
        with self._free:
            self._connected -= 1
            self._free.notify()

    def retire(self) -> None:
        """Let nobody in any more, and send away who waits."""
        with self._freed:
            self.retired = True
            self._freed.notify_all()
        with self._free:
            self._free.notify_all()

    def pause(self, until: float) -> None:
        """The provider asked for patience: begin nothing before ``until``."""
        with self._freed:
            self._paused_until = max(self._paused_until, until)

    def pause_s(self, now: float) -> float:
        """How long it still pauses, in seconds."""
        return self._paused_until - now

    def reserve(self, now: float) -> float:
        """Take the next start that the rate allows; seconds until it."""
        if not self._gap_s:
            return 0.0
        with self._freed:
            start = max(now, self._next_start)
            self._next_start = start + self._gap_s
            return start - now

    def unreserve(self) -> None:
        """Give back a start that was not made."""
        with self._freed:
            self._next_start -= self._gap_s

    def rest(self, wait_s: float) -> None:
        """Wait so long, or until the lane retires."""
        with self._freed:
            self._freed.wait_for(lambda: self.retired, wait_s)

    def wait_until_idle(self, end: float) -> bool:
        """Whether no worker is under way any more, by the time ``end`` of ``time.monotonic``."""
        with self._freed:
            return self._freed.wait_for(lambda: not self._busy, max(0.0, end - time.monotonic()))
