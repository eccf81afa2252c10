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
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import FlashFlowError, Stopping, StorageError
from flashflow.backend.core.events import Event
from flashflow.backend.core.supervised_thread import SupervisedThread
from flashflow.backend.store.engine.checkpoint import Checkpointer
from flashflow.backend.store.engine.errors import is_storage_fault, storage_error
from flashflow.backend.store.engine.last_known import LastKnown
from flashflow.backend.store.engine.step_limit import TooManySteps, bounded
from flashflow.backend.store.engine.write_command import Bundle, Handler, I, R, Ticket, TryCarefully, Tx, Write

log = logging.getLogger(__name__)

__all__ = ["Bundle", "Handler", "I", "LoopWrites", "R", "TryCarefully", "Tx", "Write", "Writer"]

HERE_MOST = 64
HERE_LONGEST_S = 0.004
HERE_REST = 200
"""A loop commits up to 64 rows by itself; once that takes 4 ms on average, the writer's thread does the next 200."""

GATHER_S = 0.002
"""A loop gathers writes for so long at most, and only while every turn of it brings more."""

HERE_BYTES = 256 * 1024
MAX_GROUP = 2_000
MAX_BYTES = 16 * 1024 * 1024
"""Rows and bytes in one transaction, unless one bundle has more: bounds how long the next write waits, and the WAL."""


