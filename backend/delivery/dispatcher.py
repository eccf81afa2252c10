"""Dispatcher of one route: claim due deliveries, hand them to sender threads, record the results.

Only this thread uses the store, and it batches claims and results into one transaction: a transaction is expensive, a
statement in it cheap, and threads that contend for the store cost more than either. Senders only send::

    store ← batches ─ dispatcher ─ to_send ─→ senders, one per connection
                          ↑                      │
                          └────── finished ──────┘

A killed process repeats at most the deliveries in flight: no more than the route queue's ``places``.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.delivery_messages import AttemptResult, Claimed, NextStep

T = TypeVar("T")

log = logging.getLogger(__name__)

STANDBY_S = 0.25
"""Longest time in seconds that a claimed delivery waits for a free connection. A cancellation or an opt-out in that
time has no effect. While a provider takes longer than this, nothing is claimed ahead of a free connection."""
FAULT_S = 1.0
"""Pause in seconds after a failure of the store or of a sender."""
GATHER_S = 0.006
"""Longest time in seconds that a result waits to be recorded together with others, while senders have work queued."""
NEAR_S = 1.0
"""Longest wait in seconds for the next start that the rate allows; beyond it the dispatcher ends and the outbox starts
another one later."""

Recorded = Callable[[str, AttemptResult], None]
"""Called with the route and the try after the try is on disk."""


class DeliveryQueue(Protocol):
    """Store of queued deliveries. Each call may raise a FlashFlowError and is then repeated."""

    def run_steps(self, steps: Sequence[NextStep]) -> Sequence[Claimed | BaseException | None]: ...
    def give_back(self, delivery_id: str) -> None: ...
    def recover(self, *, all_leases: bool) -> int: ...
    def hasten(self, route: str, codes: Sequence[str]) -> int: ...
    def refuse_routes(self, routes: Sequence[str]) -> int: ...
    def next_due(self, routes: Sequence[str]) -> dict[str, int]: ...
    def next_lease(self) -> int | None: ...


class _InFlight(NamedTuple):
    claimed: Claimed
    until: float
    """Latest start, in seconds of ``time.monotonic``."""


class _Untried(NamedTuple):
    """A delivery to give back; None where its result is unknown, so that only the end of its lease releases it."""

    delivery_id: str | None


class _Wake:
    """Look again although no result came back."""


_WAKE = _Wake()


class Dispatcher:
    """Serve one route queue until nothing is due and nothing in flight. Used once."""

    def __init__(
        self,
        route: str,
        route_queue: RouteQueue,
        deliveries: DeliveryQueue,
        clock: Clock,
        *,
        chance: random.Random,
        stopping: threading.Event,
        recorded: Recorded,
        given_back: Callable[[], None],
    ) -> None:
        self._route = route
        self._route_queue = route_queue
        self._deliveries = deliveries
        self._clock = clock
        self._chance = chance
        self._stopping = stopping
        self._recorded = recorded
        self._given_back = given_back
        self._to_send: queue.SimpleQueue[_InFlight | None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[AttemptResult | _Untried | _Wake] = queue.SimpleQueue()
        self._in_flight = 0
        self._senders = 0
        self._begin_by = 0.0
        """Earliest ``until`` of the deliveries that wait for a sender, or earlier."""
        self._slow = False
        """Whether the provider is slow; then nothing is claimed ahead of a free connection."""

    def wake(self) -> None:
        """Look again: a delivery may be due, or the route queue retired. Thread-safe."""
        self._finished.put(_WAKE)

    def run(self) -> None:
        tried: list[AttemptResult] = []
        try:
            while True:
                claimable = self._claimable(len(tried))
                claimed, tried = self._commit(tried, claimable) if tried or claimable else (0, [])
                if not self._in_flight and self._is_over(claimable, claimed):
                    return
                tried += self._results(0.0 if tried else self._wait_s(more=claimed == claimable))
        finally:
            self._take_back()
            for _ in range(self._senders):
                self._to_send.put(None)

    # --- what may be claimed

    def _goes_on(self) -> bool:
        return not self._stopping.is_set() and self._route_queue.is_open(self._clock.monotonic())

    def _room(self) -> int:
        return (self._route_queue.connections if self._slow else self._route_queue.places) - self._in_flight

    def _claimable(self, tried: int) -> int:
        """Return how many deliveries to claim in the batch that records ``tried`` results.

        Give back the waiting deliveries where none may start any more.
        """
        if not self._goes_on():
            self._take_back()
            return 0
        return self._route_queue.reserve(self._room() + tried, self._clock.monotonic())

    def _is_over(self, claimable: int, claimed: int) -> bool:
        if not self._goes_on() or claimable > claimed:
            return True
        return not claimable and self._route_queue.wait_s(self._clock.monotonic()) > NEAR_S

    # --- the store

    def _commit(self, tried: Sequence[AttemptResult], claimable: int) -> tuple[int, list[AttemptResult]]:
        """Record results and claim deliveries in one transaction.

        Return the number of claims and the results that could not be recorded and must be repeated.
        """
        steps = [
            NextStep(
                route=self._route if place < claimable else None,
                lease_ms=self._route_queue.channel.lease_ms,
                tried=tried[place] if place < len(tried) else None,
            )
            for place in range(max(len(tried), claimable))
        ]
        results: Sequence[Claimed | BaseException | None]
        try:
            results = self._deliveries.run_steps(steps)
        except Exception as error:  # noqa: BLE001 distinguished below
            results = [error] * len(steps)
        claims: list[Claimed] = []
        left: list[AttemptResult] = []
        failed = False
        for step, result in zip(steps, results, strict=True):
            if isinstance(result, BaseException):
                failed = True
                if isinstance(result, FlashFlowError):
                    log.warning("dispatcher of %s waits: %s", self._route, result)
                    # The provider has taken these: a full disk must not lose their results.
                    left += [step.tried] if step.tried is not None else []
                else:
                    log.error("a dispatcher step of %s failed", self._route, exc_info=result)
                continue
            if step.tried is not None:
                self._recorded(self._route, step.tried)
            if result is not None:
                claims.append(result)
        self._in_flight += len(claims) + len(left) - len(tried)
        if len(claims) < claimable:
            self._route_queue.unreserve(claimable - len(claims))
        self._hand_out(claims)
        if failed and self._stopping.wait(FAULT_S):
            self._in_flight -= len(left)  # recovered at the next start
            left = []
        return len(claims), left

    def _give_back(self, delivery_id: str | None) -> None:
        self._in_flight -= 1
        try:
            if delivery_id is not None:
                self._deliveries.give_back(delivery_id)
                # After a change of settings another dispatcher serves the route; it may have found nothing due.
                self._given_back()
        except FlashFlowError as error:
            log.warning("a delivery could not be given back; its lease will end: %s", error)

    def _take_back(self, due: float | None = None) -> None:
        """Give back the deliveries that wait for a sender: all, or those whose ``until`` is not after ``due``."""
        kept: list[_InFlight] = []
        while (waits := _get(self._to_send, 0.0)) is not None:
            if due is None or waits.until <= due:
                self._give_back(waits.claimed.message.delivery_id)
                self._slow = True
            else:
                kept.append(waits)
        for waits in kept:
            self._to_send.put(waits)
        self._begin_by = min((waits.until for waits in kept), default=0.0)

    # --- the senders

    def _hand_out(self, claims: Sequence[Claimed]) -> None:
        until = time.monotonic() + STANDBY_S
        if self._to_send.empty():
            self._begin_by = until
        for claimed in claims:
            self._to_send.put(_InFlight(claimed, until))
        while self._senders < min(self._in_flight, self._route_queue.connections):
            # A daemon, so that a channel that hangs cannot hold up the end of the process.
            threading.Thread(target=self._send, name=f"flashflow-{self._route}-send", daemon=True).start()
            self._senders += 1

    def _results(self, wait_s: float | None) -> list[AttemptResult]:
        """Return the results that came back; block up to ``wait_s`` seconds (None: no limit) for a first event."""
        event = _get(self._finished, wait_s)
        tried: list[AttemptResult] = []
        end = time.monotonic() + GATHER_S
        while event is not None:
            if isinstance(event, AttemptResult):
                tried.append(event)
                self._slow = event.duration_ms > STANDBY_S * 1000
            elif isinstance(event, _Untried):
                self._give_back(event.delivery_id)
            gathers = tried and self._to_send.qsize() > 1
            event = _get(self._finished, max(0.0, end - time.monotonic()) if gathers else 0.0)
        if not self._to_send.empty() and time.monotonic() >= self._begin_by:
            self._take_back(time.monotonic())
        return tried

    def _wait_s(self, *, more: bool) -> float | None:
        """Return the longest time in seconds to wait for a result; None: no limit. ``more``: more may be due."""
        waits = []
        if not self._to_send.empty():
            waits.append(self._begin_by - time.monotonic())
        if more and self._route_queue.is_rated and self._room() > 0 and self._goes_on():
            waits.append(self._route_queue.wait_s(self._clock.monotonic()))
        return max(0.0, min(waits)) if waits else None

    def _send(self) -> None:
        while (waits := self._to_send.get()) is not None:
            delivery_id = waits.claimed.message.delivery_id
            try:
                begun = self._goes_on() and time.monotonic() < waits.until
                self._finished.put(self._try(waits.claimed) if begun else _Untried(delivery_id))
            except Exception:
                log.exception("a sender of %s failed", self._route)
                self._stopping.wait(FAULT_S)  # the next would fail at once, too
                self._finished.put(_Untried(None))

    def _try(self, claimed: Claimed) -> AttemptResult:
        route_queue = self._route_queue
        started, clock = self._clock.now_ms(), self._clock.monotonic()
        outcome = route_queue.channel.send(claimed.message)
        now, monotonic = self._clock.now_ms(), self._clock.monotonic()
        if outcome.retry_after_s and not outcome.alone:
            route_queue.pause(monotonic + outcome.retry_after_s)
        retry = route_queue.back_off.next_try(
            claimed, outcome, started_at=started, now_ms=now, chance=self._chance.random()
        )
        return AttemptResult(
            delivery_id=claimed.message.delivery_id,
            started_at=started,
            duration_ms=round((monotonic - clock) * 1000),
            outcome=outcome,
            retry=retry,
            previous_code=claimed.previous_code,
        )


def _get(waiting: queue.SimpleQueue[T], wait_s: float | None) -> T | None:
    """Return the first entry, waiting up to ``wait_s`` seconds for it (None: no limit); None if there is none."""
    try:
        return waiting.get_nowait() if wait_s == 0 else waiting.get(timeout=wait_s)
    except queue.Empty:
        return None
