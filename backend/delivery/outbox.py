"""Outbox: start a dispatcher for each route with due deliveries; recover deliveries claimed but never recorded.

Each route (e-mail, this computer, FCM …) has its own queue, dispatcher, senders and rate limit, so that a slow or dead
provider does not delay the others.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from typing import get_args

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.counters import Counter
from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.supervised_thread import SupervisedThread
from flashflow.backend.delivery.dispatcher import DeliveryQueue, Dispatcher
from flashflow.backend.delivery.network_return import UNREACHED, NetworkReturn
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.delivery_messages import AttemptResult, OutcomeName

log = logging.getLogger(__name__)

FAULT_S = 1.0
"""Pause in seconds after a failure."""
IDLE_S = 30.0
"""Longest wait in seconds between two rounds, in case the clock jumped."""


class Outbox:
    """Deliver queued notifications in the background, from ``start`` to ``stop``."""

    def __init__(
        self,
        queue: DeliveryQueue,
        route_queues: Mapping[str, RouteQueue],
        clock: Clock,
        *,
        chance: random.Random | None = None,
    ) -> None:
        self._queue = queue
        self._route_queues = dict(route_queues)
        self._clock = clock
        self.attempts = Counter()
        """Recorded tries by route and outcome."""
        self._count_from_zero()
        self._network = NetworkReturn()
        self._network.watch(self._route_queues)
        self._chance = chance or random.Random()  # noqa: S311 jitter needs no secrecy
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._first = True
        self._changed = False
        self._complete = True
        self._retired: list[RouteQueue] = []
        self.thread = SupervisedThread("flashflow-outbox", self._run, self._stopping.is_set)

    def start(self) -> None:
        self.thread.start()

    def wake(self) -> None:
        """Look for due deliveries now. Thread-safe."""
        self._bell.set()

    def configure(self, route_queues: Mapping[str, RouteQueue], *, complete: bool = True) -> None:
        """Replace the route queues. Sends in progress on a removed queue may finish; then its channel is closed.

        Deliveries of any other route fail, or wait if ``complete`` is false because some settings could not be read.
        """
        kept = {id(route_queue) for route_queue in route_queues.values()}
        self._retired.extend(route_queue for route_queue in self._route_queues.values() if id(route_queue) not in kept)
        self._route_queues, self._complete, self._changed = dict(route_queues), complete, True
        self._network.watch(self._route_queues)
        self._count_from_zero()
        for route_queue in list(self._retired):  # the outbox thread removes the idle ones
            route_queue.retire()
        self._bell.set()

    @property
    def routes(self) -> tuple[str, ...]:
        """Routes that have a queue."""
        return tuple(self._route_queues)

    def stop(self, wait_s: float = 1.5) -> None:
        """Stop within about ``wait_s`` seconds.

        Sends in progress may finish for half of that time; then all channels are closed, which interrupts the rest. A
        delivery that still hangs after that is recovered at the next start.
        """
        end = time.monotonic() + wait_s
        self._stopping.set()
        self._bell.set()
        if self.thread.is_alive():
            self.thread.join(wait_s)
        route_queues = [*self._route_queues.values(), *self._retired]
        for route_queue in route_queues:
            route_queue.retire()
        for route_queue in route_queues:
            route_queue.wait_until_idle(end - wait_s / 2)
        for channel in {id(route_queue.channel): route_queue.channel for route_queue in route_queues}.values():
            channel.close()
        for route_queue in route_queues:
            route_queue.wait_until_idle(end)

    # --- the outbox thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                wait = self._round()
            except FlashFlowError as error:
                log.warning("the outbox waits: %s", error)
                wait = FAULT_S
            except Exception:
                log.exception("the outbox failed; it continues")
                wait = FAULT_S
            if wait > 0:
                self._bell.wait(wait)

    def _round(self) -> float:
        """Start a dispatcher for each route with a delivery due; return the seconds until the next round."""
        self._put_back()
        if self._changed or self._first:
            self._changed = False  # before the call: a later change sets it again
            try:
                if self._complete:
                    self._queue.refuse_routes(tuple(self._route_queues))
            except BaseException:
                self._changed = True
                raise
            self._first = False
        for gone in [route_queue for route_queue in self._retired if not route_queue.busy]:
            self._retired.remove(gone)
            if all(left.channel is not gone.channel for left in (*self._route_queues.values(), *self._retired)):
                gone.channel.close()
        waits = [IDLE_S, *self._hasten()]
        now = self._clock.now_ms()
        for route, due in self._queue.next_due(tuple(self._route_queues)).items():
            route_queue = self._route_queues.get(route)
            if route_queue is None:
                continue
            if due > now:
                waits.append((due - now) / 1000)
            elif (wait := route_queue.wait_s(self._clock.monotonic())) > 0:
                waits.append(wait)
            else:
                self._dispatch(route, route_queue)
        lease = self._queue.next_lease()
        if lease is not None:
            waits.append(max(0.05, (lease - now) / 1000))
        return max(0.005, min(waits))

    def _hasten(self) -> list[float]:
        """Make deliveries that failed for want of a network due now, once it is back.

        Return the seconds until the next route may be retried, as a list of zero or one.
        """
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

    def _dispatch(self, route: str, route_queue: RouteQueue) -> None:
        """Wake the route's dispatcher, or start one in a thread of its own."""
        if route_queue.busy:
            route_queue.wake()
            return

        dispatcher = Dispatcher(
            route,
            route_queue,
            self._queue,
            self._clock,
            chance=self._chance,
            stopping=self._stopping,
            recorded=self._recorded,
            given_back=self.wake,
        )
        if not route_queue.enter(dispatcher.wake):  # retired in the meantime
            return
        name = f"flashflow-{route}"
        try:  # a daemon, so that a channel that hangs cannot hold up the end of the process
            threading.Thread(target=self._serve, args=(dispatcher, route, route_queue), name=name, daemon=True).start()
        except RuntimeError:
            route_queue.leave()
            raise

    def _serve(self, dispatcher: Dispatcher, route: str, route_queue: RouteQueue) -> None:
        try:
            dispatcher.run()
        except Exception:
            log.exception("the dispatcher of %s failed", route)
            self._stopping.wait(FAULT_S)  # the next would fail at once, too
        finally:
            route_queue.leave()
            self._bell.set()

    def _count_from_zero(self) -> None:
        self.attempts.expect((route, outcome) for route in self._route_queues for outcome in get_args(OutcomeName))

    def _recorded(self, route: str, tried: AttemptResult) -> None:
        self.attempts.add(route, tried.outcome.outcome)
        if self._network.record(route, tried):
            self._bell.set()