class Writer:
    """Runs writes in its own thread. ``publish`` is called with the events of each commit, after it."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        clock: Clock,
        publish: Callable[[Iterable[Event]], None],
        name: str,
        record: LastKnown | None = None,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._publish = publish
        self._queue: queue.SimpleQueue[Bundle | None] = queue.SimpleQueue()
        self._events: list[Event] = []
        self._record = record
        self._checkpointer = Checkpointer(connect, f"{name}-fold", on_fold=None if record is None else record.sync)
        self.fault: str | None = None
        """The code of the storage's fault that a write ended in; None again after one that changed something."""
        self._stopping = False
        self._has_work = False
        self._gate = threading.Lock()
        self._turn = threading.Lock()
        self._rest = 0
        self._mean_s = 0.0
        self._here: sqlite3.Connection | None = None
        self._open = True
        self._thread = SupervisedThread(name, self._run, lambda: not self._open)
        self._thread.start()

    # --- asking ---------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many bundles wait for a transaction: about, since they come and go."""
        return self._queue.qsize()

    def run(self, write: Write[I, R]) -> R:
        """Do ``write`` and wait for its COMMIT. For threads; an event loop uses LoopWrites."""
        (result,) = self.run_all([write])
        if isinstance(result, BaseException):
            raise result
        return result

    def run_all(self, writes: Sequence[Write[I, R]]) -> list[R | BaseException]:
        """Do all ``writes``, in one transaction unless one of them cannot be done; for each its result or its refusal.
        Raises Stopping."""
        done = threading.Event()
        bundle = Bundle(list(writes), done.set)
        self.submit(bundle)
        done.wait()
        return bundle.results

    def submit(self, bundle: Bundle) -> None:
        """Queue ``bundle``. Raises Stopping when the writer takes no more."""
        with self._gate:
            if self._stopping:
                raise Stopping("FlashFlow is stopping; nothing was written.")
            self._queue.put(bundle)

    def stop(self) -> None:
        """Finish what waits, then end the thread. Safe to call twice."""
        with self._gate:
            if not self._stopping:
                self._stopping = True
                self._queue.put(None)
        self._thread.join()
        with self._turn:  # what a loop does at this moment
            pass

    # --- doing ----------------------------------------------------------------------------------------------------

    def here(self, bundle: Bundle) -> bool:
        """Do ``bundle`` in the calling thread (always the same one) if that is quicker than waking the writer's: when
        nothing waits or is under way, the bundle is small, and the disk has lately been quick. False: it was not done;
        submit it.

        On a quick disk the two threads' turns at the interpreter cost more than the commit itself; on a slow one, or
        while another program holds the file, an event loop must not wait for it.
        """
        if bundle.rows > HERE_MOST or bundle.size > HERE_BYTES:
            return False
        if self._rest > 0:
            self._rest -= 1
            return False
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if self._stopping or self._has_work or not self._queue.empty():
                return False
            started = time.perf_counter()
            if not self._done_here(bundle):
                return False
            events = self._taken()
            self._mean_s += (time.perf_counter() - started - self._mean_s) / 8
            if self._mean_s > HERE_LONGEST_S:
                self._mean_s, self._rest = 0.0, HERE_REST
        finally:
            self._turn.release()
        bundle.done()
        self._tell(events)
        return True

    def _done_here(self, bundle: Bundle) -> bool:
        """Do ``bundle`` on the caller's own connection, unless that waits for a lock or exceeds the step limit."""
        try:
            if self._here is None:
                self._here = self._connect()
                self._here.execute("PRAGMA busy_timeout = 0").fetchall()
            self._here.execute("BEGIN IMMEDIATE")
            self._work([bundle], self._here, begun=True)
        except Exception:  # noqa: BLE001 the writer's thread finds out what it is, and can wait
            return False
        return True

    @property
    def threads(self) -> list[SupervisedThread]:
        """The threads that have to run for writes to be done and kept."""
        fold = self._checkpointer.thread
        return [self._thread] if fold is None else [self._thread, fold]

    def _run(self) -> None:
        conn: sqlite3.Connection | None = None
        bundles: list[Bundle] = []
        try:
            while self._open:
                bundles, self._open = self._gather()
                if bundles:
                    self._has_work = True  # or a busy loop, which is quicker at the lock, would take turn after turn
                    with self._turn:
                        self._has_work = False
                        conn = self._work(bundles, conn)
                        events = self._taken()
                    while bundles:
                        bundles.pop(0).done()
                    self._tell(events)
        except BaseException:
            self._has_work = False
            if conn is not None and conn.in_transaction:
                conn.rollback()
            for bundle in bundles:  # nothing that waits may wait for ever
                _give_up(bundle)
            raise
        self._checkpointer.stop()
        if conn is not None:
            conn.close()

    def _work(
        self, bundles: list[Bundle], conn: sqlite3.Connection | None, *, begun: bool = False
    ) -> sqlite3.Connection | None:
        """Commit ``bundles`` together on ``conn``, opened where there is none yet (``begun``: in the transaction that
        it is in); only with the turn."""
        tickets = [(write, bundle, place) for bundle in bundles for place, write in enumerate(bundle.writes)]
        try:
            conn = conn or self._connect()
            self._commit(conn, tickets, begun=begun)
        except TooManySteps:
            raise
        except Exception as error:
            log.exception("the writer failed outside a transaction")
            refusal = storage_error(error)
            self.fault = refusal.code
            for _, bundle, place in tickets:
                bundle.results[place] = refusal
        else:
            self._after_commit(conn)
        return conn

    def _after_commit(self, conn: sqlite3.Connection) -> None:
        """Do what follows a commit. A failure here changes nothing of what was committed."""
        try:
            if self._record is not None:
                self._record.note(conn)
            self._checkpointer.after_commit(conn)
        except Exception:
            log.exception("the work after a commit failed; what was committed stays")

    def _gather(self) -> tuple[list[Bundle], bool]:
        """Whatever waits now, up to a group's rows and bytes, and whether there is more to come."""
        entry = self._queue.get()
        bundles: list[Bundle] = []
        rows = size = 0
        while entry is not None:
            bundles.append(entry)
            rows += entry.rows
            size += entry.size
            if rows >= MAX_GROUP or size >= MAX_BYTES:
                break
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                break
        return bundles, entry is not None

    def _taken(self) -> list[Event]:
        """The events of what was committed; only with the turn."""
        events, self._events = self._events, []
        return events

    def _tell(self, events: list[Event]) -> None:
        """Publish ``events``, after whoever waited has been told."""
        if events:
            try:
                self._publish(events)
            except Exception:
                log.exception("what was committed could not be told")

    def _commit(
        self, conn: sqlite3.Connection, tickets: list[Ticket], *, careful: bool = False, begun: bool = False
    ) -> None:
        tx = Tx(conn, self._clock.now_ms(), careful=careful)
        changes = conn.total_changes
        try:
            if not begun:
                conn.execute("BEGIN IMMEDIATE")
            with bounded(conn, on=begun):
                results = self._attempt(tx, tickets)
        except Exception as error:  # told apart below, and handed to whoever waits
            _roll_back(tx)
            if isinstance(error, TooManySteps):
                raise
            again = isinstance(error, TryCarefully)
            if len(tickets) == 1 and (careful or not again):
                self._refuse(tickets[0], error)
                return
            # Some item broke the group: each on its own finds out which, and the others land.
            for ticket in tickets:
                self._commit(conn, [ticket], careful=again)
            return
        if conn.total_changes != changes:  # a full disk takes a write of nothing
            self.fault = None
        for (_, bundle, place), result in zip(tickets, results, strict=True):
            bundle.results[place] = result
        self._events.extend(tx.events)

    def _attempt(self, tx: Tx, tickets: list[Ticket]) -> list[Any]:
        results: list[Any] = [None] * len(tickets)
        groups: dict[Handler[Any, Any], list[int]] = {}
        for position, (write, _, _) in enumerate(tickets):
            groups.setdefault(write.handler, []).append(position)
        for handler, positions in groups.items():
            outcomes = handler(tx, [tickets[position][0].item for position in positions])
            for position, outcome in zip(positions, outcomes, strict=True):
                results[position] = outcome
        tx.conn.execute("COMMIT")
        return results

    def _refuse(self, ticket: Ticket, error: Exception) -> None:
        refusal: BaseException = error
        if is_storage_fault(error):
            refusal = storage_error(error)
            self.fault = refusal.code
        elif not isinstance(error, FlashFlowError):
            log.error("a write failed", exc_info=error)
        _, bundle, place = ticket
        bundle.results[place] = refusal


