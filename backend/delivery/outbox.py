"""The outbox: sees what is due, calls each route's clerk to it, puts back what was claimed and never recorded.

Every route (e-mail, this computer, FCM …) is a lane of its own with its own clerk, senders, rate and queue, so that a
provider which is slow or down costs the others nothing.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, get_args

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.counters import Counter
from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.supervised_thread import SupervisedThread
from flashflow.backend.delivery.dispatcher import DeliveryQueue, Dispatcher
from flashflow.backend.delivery.network_return import UNREACHED, NetworkReturn
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.delivery_messages import AttemptResult, Claimed, Outcome, OutcomeName, Retrial

log = logging.getLogger(__name__)

FAULT_S = 1.0
IDLE_S = 30.0
"""How long to wait at most without looking: for a clock that jumped."""


class Queue(DeliveryQueue, Protocol):
    """What the outbox needs of the store. Every call may raise a FlashFlowError and is then tried again."""

    def recover(self, *, all_leases: bool) -> int: ...
    def hasten(self, route: str, codes: Sequence[str]) -> int: ...
    def refuse_routes(self, routes: Sequence[str]) -> int: ...
    def next_due(self, routes: Sequence[str]) -> dict[str, int]: ...
    def next_lease(self) -> int | None: ...


class Outbox:
    """Runs from ``start`` to ``stop``; ``wake`` tells it that something new may be due."""

    def __init__(
        self,
        queue: Queue,
        lanes: Mapping[str, RouteQueue],
        clock: Clock,
        *,
        chance: random.Random | None = None,
    ) -> None:
        self._queue = queue
        self._lanes = dict(lanes)
        self._clock = clock
        self.attempts = Counter()
        """How many tries were recorded, by route and outcome."""
        self._count_from_zero()
        self._network = NetworkReturn()
        self._network.watch(self._lanes)
        self._chance = chance or random.Random()  # noqa: S311 jitter needs no secrecy
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._first = True
        self._changed = False
        self._whole = True
        self._retired: list[RouteQueue] = []
        self.thread = SupervisedThread("flashflow-outbox", self._run, self._stopping.is_set)

    def start(self) -> None:
        self.thread.start()

    def wake(self) -> None:
        """Look again now."""
        self._bell.set()

    def configure(self, lanes: Mapping[str, RouteQueue], *, whole: bool = True) -> None:
        """Go on with other lanes; what is under way on one that is gone may end, then its channel is closed. Unless
        these are the ``whole`` of them, what is queued for any other route waits instead of failing."""
        kept = {id(lane) for lane in lanes.values()}
        self._retired.extend(lane for lane in self._lanes.values() if id(lane) not in kept)
        self._lanes, self._whole, self._changed = dict(lanes), whole, True
        self._network.watch(self._lanes)
        self._count_from_zero()
        for lane in list(self._retired):  # the outbox's own thread takes out those that are idle
            lane.retire()
        self._bell.set()

    @property
    def routes(self) -> tuple[str, ...]:
        """Those that have a lane."""
        return tuple(self._lanes)

    def stop(self, wait_s: float = 1.5) -> None:
        """Take nothing new and let go within about ``wait_s``: what is under way may end, what still hangs then has its
        channel closed, and what hangs after that is put back by the next start."""
        end = time.monotonic() + wait_s
        self._stopping.set()
        self._bell.set()
        if self.thread.is_alive():
            self.thread.join(wait_s)
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
        """Call a clerk wherever something is due and may begin; seconds until the next look."""
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
        waits = [IDLE_S, *self._hasten()]
        now = self._clock.now_ms()
        for route, due in self._queue.next_due(tuple(self._lanes)).items():
            lane = self._lanes.get(route)
            if lane is None:
                continue
            if due > now:
                waits.append((due - now) / 1000)
            elif (wait := lane.wait_s(self._clock.monotonic())) > 0:
                waits.append(wait)
            else:
                self._call_clerk(route, lane)
        lease = self._queue.next_lease()
        if lease is not None:
            waits.append(max(0.05, (lease - now) / 1000))
        return max(0.005, min(waits))

    def _hasten(self) -> list[float]:
        """Make due at once what waits for the network, once that is back; seconds until there is more to make due."""
        now = self._clock.monotonic()
        while (route := self._network.take(now)) is not None:
            count = None
            try:
                count = self._queue.hasten(route, UNREACHED)
            finally:
                self._network.retried(route, count)
        wait = self._network.wait_s(now)
        return [] if wait is None else [wait]

    def _put_back(self) -> None:
        lease = 0 if self._first else self._queue.next_lease()
        if lease is not None and lease <= self._clock.now_ms():
            while self._queue.recover(all_leases=self._first):
                pass

    def _call_clerk(self, route: str, lane: RouteQueue) -> None:
        """To a lane where something is due."""
        if lane.busy:
            lane.wake()
            return

        def next_try(claimed: Claimed, outcome: Outcome, started_at: int, now_ms: int) -> Retrial | None:
            chance = self._chance.random()
            return lane.back_off.next_try(claimed, outcome, started_at=started_at, now_ms=now_ms, chance=chance)

        clerk = Dispatcher(
            route,
            lane,
            self._queue,
            self._clock,
            next_try=next_try,
            stopping=self._stopping,
            recorded=self._recorded,
        )
        if not lane.enter(clerk.wake):  # it retired meanwhile
            return
        name = f"flashflow-{route}"
        try:  # a daemon, so that a channel that hangs cannot hold up the end of the process
            threading.Thread(target=self._serve, args=(clerk, route, lane), name=name, daemon=True).start()
        except RuntimeError:
            lane.leave()
            raise

    def _serve(self, clerk: Dispatcher, route: str, lane: RouteQueue) -> None:
        try:
            clerk.run()
        except Exception:
            log.exception("the clerk of %s failed", route)
            self._stopping.wait(FAULT_S)  # or the next would fail at once, and again
        finally:
            lane.leave()
            self._bell.set()

    def _count_from_zero(self) -> None:
        self.attempts.expect((route, outcome) for route in self._lanes for outcome in get_args(OutcomeName))

    def _recorded(self, route: str, tried: AttemptResult) -> None:
        self.attempts.add(route, tried.outcome.outcome)
        if self._network.record(route, tried):
            self._bell.set()
