"""The outbox's workers: claim what is due, try it on its channel, record what happened, try again later.

At least once: a crash between a provider's yes and our commit repeats that one delivery when its lease runs out.
A slow channel holds up only itself: each has its own workers, and claims no more than they can take.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from backend.clock import Clock
from backend.delivery.channel import BaseChannel
from backend.errors import FlashFlowError
from backend.handover import Notice, Outcome

log = logging.getLogger(__name__)

LEASE_MS = 60_000
FAULT_S = 1.0
IDLE_S = 30.0
"""How long to wait at most without looking: for a clock that jumped."""


class Retry(msgspec.Struct, frozen=True):
    """Full-jitter back-off [AWS Architecture Blog, "Exponential Backoff And Jitter"]: seconds, and tries in all."""

    base_s: float = 1.0
    most_s: float = 900.0
    tries: int = 8

    def wait_s(self, tries: int, outcome: Outcome, chance: float) -> float | None:
        """Seconds until the next try after ``tries``; None when there is none. ``chance`` is in [0, 1)."""
        if outcome.outcome not in {"transient", "throttled"} or tries >= self.tries:
            return None
        wait: float = min(self.most_s, self.base_s * 2.0 ** (tries - 1)) * chance
        return max(wait, outcome.retry_after_s or 0.0)


class Queue(Protocol):
    """What the outbox needs of the store; ``full`` are the channels that can take nothing more now."""

    def claim(self, limit: int, lease_ms: int, full: Sequence[str]) -> list[tuple[str, int, Notice]]: ...

    def record_try(
        self, notice: Notice, started_at: int, duration_ms: int, outcome: Outcome, retry_at: int | None
    ) -> None: ...

    def give_back(self, delivery_id: str) -> None: ...

    def next_due(self, full: Sequence[str]) -> int | None: ...


class Outbox:
    """Runs from ``start`` to ``stop``; ``wake`` tells it that something new may be due."""

    def __init__(
        self,
        queue: Queue,
        channels: Mapping[str, BaseChannel],
        clock: Clock,
        *,
        retry: Retry | None = None,
        workers: int = 2,
        chance: random.Random | None = None,
    ) -> None:
        self._queue = queue
        self._channels = channels
        self._clock = clock
        self._retry = retry or Retry()
        self._workers = workers
        self._chance = chance or random.Random()  # noqa: S311 jitter needs no secrecy
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._busy = Counter[str]()
        self._freed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="flashflow-outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look again now."""
        self._bell.set()

    def stop(self, wait_s: float = 1.5) -> None:
        """Take nothing new and let go within about ``wait_s``: what is under way may end, what still hangs then has its
        channel closed, and what hangs after that is claimed again by the next start."""
        end = time.monotonic() + wait_s
        self._stopping.set()
        self._bell.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)
        self._wait_until_idle(end - wait_s / 2)
        for channel in self._channels.values():
            channel.close()
        self._wait_until_idle(end)

    def _wait_until_idle(self, end: float) -> None:
        with self._freed:
            self._freed.wait_for(lambda: not self._busy.total(), max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                full, limit = self._room()
                wait = 0.0 if self._round(full, limit) else self._until_due(full)
            except FlashFlowError as error:
                log.warning("the outbox waits: %s", error)
                wait = FAULT_S
            except Exception:
                log.exception("the outbox failed; it goes on")
                wait = FAULT_S
            if wait:
                self._bell.wait(wait)

    def _room(self) -> tuple[list[str], int]:
        """The channels that can take nothing more, and how much each of the others can."""
        with self._freed:
            left = {name: self._workers - self._busy[name] for name in self._channels}
        return [name for name in left if not left[name]], min(filter(None, left.values()), default=self._workers)

    def _round(self, full: Sequence[str], limit: int) -> bool:
        """Claim and hand out one round; whether there may be more."""
        claimed = self._queue.claim(limit, LEASE_MS, full)
        for channel, tries, notice in claimed:
            if channel not in self._channels:
                self._record(notice, tries, self._clock.now_ms(), 0, _no_channel(channel))
                continue
            with self._freed:
                self._busy[channel] += 1
            # A daemon, so that a channel that hangs cannot hold up the end of the process.
            name = f"flashflow-{channel}"
            threading.Thread(target=self._work, args=(channel, tries, notice), name=name, daemon=True).start()
        return bool(claimed)

    def _work(self, channel: str, tries: int, notice: Notice) -> None:
        try:
            self._try(channel, tries, notice)
        except FlashFlowError as error:
            log.warning("a delivery could not be given back; its lease will run out: %s", error)
        finally:
            with self._freed:
                self._busy[channel] -= 1
                self._freed.notify_all()
            self._bell.set()

    def _try(self, channel: str, tries: int, notice: Notice) -> None:
        if self._stopping.is_set():
            self._queue.give_back(notice.delivery_id)
            return
        started, clock = self._clock.now_ms(), self._clock.monotonic()
        outcome = self._channels[channel].send(notice)
        self._record(notice, tries, started, round((self._clock.monotonic() - clock) * 1000), outcome)

    def _record(self, notice: Notice, tries: int, started: int, duration: int, outcome: Outcome) -> None:
        wait = self._retry.wait_s(tries, outcome, self._chance.random())
        retry_at = None if wait is None else self._clock.now_ms() + round(wait * 1000)
        try:
            self._queue.record_try(notice, started, duration, outcome, retry_at)
        except FlashFlowError as error:
            log.warning("an attempt could not be recorded; its lease will run out: %s", error)

    def _until_due(self, full: Sequence[str]) -> float:
        due = self._queue.next_due(full)
        if due is None:
            return IDLE_S
        return min(IDLE_S, max(0.01, (due - self._clock.now_ms()) / 1000))


def _no_channel(channel: str) -> Outcome:
    return Outcome(outcome="permanent", code="not_configured", text=f"The channel {channel} is not configured.")
