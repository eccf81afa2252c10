"""Counts of what happened since the start, by labels: kept in memory, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Counter:
    """How often each tuple of labels was counted. Thread-safe; labels come from what the owner configured or from
    words of our own, never from callers, so there are few."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str) -> None:
        """One more."""
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + 1

    def expect(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Count these from 0 on: a rate needs to have seen them before the first."""
        with self._lock:
            for labels in rows:
                self._counts.setdefault(labels, 0)

    def counts(self) -> dict[tuple[str, ...], int]:
        """All of them, as they stand."""
        with self._lock:
            return dict(self._counts)
