"""The outbox's workers: claim what is due, try it on its route, record what happened, try again later.

Every route (e-mail, this computer, FCM …) is a lane of its own with its own workers, rate and queue, so that a provider
which is slow or down costs the others nothing. A worker records its last try and claims the next in one transaction:
killed at any moment it repeats one delivery at most.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from backend.clock import Clock
from backend.delivery.lane import Lane
from backend.errors import FlashFlowError
from backend.handover import Claimed, Notice, Outcome, Tried, Turn

log = logging.getLogger(__name__)

LEASE_MS = 60_000
STANDBY_S = 20.0
"""How long a worker keeps a delivery in hand until a connection is free: with the longest that a try takes (36 s, FCM)
less than the lease, or the delivery would be put back and go out twice."""
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
        wait: float = min(self.most_s, self.base_s * 2.0 ** min(tries - 1, 40)) * chance
        return max(wait, outcome.retry_after_s or 0.0)


class Queue(Protocol):
    """What the outbox needs of the store. Every call may raise a FlashFlowError and is then tried again."""

    def turns(self, turns: Sequence[Turn]) -> Sequence[Claimed | BaseException | None]: ...
    def give_back(self, delivery_id: str) -> None: ...
    def recover(self, most_tries: int, *, all_leases: bool) -> int: ...
    def refuse_routes(self, routes: Sequence[str]) -> int: ...
    def next_due(self, routes: Sequence[str]) -> dict[str, int]: ...
    def next_lease(self) -> int | None: ...


class Outbox:
    """Runs from ``start`` to ``stop``; ``wake`` tells it that something new may be due."""

    def __init__(
        self,
        queue: Queue,
        lanes: Mapping[str, Lane],
        clock: Clock,
        *,
        retry: Retry | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._queue = queue
        self._lanes = dict(lanes)
        self._clock = clock
        self._retry = retry or Retry()
        self._chance = chance or random.Random()  # noqa: S311 jitter needs no secrecy
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._first = True
        self._changed = False
        self._whole = True
        self._retired: list[Lane] = []
        self._thread = threading.Thread(target=self._run, name="flashflow-outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look again now."""
        self._bell.set()

    def configure(self, lanes: Mapping[str, Lane], retry: Retry, *, whole: bool = True) -> None:
        """Go on with other lanes; what is under way on one that is gone may end, then its channel is closed. Unless
        these are the ``whole`` of them, what is queued for any other route waits instead of failing."""
        kept = {id(lane) for lane in lanes.values()}
        self._retired.extend(lane for lane in self._lanes.values() if id(lane) not in kept)
        self._lanes, self._retry, self._whole, self._changed = dict(lanes), retry, whole, True
        for lane in self._retired:
            lane.retire()
        self._bell.set()

    def stop(self, wait_s: float = 1.5) -> None:
        """Take nothing new and let go within about ``wait_s``: what is under way may end, what still hangs then has its
        channel closed, and what hangs after that is put back by the next start."""
        end = time.monotonic() + wait_s
        self._stopping.set()
        self._bell.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)
        lanes = [*self._lanes.values(), *self._retired]
        for lane in lanes:
            lane.retire()
        for lane in lanes:
            lane.wait_until_idle(end - wait_s / 2)
        for channel in {id(lane.channel): lane.channel for lane in lanes}.values():
            channel.close()
        for lane in lanes:
            lane.wait_until_idle(end)

    # --- the dispatcher -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                wait = self._round()
            except FlashFlowError as error:
                log.warning("the outbox waits: %s", error)
                wait = FAULT_S
            except Exception:
                log.exception("the outbox failed; it goes on")
                wait = FAULT_S
            if wait > 0:
                self._bell.wait(wait)

    def _round(self) -> float:
        """Start a worker wherever something is due and there is room; seconds until the next look."""
        self._put_back()
        if self._changed or self._first:
            self._changed = False  # what changes from here on is looked at again
            try:
                if self._whole:
                    self._queue.refuse_routes(tuple(self._lanes))
            except BaseException:
                self._changed = True
                raise
            self._first = False
        for gone in [lane for lane in self._retired if not lane.busy]:
            self._retired.remove(gone)
            if all(lane.channel is not gone.channel for lane in (*self._lanes.values(), *self._retired)):
                gone.channel.close()
        now = self._clock.now_ms()
        waits = [IDLE_S]
        for route, due in self._queue.next_due(tuple(self._lanes)).items():
            lane = self._lanes.get(route)
            if lane is None:
                continue
            if due > now:
                waits.append((due - now) / 1000)
            elif (pause := lane.pause_s(self._clock.monotonic())) > 0:
                waits.append(pause)
            elif lane.enter():
                self._start_worker(route, lane)
            # A full lane: the worker that leaves or claims rings the bell.
        lease = self._queue.next_lease()
        if lease is not None:
            waits.append(max(0.05, (lease - now) / 1000))
        return max(0.005, min(waits))

    def _put_back(self) -> None:
        lease = 0 if self._first else self._queue.next_lease()
        if lease is not None and lease <= self._clock.now_ms():
            while self._queue.recover(self._retry.tries, all_leases=self._first):
                pass

    def _start_worker(self, route: str, lane: Lane) -> None:
        # A daemon, so that a channel that hangs cannot hold up the end of the process.
        name = f"flashflow-{route}"
        try:
            threading.Thread(target=self._work, args=(route, lane), name=name, daemon=True).start()
        except RuntimeError:
            lane.leave()
            raise

    # --- a worker -------------------------------------------------------------------------------------------------

    def _work(self, route: str, lane: Lane) -> None:
        try:
            tried: Tried | None = None
            while True:
                claimed = self._next(route, lane, tried)
                if claimed is None:
                    return
                if lane.has_room:
                    self._bell.set()  # there may be more for another worker
                tried = self._try(lane, claimed)
        except Exception:
            log.exception("a worker of %s failed", route)
            self._stopping.wait(FAULT_S)  # or the next would fail at once, and again
        finally:
            lane.leave()
            self._bell.set()

    def _next(self, route: str, lane: Lane, tried: Tried | None) -> Claimed | None:
        """Record ``tried`` and claim, in one transaction unless there may be a wait between the two. Nothing is claimed
        while stopping, on a lane that is gone or pauses."""
        if tried is not None and (lane.is_rated or not self._goes_on(lane)):
            self._turn(lane, None, tried)
            tried = None
        if not self._goes_on(lane):
            return None
        if (wait := lane.reserve(self._clock.monotonic())) > 0:
            lane.rest(wait)
            if not self._goes_on(lane):
                return None
        claimed = self._turn(lane, route, tried)
        if claimed is None:
            lane.unreserve()
        return claimed

    def _goes_on(self, lane: Lane) -> bool:
        return not self._stopping.is_set() and not lane.retired and lane.pause_s(self._clock.monotonic()) <= 0

    def _turn(self, lane: Lane, route: str | None, tried: Tried | None) -> Claimed | None:
        """As often as it takes: what a provider has taken must not be forgotten for a full disk."""
        turn = Turn(route=route, lease_ms=LEASE_MS, tried=tried)
        while True:
            try:
                may_wait = tried is not None and lane.is_saturated and not self._stopping.is_set()
                return lane.clerk.turn(turn, self._queue.turns, may_wait=may_wait)
            except FlashFlowError as error:
                log.warning("an attempt could not be recorded yet: %s", error)
            if tried is None or self._stopping.wait(FAULT_S):
                return None

    def _try(self, lane: Lane, claimed: Claimed) -> Tried | None:
        """What became of it; None where it was given back untried."""
        if not lane.connect(STANDBY_S):
            self._give_back(claimed.notice)
            return None
        try:
            if not self._goes_on(lane):
                self._give_back(claimed.notice)
                return None
            return self._tried(lane, claimed)
        finally:
            lane.disconnect()

    def _tried(self, lane: Lane, claimed: Claimed) -> Tried:
        started, clock = self._clock.now_ms(), self._clock.monotonic()
        outcome = lane.channel.send(claimed.notice)
        now, monotonic = self._clock.now_ms(), self._clock.monotonic()
        if outcome.outcome == "throttled" and outcome.retry_after_s and not outcome.alone:
            lane.pause(monotonic + outcome.retry_after_s)
        wait = self._retry.wait_s(claimed.tries, outcome, self._chance.random())
        return Tried(
            delivery_id=claimed.notice.delivery_id,
            started_at=started,
            duration_ms=round((monotonic - clock) * 1000),
            outcome=outcome,
            retry_at=None if wait is None else now + round(wait * 1000),
        )

    def _give_back(self, notice: Notice) -> None:
        try:
            self._queue.give_back(notice.delivery_id)
        except FlashFlowError as error:
            log.warning("a delivery could not be given back; the next start does it: %s", error)
