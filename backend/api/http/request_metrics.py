"""How many requests were answered, how, and how long each took until its answer began.

Belongs to the server's loop: it counts there and is read there, so nothing is locked. A request costs it two looks at
the clock, one at a table and two additions.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter

from starlette.types import Message, Scope, Send

from flashflow.backend.api.http.problem_json import WHOLE

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
"""Seconds: the upper ends of the histogram's buckets, before the one without an end."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
OTHER = "other"
"""Any other method: a caller can make up as many as it likes."""
EXPECTED = tuple((method, status) for method in ("DELETE", "GET", "POST", "PUT") for status in (200, 400, 500))
"""Counted from 0 on: a rate needs to have seen a series before its first request."""


class RequestMetrics:
    """The server's counts by method and status."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, int], list[float]] = {}
        """How many requests fell into each bucket, and at the end the seconds of all."""
        for method, status in EXPECTED:
            self._cell(method, status)

    def add(self, method: str, status: int, seconds: float) -> None:
        """One more; ``method`` is one of METHODS or OTHER."""
        cell = self._cells.get((method, status)) or self._cell(method, status)
        cell[bisect_left(BOUNDS, seconds)] += 1
        cell[-1] += seconds

    def counts(self) -> Counter[tuple[str, str]]:
        """(method, class of status) → requests."""
        found: Counter[tuple[str, str]] = Counter()
        for (method, status), cell in self._cells.items():
            found[method, f"{status // 100}xx"] += int(sum(cell[:-1]))
        return found

    def durations(self) -> dict[str, tuple[list[int], float]]:
        """Method → how many took up to each of BOUNDS, and all of them at the end; and the seconds of all."""
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
    """``send`` for an answer that is counted when it begins: for all but the endpoints, which count by themselves."""
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