def _give_up(bundle: Bundle) -> None:
    refusal = StorageError("The writer failed; it may or may not have been written.")
    bundle.results = [refusal if result is None else result for result in bundle.results]
    bundle.done()


def _roll_back(tx: Tx) -> None:
    for undo in tx.undo:
        undo()
    # SQLite has ended the transaction itself after some faults (a full disk among them).
    if tx.conn.in_transaction:
        tx.conn.execute("ROLLBACK")


class LoopWrites:
    """Writes asked for in one go of an event loop, committed together as soon as a turn of it brings no more.

    Belongs to the loop that calls it; one commit, or one wake-up of the writer and one of the loop, serves them all.
    A write that is not done after ``deadline_s`` raises TimeoutError: it may or may not be done later.
    """

    def __init__(self, writer: Writer, deadline_s: float = 10.0) -> None:
        self._writer = writer
        self._deadline_s = deadline_s
        self._counted = 0
        self._since = 0.0
        self._writes: list[Write[Any, Any]] = []
        self._futures: list[asyncio.Future[Any]] = []

    def run(self, write: Write[I, R]) -> asyncio.Future[R]:
        """Awaitable result of ``write``, after COMMIT. Raises what the write raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        if not self._writes:
            self._counted, self._since = 0, loop.time()
            loop.call_soon(self._flush, loop)
        self._writes.append(write)
        self._futures.append(future)
        return future

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        count = len(self._writes)
        if self._counted < count < HERE_MOST and loop.time() - self._since < GATHER_S:
            # More came while this turn went on: as long as every turn brings some, they share one commit.
            self._counted = count
            loop.call_soon(self._flush, loop)
            return
        futures, self._futures = self._futures, []
        writes, self._writes = self._writes, []
        if self._writer.here(bundle := Bundle(writes, _nothing)):
            _resolve(futures, bundle.results)
            return

        def done() -> None:
            try:
                loop.call_soon_threadsafe(resolve)
            except RuntimeError:
                log.info("the loop ended before %d answers reached it", len(futures))

        def resolve() -> None:
            late.cancel()
            _resolve(futures, bundle.results)
            bundle.done = _nothing  # the two refer to each other: a request would wait for the garbage collector

        bundle.done = done
        late = loop.call_later(self._deadline_s, _resolve, futures, [TimeoutError()] * len(futures))
        try:
            self._writer.submit(bundle)
        except Stopping as error:
            late.cancel()
            _resolve(futures, [error] * len(futures))


def _nothing() -> None:
    """Who waits is told in another way."""


def _resolve(futures: list[asyncio.Future[Any]], results: list[Any]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
