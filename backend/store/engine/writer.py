"""One writer thread per SQLite file. It commits all waiting writes in one transaction (group commit).

A write is a handler and an item. All waiting items of a handler are passed in one call, so a hundred concurrent
activities cost one INSERT and one fsync. Results are returned after COMMIT with ``synchronous=FULL``: they survive
``kill -9`` and a power cut.
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
from flashflow.backend.store.engine.write_command import (
    Bundle,
    Handler,
    I,
    R,
    Ticket,
    TryCarefully,
    Tx,
    Write,
    each_item,
)

log = logging.getLogger(__name__)

__all__ = ["Bundle", "Handler", "I", "LoopWrites", "R", "TryCarefully", "Tx", "Write", "Writer", "each_item"]

INLINE_ROWS = 64
INLINE_BYTES = 256 * 1024
INLINE_LONGEST_S = 0.004
INLINE_SKIP = 200
"""An event loop commits bundles up to INLINE_ROWS and INLINE_BYTES in its own thread; once that takes INLINE_LONGEST_S
on average, the writer's thread commits the next INLINE_SKIP bundles."""

GATHER_S = 0.002
"""Longest time for which an event loop gathers writes while every iteration adds some."""

MAX_GROUP = 2_000
MAX_BYTES = 16 * 1024 * 1024
"""Rows and bytes in one transaction, unless one bundle has more. Bounds the wait of the next write and the WAL."""


class Writer:
    """Runs writes in its own thread. Calls ``publish`` with the events of each commit, after it."""

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
        sync = None if record is None else record.sync
        self._checkpointer = Checkpointer(connect, f"{name}-checkpoint", on_checkpoint=sync)
        self.fault: str | None = None
        """Error code of the last write if the storage failed; None after the next write that changes rows."""
        self._stopping = False
        self._has_work = False
        self._queue_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._skip = 0
        self._mean_s = 0.0
        self._inline_conn: sqlite3.Connection | None = None
        self._open = True
        self._thread = SupervisedThread(name, self._run, lambda: not self._open)
        self._thread.start()

    # --- for callers ----------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Approximate number of queued bundles."""
        return self._queue.qsize()

    def run(self, write: Write[I, R]) -> R:
        """Run ``write`` and wait for its COMMIT. For threads; an event loop uses LoopWrites."""
        (result,) = self.run_all([write])
        if isinstance(result, BaseException):
            raise result
        return result

    def run_all(self, writes: Sequence[Write[I, R]]) -> list[R | BaseException]:
        """Run all ``writes``, in one transaction unless one of them fails; return each one's result or refusal. Raises
        Stopping."""
        done = threading.Event()
        bundle = Bundle(list(writes), done.set)
        self.submit(bundle)
        done.wait()
        return bundle.results

    def submit(self, bundle: Bundle) -> None:
        """Queue ``bundle``. Raises Stopping after ``stop``."""
        with self._queue_lock:
            if self._stopping:
                raise Stopping("FlashFlow is stopping; nothing was written.")
            self._queue.put(bundle)

    def stop(self) -> None:
        """Finish queued bundles, then end the thread. Safe to call twice."""
        with self._queue_lock:
            if not self._stopping:
                self._stopping = True
                self._queue.put(None)
        self._thread.join()
        with self._write_lock:  # wait for an inline commit of an event loop
            pass

    # --- committing -----------------------------------------------------------------------------------------------

    def run_inline(self, bundle: Bundle) -> bool:
        """Commit ``bundle`` in the calling thread (always the same one) if nothing is queued or running, the bundle is
        small and recent commits were fast. Return False if it was not done: then ``submit`` it."""
        # On a fast disk the switch between two threads costs more than the commit. On a slow one, or while another
        # program locks the file, an event loop must not wait.
        if bundle.rows > INLINE_ROWS or bundle.size > INLINE_BYTES:
            return False
        if self._skip > 0:
            self._skip -= 1
            return False
        if not self._write_lock.acquire(blocking=False):
            return False
        try:
            if self._stopping or self._has_work or not self._queue.empty():
                return False
            started = time.perf_counter()
            if not self._commit_inline(bundle):
                return False
            events = self._take_events()
            self._mean_s += (time.perf_counter() - started - self._mean_s) / 8
            if self._mean_s > INLINE_LONGEST_S:
                self._mean_s, self._skip = 0.0, INLINE_SKIP
        finally:
            self._write_lock.release()
        bundle.done()
        self._publish_events(events)
        return True

    def _commit_inline(self, bundle: Bundle) -> bool:
        """Commit ``bundle`` on the caller's connection; return False if it is locked or exceeds the step limit."""
        try:
            if self._inline_conn is None:
                self._inline_conn = self._connect()
                self._inline_conn.execute("PRAGMA busy_timeout = 0").fetchall()
            self._inline_conn.execute("BEGIN IMMEDIATE")
            self._work([bundle], self._inline_conn, begun=True)
        except Exception:  # noqa: BLE001 the writer's thread repeats it, reports the error, and can wait for a lock
            return False
        return True

    @property
    def threads(self) -> list[SupervisedThread]:
        """The writer's thread and, once started, the checkpoint thread."""
        checkpoint = self._checkpointer.thread
        return [self._thread] if checkpoint is None else [self._thread, checkpoint]

    def _run(self) -> None:
        conn: sqlite3.Connection | None = None
        bundles: list[Bundle] = []
        try:
            while self._open:
                bundles, self._open = self._gather()
                if bundles:
                    self._has_work = True  # otherwise a busy event loop would take the lock again and again
                    with self._write_lock:
                        self._has_work = False
                        conn = self._work(bundles, conn)
                        events = self._take_events()
                    while bundles:
                        bundles.pop(0).done()
                    self._publish_events(events)
        except BaseException:
            self._has_work = False
            if conn is not None and conn.in_transaction:
                conn.rollback()
            for bundle in bundles:  # no caller may wait for ever
                _fail(bundle)
            raise
        self._checkpointer.stop()
        if conn is not None:
            conn.close()

    def _work(
        self, bundles: list[Bundle], conn: sqlite3.Connection | None, *, begun: bool = False
    ) -> sqlite3.Connection | None:
        """Commit ``bundles`` together on ``conn``, which is opened if None (``begun``: it is in a transaction already).
        Requires the write lock."""
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
        """Update the record and the checkpointer. A failure here does not affect the commit."""
        try:
            if self._record is not None:
                self._record.note(conn)
            self._checkpointer.after_commit(conn)
        except Exception:
            log.exception("the work after a commit failed; the commit is not affected")

    def _gather(self) -> tuple[list[Bundle], bool]:
        """Wait for a bundle and take all that are queued, up to MAX_GROUP and MAX_BYTES; False after ``stop``."""
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

    def _take_events(self) -> list[Event]:
        """Take the events of the commit. Requires the write lock."""
        events, self._events = self._events, []
        return events

    def _publish_events(self, events: list[Event]) -> None:
        """Publish ``events``. Call it after the callers have their results."""
        if events:
            try:
                self._publish(events)
            except Exception:
                log.exception("the events of a commit could not be published")

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
        except Exception as error:  # handled below and passed to the caller
            _roll_back(tx)
            if isinstance(error, TooManySteps):
                raise
            again = isinstance(error, TryCarefully)
            if len(tickets) == 1 and (careful or not again):
                self._refuse(tickets[0], error)
                return
            # One item failed the group: commit each alone, so that the others succeed.
            for ticket in tickets:
                self._commit(conn, [ticket], careful=again)
            return
        if conn.total_changes != changes:  # a write of nothing succeeds on a full disk
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


