"""In-memory counters by labels, for metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Counter:
    """Counter of events since the start by a tuple of labels. Thread-safe.

    Labels come from the owner's settings or from constants, never from callers, so their number is bounded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str) -> None:
        """Increment the count of ``labels``."""
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + 1

    def expect(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Add rows with count 0, so that a rate can be computed for the first event."""
        with self._lock:
            for labels in rows:
                self._counts.setdefault(labels, 0)

    def counts(self) -> dict[tuple[str, ...], int]:
        """Return a copy of all counts."""
        with self._lock:
            return dict(self._counts)
