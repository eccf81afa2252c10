"""Clocks, time conversions and ids. Clocks are passed to constructors so that tests can fix the time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Clock(Protocol):
    """Source of wall-clock and monotonic time."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970 in UTC. Wall-clock time may jump."""

    def monotonic(self) -> float:
        """Return seconds that never decrease."""


class SystemClock:
    """Clock of the operating system."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class Age:
    """Time since its creation by both clocks: the monotonic one may stop during sleep, the wall clock may jump."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now_ms(), clock.monotonic()

    def is_below(self, seconds: float) -> bool:
        """Whether less than ``seconds`` passed; False if the wall clock was set back."""
        wall_ms, monotonic = self._began
        wall_s = (self._clock.now_ms() - wall_ms) / 1000
        return 0 <= wall_s < seconds and self._clock.monotonic() - monotonic < seconds


def to_datetime(ms: int) -> datetime:
    """Convert ``ms`` since 1970 to an aware UTC datetime, exact to the millisecond."""
    return EPOCH + timedelta(milliseconds=ms)


def to_ms(value: datetime) -> int:
    """Convert an aware datetime to whole milliseconds since 1970, rounded down."""
    return (value - EPOCH) // timedelta(milliseconds=1)


def rfc3339(ms: int) -> str:
    """Return ``ms`` since 1970 as the API writes it: ``2026-11-22T10:15:30.123Z``."""
    seconds, rest = divmod(ms, 1000)
    return f"{_whole_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=4096)
def _whole_second(seconds: int) -> str:
    return to_datetime(seconds * 1000).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339_of(value: datetime) -> str:
    """Return an aware UTC datetime as ``rfc3339`` does."""
    return value.isoformat(timespec="milliseconds")[:-6] + "Z"


def file_stamp(ms: int) -> str:
    """Return ``ms`` since 1970 as it stands in file names: ``20261122T101530123Z``."""
    return rfc3339(ms).translate(_IN_FILE_NAMES)


_IN_FILE_NAMES = {ord(character): None for character in "-:."}


class IdMaker:
    """Generator of UUIDv7s that increase within one process, also within one millisecond.

    Uses method 1 of RFC 9562, section 6.2: the 12 bits after the version count up within a millisecond. When they are
    used up, the millisecond runs ahead of the clock.
    """

    def __init__(self, clock: Clock, random: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random = random
        self._tick = 0

    def __call__(self) -> str:
        """Return a new id as text."""
        h = self.raw().hex()
        return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"

    def raw(self) -> bytes:
        """Return a new id as its 16 bytes."""
        # Two threads may draw the same tick; their ids still differ in 62 random bits.
        self._tick = tick = max(self._clock.now_ms() << 12, self._tick + 1)
        tail = int.from_bytes(self._random(8), "big") & 0x3FFFFFFFFFFFFFFF | 0x8000000000000000
        return ((tick >> 12) << 80 | 0x7000 << 64 | (tick & 0xFFF) << 64 | tail).to_bytes(16, "big")
