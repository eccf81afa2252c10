"""Network return: after the first success, retry at once what failed because a provider could not be reached."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from flashflow.backend.domain.delivery_messages import AttemptResult

UNREACHED = ("timeout", "unreachable")
"""Codes of tries that never reached their provider: no route, no such name, connection refused, no answer."""
LOCAL_ROUTES = frozenset({"desktop"})
"""Routes that need no network, and so say nothing about it."""
FIRST_GAP_S = 5.0
LONGEST_GAP_S = 900.0


class NetworkReturn:
    """Knows which routes have deliveries to retry after a success on any route. Thread-safe; ``now`` is monotonic.

    A route is retried at once at most every ``FIRST_GAP_S``, doubling: a server that alone is down must not be asked
    again with each success of another. A delivery of the route that fails first and then arrives ends the gaps.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unreached: set[str] = set()
        """Routes that may have deliveries waiting after an UNREACHED failure."""
        self._wanted: set[str] = set()
        """Routes to retry, each as soon as its gap is over."""
        self._gaps: dict[str, tuple[float, float]] = {}
        """Route → when its gap is over, and how long the next gap is."""
        self._succeeded_at = 0

    def watch(self, routes: Iterable[str]) -> None:
        """Take up routes: deliveries of an earlier process may be waiting there."""
        with self._lock:
            self._unreached.update(set(routes) - LOCAL_ROUTES)

    def record(self, route: str, tried: AttemptResult) -> bool:
        """Take note of one recorded try. Return whether there is a route more to retry."""
        if route in LOCAL_ROUTES:
            return False
        with self._lock:
            before = len(self._wanted)
            if tried.outcome.outcome in {"sent", "delivered"}:
                self._succeeded_at = max(self._succeeded_at, tried.started_at + tried.duration_ms)
                if tried.previous_code in UNREACHED:
                    self._gaps.pop(route, None)
                self._wanted |= self._unreached
            elif tried.outcome.code in UNREACHED:
                self._unreached.add(route)
                if tried.started_at <= self._succeeded_at:  # the network came back while this try was under way
                    self._wanted.add(route)
            return len(self._wanted) > before

    def take(self, now: float) -> str | None:
        """A route to retry now; its gap begins. Answer with ``retried``."""
        with self._lock:
            for route in self._wanted:
                over, gap = self._gaps.get(route, (now, FIRST_GAP_S))
                if over <= now:
                    self._wanted.discard(route)
                    self._gaps[route] = (now + gap, min(2 * gap, LONGEST_GAP_S))
                    return route
            return None

    def wait_s(self, now: float) -> float | None:
        """Seconds until a route is due; None where none is wanted."""
        with self._lock:
            return min((self._gaps.get(route, (now, 0.0))[0] - now for route in self._wanted), default=None)

    def retried(self, route: str, count: int | None) -> None:
        """Take note of how many deliveries of a taken route were waiting; None where that could not be found out."""
        with self._lock:
            if count is None:
                self._wanted.add(route)
            elif count == 0:
                self._unreached.discard(route)
                self._gaps.pop(route, None)
