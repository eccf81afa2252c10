"""Network return: after the first success, retry at once the deliveries that failed for want of a network."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from flashflow.backend.domain.delivery_messages import AttemptResult

UNREACHED = ("timeout", "unreachable")
"""Codes of tries that never reached their provider: no route, no such name, connection refused, no answer."""
LOCAL_ROUTES = frozenset({"desktop"})
"""Routes that need no network; their results are ignored."""

FIRST_GAP_S = 5.0
"""Shortest and longest time in seconds between two retries of a route."""
LONGEST_GAP_S = 900.0


class NetworkReturn:
    """Track the routes with deliveries to retry after a success on any route. Thread-safe; ``now`` is monotonic.

    The gap between two retries of a route starts at ``FIRST_GAP_S`` and doubles: a server that alone is down must not
    be contacted after each success of another. A retried delivery that succeeds resets the gap of its route.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unreached: set[str] = set()
        """Routes that may have deliveries waiting after an UNREACHED failure."""
        self._to_retry: set[str] = set()
        """Routes to retry, each as soon as its gap is over."""
        self._gaps: dict[str, tuple[float, float]] = {}
        """Route → end of its gap, and length of the next gap in seconds."""
        self._succeeded_at = 0

    def watch(self, routes: Iterable[str]) -> None:
        """Add routes: an earlier process may have left deliveries waiting there."""
        with self._lock:
            self._unreached.update(set(routes) - LOCAL_ROUTES)

    def record(self, route: str, tried: AttemptResult) -> bool:
        """Register one recorded try; return whether it added a route to retry."""
        if route in LOCAL_ROUTES:
            return False
        with self._lock:
            before = len(self._to_retry)
            if tried.outcome.outcome in {"sent", "delivered"}:
                self._succeeded_at = max(self._succeeded_at, tried.started_at + tried.duration_ms)
                if tried.previous_code in UNREACHED:
                    self._gaps.pop(route, None)
                self._to_retry |= self._unreached
            elif tried.outcome.code in UNREACHED:
                self._unreached.add(route)
                if tried.started_at <= self._succeeded_at:  # the network came back while this try was under way
                    self._to_retry.add(route)
            return len(self._to_retry) > before

    def take(self, now: float) -> str | None:
        """Return a route to retry now and start its gap; None if there is none. Follow up with ``retried``."""
        with self._lock:
            for route in self._to_retry:
                over, gap = self._gaps.get(route, (now, FIRST_GAP_S))
                if over <= now:
                    self._to_retry.discard(route)
                    self._gaps[route] = (now + gap, min(2 * gap, LONGEST_GAP_S))
                    return route
            return None

    def wait_s(self, now: float) -> float | None:
        """Return the seconds until the next route to retry; None if there is none."""
        with self._lock:
            return min((self._gaps.get(route, (now, 0.0))[0] - now for route in self._to_retry), default=None)

    def retried(self, route: str, count: int | None) -> None:
        """Register how many deliveries of a taken route were waiting; None if the store could not say."""
        with self._lock:
            if count is None:
                self._to_retry.add(route)
            elif count == 0:
                self._unreached.discard(route)
                self._gaps.pop(route, None)
