"""A lane's clerk: claims what is due, hands it to the senders, records what became of it.

Everything that meets the store goes through this one thread, several turns in one transaction: a transaction costs much
and a turn in it little, and threads that wait for each other at the store cost more than either. Senders only send::

    store ← turns ─ clerk ─ todo ─→ senders, one to a connection
                      ↑                │
                      └───── came ─────┘

A kill repeats at most what is in hand: as many as the lane has places.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.delivery_messages import AttemptResult, Claimed, NextStep, Outcome, Retrial

log = logging.getLogger(__name__)

STANDBY_S = 0.25
"""How long a delivery is kept in hand until a connection is free: what its reader turns off or its sender calls off
meanwhile goes out all the same. Behind a provider that takes longer nothing is claimed ahead of its turn."""
FAULT_S = 1.0
GATHER_S = 0.006
"""How long a result waits for others at most, while the senders have more to take up than one of them needs."""
NEAR_S = 1.0
"""The clerk itself waits for a start that the rate allows so soon; for a later one the outbox calls it again."""

NextTry = Callable[[Claimed, Outcome, int, int], Retrial | None]
"""After this outcome of a try that began and ended at these times: the next one, None for never."""
Recorded = Callable[[str, AttemptResult], None]
"""Called with the route and the try once a try is on disk."""


class DeliveryQueue(Protocol):
    """Where deliveries are claimed and recorded. Every call may raise a FlashFlowError and is then tried again."""

    def turns(self, turns: Sequence[NextStep]) -> Sequence[Claimed | BaseException | None]: ...
    def give_back(self, delivery_id: str) -> None: ...


class _InHand(NamedTuple):
    claimed: Claimed
    until: float
    """By when it must be begun; of ``time.monotonic``."""


class _Untried(NamedTuple):
    """A delivery to give back; None where nobody knows what became of it, which its lease will end."""

    delivery_id: str | None


class _Look:
    """Nothing came back, but there is reason to look again."""


_LOOK = _Look()


class Dispatcher:
    """Serves ``lane`` until nothing is due there and nothing in hand; used once."""

    def __init__(
        self,
        route: str,
        lane: RouteQueue,
        book: DeliveryQueue,
        clock: Clock,
        *,
        next_try: NextTry,
        stopping: threading.Event,
        recorded: Recorded,
    ) -> None:
        self._route = route
        self._lane = lane
        self._book = book
        self._clock = clock
        self._next_try = next_try
        self._stopping = stopping
        self._recorded = recorded
        self._todo: queue.SimpleQueue[_InHand | None] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[AttemptResult | _Untried | _Look] = queue.SimpleQueue()
        self._in_hand = 0
        self._senders = 0
        self._begin_by = 0.0
        """By when whatever waits for a sender must be begun, or earlier."""
        self._slow = False
        """Whether the provider is: then nothing is claimed ahead of a free connection."""

    def wake(self) -> None:
        """Look again: something may be due, or the lane may have retired."""
        self._came.put(_LOOK)

    def run(self) -> None:
        tried: list[AttemptResult] = []
        try:
            while True:
                wanted = self._wanted(len(tried))
                claimed, tried = self._turn(tried, wanted) if tried or wanted else (0, [])
                if not self._in_hand and self._is_over(wanted, claimed):
                    return
                tried += self._results(0.0 if tried else self._patience_s(more=claimed == wanted))
        finally:
            self._take_back()
            for _ in range(self._senders):
                self._todo.put(None)

    # --- what may be claimed

    def _goes_on(self) -> bool:
        return not self._stopping.is_set() and self._lane.is_open(self._clock.monotonic())

    def _room(self) -> int:
        return (self._lane.connections if self._slow else self._lane.places) - self._in_hand

    def _wanted(self, tried: int) -> int:
        """How many deliveries may be claimed while so many are recorded. Where none may be begun any more, those that
        wait are given back."""
        if not self._goes_on():
            self._take_back()
            return 0
        return self._lane.reserve(self._room() + tried, self._clock.monotonic())

    def _is_over(self, wanted: int, claimed: int) -> bool:
        if not self._goes_on() or wanted > claimed:
            return True
        return not wanted and self._lane.wait_s(self._clock.monotonic()) > NEAR_S

    # --- the store

    def _turn(self, tried: Sequence[AttemptResult], wanted: int) -> tuple[int, list[AttemptResult]]:
        """How many were claimed, and what of ``tried`` could not be recorded yet: what a provider has taken must not be
        forgotten for a full disk."""
        turns = [
            NextStep(
                route=self._route if place < wanted else None,
                lease_ms=self._lane.channel.lease_ms,
                tried=tried[place] if place < len(tried) else None,
            )
            for place in range(max(len(tried), wanted))
        ]
        results: Sequence[Claimed | BaseException | None]
        try:
            results = self._book.turns(turns)
        except Exception as error:  # noqa: BLE001 told apart below
            results = [error] * len(turns)
        claims: list[Claimed] = []
        left: list[AttemptResult] = []
        failed = False
        for turn, result in zip(turns, results, strict=True):
            if isinstance(result, BaseException):
                failed = True
                if isinstance(result, FlashFlowError):
                    log.warning("%s waits: %s", self._route, result)
                    left += [turn.tried] if turn.tried is not None else []
                else:
                    log.error("a turn of %s failed", self._route, exc_info=result)
                continue
            if turn.tried is not None:
                self._recorded(self._route, turn.tried)
            if result is not None:
                claims.append(result)
        self._in_hand += len(claims) + len(left) - len(tried)
        if len(claims) < wanted:
            self._lane.unreserve(wanted - len(claims))
        self._hand_out(claims)
        if failed and self._stopping.wait(FAULT_S):
            self._in_hand -= len(left)  # the next start puts them back
            left = []
        return len(claims), left

    def _give_back(self, delivery_id: str | None) -> None:
        self._in_hand -= 1
        try:
            if delivery_id is not None:
                self._book.give_back(delivery_id)
        except FlashFlowError as error:
            log.warning("a delivery could not be given back; its lease will end: %s", error)

    def _take_back(self, due: float | None = None) -> None:
        """Give back what waits for a sender: all of it, or what had to be begun by ``due``."""
        kept: list[_InHand] = []
        while (waits := _now(self._todo)) is not None:
            if due is None or waits.until <= due:
                self._give_back(waits.claimed.notice.delivery_id)
                self._slow = True
            else:
                kept.append(waits)
        for waits in kept:
            self._todo.put(waits)
        self._begin_by = min((waits.until for waits in kept), default=0.0)

    # --- the senders

    def _hand_out(self, claims: Sequence[Claimed]) -> None:
        until = time.monotonic() + STANDBY_S
        if self._todo.empty():
            self._begin_by = until
        for claimed in claims:
            self._todo.put(_InHand(claimed, until))
        while self._senders < min(self._in_hand, self._lane.connections):
            # A daemon, so that a channel that hangs cannot hold up the end of the process.
            threading.Thread(target=self._send, name=f"flashflow-{self._route}-send", daemon=True).start()
            self._senders += 1

    def _results(self, wait_s: float | None) -> list[AttemptResult]:
        """What has come back, at least one thing unless ``wait_s`` are over or there is reason to look again."""
        came = self._next(wait_s)
        tried: list[AttemptResult] = []
        end = time.monotonic() + GATHER_S
        while came is not None:
            if isinstance(came, AttemptResult):
                tried.append(came)
                self._slow = came.duration_ms > STANDBY_S * 1000
            elif isinstance(came, _Untried):
                self._give_back(came.delivery_id)
            gathers = tried and self._todo.qsize() > 1
            came = self._next(max(0.0, end - time.monotonic()) if gathers else 0.0)
        if not self._todo.empty() and time.monotonic() >= self._begin_by:
            self._take_back(time.monotonic())
        return tried

    def _next(self, wait_s: float | None) -> AttemptResult | _Untried | _Look | None:
        try:
            return self._came.get_nowait() if wait_s == 0 else self._came.get(timeout=wait_s)
        except queue.Empty:
            return None

    def _patience_s(self, *, more: bool) -> float | None:
        """How long to wait for the next result at most; ``more`` may be due."""
        waits = []
        if not self._todo.empty():
            waits.append(self._begin_by - time.monotonic())
        if more and self._lane.is_rated and self._room() > 0 and self._goes_on():
            waits.append(self._lane.wait_s(self._clock.monotonic()))
        return max(0.0, min(waits)) if waits else None

    def _send(self) -> None:
        while (waits := self._todo.get()) is not None:
            delivery_id = waits.claimed.notice.delivery_id
            try:
                begun = self._goes_on() and time.monotonic() < waits.until
                self._came.put(self._try(waits.claimed) if begun else _Untried(delivery_id))
            except Exception:
                log.exception("a sender of %s failed", self._route)
                self._stopping.wait(FAULT_S)  # or the next would fail at once, and again
                self._came.put(_Untried(None))

    def _try(self, claimed: Claimed) -> AttemptResult:
        lane = self._lane
        started, clock = self._clock.now_ms(), self._clock.monotonic()
        outcome = lane.channel.send(claimed.notice)
        now, monotonic = self._clock.now_ms(), self._clock.monotonic()
        if outcome.retry_after_s and not outcome.alone:
            lane.pause(monotonic + outcome.retry_after_s)
        return AttemptResult(
            delivery_id=claimed.notice.delivery_id,
            started_at=started,
            duration_ms=round((monotonic - clock) * 1000),
            outcome=outcome,
            retry=self._next_try(claimed, outcome, started, now),
            previous_code=claimed.previous_code,
        )


def _now(waiting: queue.SimpleQueue[_InHand | None]) -> _InHand | None:
    """The first of them; None where there is none."""
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None
