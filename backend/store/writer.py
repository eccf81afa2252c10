"""One writer thread per SQLite file: whatever is waiting when it turns is committed together (group commit).

A write is *what to do* (a handler) and *with what* (an item). All waiting items of one handler reach it in one call,
so a hundred concurrent activities cost one INSERT and one fsync. An answer is given only after COMMIT, with
``synchronous=FULL`` beneath it: what was answered survives ``kill -9`` and a power cut.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from backend.clock import Clock
from backend.errors import FlashFlowError, Stopping, StorageError
from backend.events import Event
from backend.store.faults import storage_error

log = logging.getLogger(__name__)

I = TypeVar("I")  # noqa: E741 an item
R = TypeVar("R")

MAX_GROUP = 2_000
"""Items in one transaction at most: bounds how long a reader of the WAL or the next write waits."""


class Tx:
    """What a handler gets: the writer's connection inside BEGIN IMMEDIATE, the time, and where to leave its events."""

    __slots__ = ("conn", "events", "now_ms")

    def __init__(self, conn: sqlite3.Connection, now_ms: int) -> None:
        self.conn = conn
        self.now_ms = now_ms
        self.events: list[Event] = []


Handler = Callable[[Tx, Sequence[I]], Sequence[R | FlashFlowError]]
"""Takes the items that wait, gives one result or one refusal each, in order. A refused item must not have changed
anything by then; a handler that raises has its changes undone and its items tried again one by one."""


class Write(Generic[I, R]):
    """One write, not yet done: ``handler`` will be called with a group that holds ``item``."""

    __slots__ = ("handler", "item")

    def __init__(self, handler: Handler[I, R], item: I) -> None:
        self.handler = handler
        self.item = item


Ticket = tuple[Write[Any, Any], Callable[[Any], None]]


class Writer:
    """Runs writes in its own thread. ``publish`` is called with the events of each commit, after it."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        clock: Clock,
        publish: Callable[[Iterable[Event]], None],
        name: str,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._publish = publish
        self._queue: queue.SimpleQueue[list[Ticket] | Callable[[], None] | None] = queue.SimpleQueue()
        self.fault: str | None = None
        """The code of the fault that the last write ended in; None after one that worked."""
        self._stopping = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # --- asking ---------------------------------------------------------------------------------------------------

    def run(self, write: Write[I, R]) -> R:
        """Do ``write`` and wait for its COMMIT. For threads; an event loop uses LoopWrites."""
        future: Future[R] = Future()

        def settle(result: R | BaseException) -> None:
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.submit([(write, settle)])
        return future.result()

    def submit(self, tickets: list[Ticket], after: Callable[[], None] | None = None) -> None:
        """Queue ``tickets``; each one's callback gets its result or exception in the writer's thread, then ``after``
        is called once for all of them. Raises Stopping when the writer takes no more."""
        with self._gate:
            if self._stopping:
                raise Stopping("FlashFlow is stopping; nothing was written.")
            self._queue.put(tickets)
            if after is not None:
                self._queue.put(after)

    def stop(self) -> None:
        """Finish what waits, then end the thread. Safe to call twice."""
        with self._gate:
            if not self._stopping:
                self._stopping = True
                self._queue.put(None)
        self._thread.join()

    # --- doing ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        conn: sqlite3.Connection | None = None
        open_ = True
        while open_:
            tickets: list[Ticket] = []
            afters: list[Callable[[], None]] = []
            entry = self._queue.get()
            while True:
                if entry is None:
                    open_ = False
                elif callable(entry):
                    afters.append(entry)
                else:
                    tickets.extend(entry)
                if len(tickets) >= MAX_GROUP or not open_:
                    break
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
            if tickets:
                try:
                    if conn is None:
                        conn = self._connect()
                    self._commit(conn, tickets)
                except Exception as error:
                    log.exception("the writer failed outside a transaction")
                    refusal = StorageError("The storage failed; nothing was written.")
                    refusal.__cause__ = error
                    _settle_all(tickets, refusal)
            for after in afters:
                after()
        if conn is not None:
            conn.close()

    def _commit(self, conn: sqlite3.Connection, tickets: list[Ticket]) -> None:
        try:
            results, events = self._attempt(conn, tickets)
        except Exception as error:  # noqa: BLE001 told apart below, and handed to whoever waits
            _roll_back(conn)
            if len(tickets) == 1:
                self._refuse(tickets[0], error)
                return
            # Some item broke the group: each on its own finds out which, and the others land.
            for ticket in tickets:
                self._commit(conn, [ticket])
            return
        self.fault = None
        for (_, settle), result in zip(tickets, results, strict=True):
            settle(result)
        self._publish(events)

    def _attempt(self, conn: sqlite3.Connection, tickets: list[Ticket]) -> tuple[list[Any], list[Event]]:
        results: list[Any] = [None] * len(tickets)
        groups: dict[Handler[Any, Any], list[int]] = {}
        for position, (write, _) in enumerate(tickets):
            groups.setdefault(write.handler, []).append(position)
        conn.execute("BEGIN IMMEDIATE")
        tx = Tx(conn, self._clock.now_ms())
        for handler, positions in groups.items():
            outcomes = handler(tx, [tickets[position][0].item for position in positions])
            for position, outcome in zip(positions, outcomes, strict=True):
                results[position] = outcome
        conn.execute("COMMIT")
        return results, tx.events

    def _refuse(self, ticket: Ticket, error: Exception) -> None:
        refusal: BaseException = error
        if isinstance(error, sqlite3.Error):
            refusal = storage_error(error)
            self.fault = refusal.code
        elif not isinstance(error, FlashFlowError):
            log.error("a write failed", exc_info=error)
        ticket[1](refusal)


def _settle_all(tickets: list[Ticket], refusal: BaseException) -> None:
    for _, settle in tickets:
        settle(refusal)


def _roll_back(conn: sqlite3.Connection) -> None:
    # SQLite has ended the transaction itself after some faults (a full disk among them).
    if conn.in_transaction:
        conn.execute("ROLLBACK")


class LoopWrites:
    """Writes asked for in one turn of an event loop, handed to the writer together at the end of that turn.

    Belongs to the loop that calls it; one wake-up of the writer and one of the loop serve a whole turn.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._turn: list[tuple[Write[Any, Any], asyncio.Future[Any]]] = []

    def run(self, write: Write[I, R]) -> asyncio.Future[R]:
        """Awaitable result of ``write``, after COMMIT. Raises what the write raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        if not self._turn:
            loop.call_soon(self._flush, loop)
        self._turn.append((write, future))
        return future

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        turn, self._turn = self._turn, []
        done: list[tuple[asyncio.Future[Any], Any]] = []

        def collect(future: asyncio.Future[Any]) -> Callable[[Any], None]:
            return lambda result: done.append((future, result))

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(_resolve, done)
            except RuntimeError:
                log.info("the loop ended before %d answers reached it", len(done))

        try:
            self._writer.submit([(write, collect(future)) for write, future in turn], wake)
        except Stopping as error:
            _resolve([(future, error) for _, future in turn])


def _resolve(done: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in done:
        if future.cancelled():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
