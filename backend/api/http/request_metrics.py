"""Counts and durations of answered requests, by method and status.

Belongs to the server's event loop, so it needs no lock. A request costs two clock readings, one dictionary look-up and
two additions.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter

from starlette.types import Message, Scope, Send

from flashflow.backend.api.http.problem_json import WHOLE

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
"""Upper ends of the histogram's buckets in seconds; a last bucket has no upper end."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
OTHER = "other"
"""Label of every other method, to bound the number of labels."""
EXPECTED = tuple((method, status) for method in ("DELETE", "GET", "POST", "PUT") for status in (200, 400, 500))
"""Series that exist from the start: ``rate()`` needs a value before the first request."""


class RequestMetrics:
    """Counts and durations by method and status."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, int], list[float]] = {}
        """(method, status) → requests in each bucket, then the sum of seconds."""
        for method, status in EXPECTED:
            self._cell(method, status)

    def add(self, method: str, status: int, seconds: float) -> None:
        """Count one request; ``method`` is one of METHODS or OTHER."""
        cell = self._cells.get((method, status)) or self._cell(method, status)
        cell[bisect_left(BOUNDS, seconds)] += 1
        cell[-1] += seconds

    def counts(self) -> Counter[tuple[str, str]]:
        """Return requests by (method, status class)."""
        found: Counter[tuple[str, str]] = Counter()
        for (method, status), cell in self._cells.items():
            found[method, f"{status // 100}xx"] += int(sum(cell[:-1]))
        return found

    def durations(self) -> dict[str, tuple[list[int], float]]:
        """Return by method the cumulative counts for BOUNDS and for all, and the sum of seconds."""
        sums: dict[str, list[float]] = {}
        for (method, _), cell in self._cells.items():
            known = sums.setdefault(method, [0.0] * len(cell))
            sums[method] = [a + b for a, b in zip(known, cell, strict=True)]
        found = {}
        for method, cell in sums.items():
            up_to, running = [], 0
            for count in cell[:-1]:
                running += int(count)
                up_to.append(running)
            found[method] = (up_to, cell[-1])
        return found

    def _cell(self, method: str, status: int) -> list[float]:
        return self._cells.setdefault((method, status), [0.0] * (len(BOUNDS) + 2))


def counting(requests: RequestMetrics, scope: Scope, send: Send) -> Send:
    """Return ``send`` wrapped to count the response at its start. Endpoints count by themselves."""
    if scope["type"] != "http":
        return send
    started = time.perf_counter()
    method = scope["method"] if scope["method"] in METHODS else OTHER

    async def counted(message: Message) -> None:
        if message["type"] in _BEGINS:
            requests.add(method, message["status"], time.perf_counter() - started)
        await send(message)

    return counted


_BEGINS = {"http.response.start", WHOLE}