def _fail(bundle: Bundle) -> None:
    refusal = StorageError("The writer failed; it may or may not have been written.")
    bundle.results = [refusal if result is None else result for result in bundle.results]
    bundle.done()


def _roll_back(tx: Tx) -> None:
    for undo in tx.undo:
        undo()
    # After some faults (a full disk among them) SQLite has ended the transaction itself.
    if tx.conn.in_transaction:
        tx.conn.execute("ROLLBACK")


class LoopWrites:
    """Gathers the writes of an event loop and commits them together once an iteration adds none.

    Belongs to the loop that calls it. One commit, or one wake-up of the writer and one of the loop, serves them all. A
    write that takes longer than ``deadline_s`` raises TimeoutError; it may still be committed later.
    """

    def __init__(self, writer: Writer, deadline_s: float = 10.0) -> None:
        self._writer = writer
        self._deadline_s = deadline_s
        self._counted = 0
        self._since = 0.0
        self._writes: list[Write[Any, Any]] = []
        self._futures: list[asyncio.Future[Any]] = []

    def run(self, write: Write[I, R]) -> asyncio.Future[R]:
        """Return the awaitable result of ``write``, set after COMMIT. Raises the write's exception."""
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
        if self._counted < count < INLINE_ROWS and loop.time() - self._since < GATHER_S:
            # This iteration added writes: wait for the next one, so that they share one commit.
            self._counted = count
            loop.call_soon(self._flush, loop)
            return
        futures, self._futures = self._futures, []
        writes, self._writes = self._writes, []
        if self._writer.run_inline(bundle := Bundle(writes, _nothing)):
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
            bundle.done = _nothing  # breaks a reference cycle that would keep the request alive until a collection

        bundle.done = done
        late = loop.call_later(self._deadline_s, _resolve, futures, [TimeoutError()] * len(futures))
        try:
            self._writer.submit(bundle)
        except Stopping as error:
            late.cancel()
            _resolve(futures, [error] * len(futures))


def _nothing() -> None:
    """Placeholder for ``Bundle.done`` if the results are delivered in another way."""


def _resolve(futures: list[asyncio.Future[Any]], results: list[Any]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
