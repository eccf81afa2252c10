"""Deadlines for blocking calls that cannot be interrupted (name look-ups, keyrings, plug-ins): run them in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Reason = Literal["busy", "timeout", "stopping"]


def run_in_thread(name: str, work: Callable[[], T]) -> Future[T]:
    """Start ``work`` in a daemon thread, which cannot delay the end of the process; return the future of its result.

    The caller may settle the future earlier; the late result is then dropped.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 raised again where the result is read
            with suppress(InvalidStateError):
                future.set_exception(error)
        else:
            with suppress(InvalidStateError):
                future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class DeadlineCalls:
    """Run at most ``limit`` calls at once, each in a thread, and wait ``deadline_s`` seconds for each. Thread-safe.

    An overdue call keeps its thread and its place until it returns. While all places are taken and one of the calls is
    overdue, further calls are refused at once, so that neither threads nor callers pile up. ``refusal`` returns the
    exception to raise for a reason: ``busy``, ``timeout``, or ``stopping`` after ``close``.
    """

    def __init__(self, deadline_s: float, name: str, refusal: Callable[[Reason], Exception], limit: int = 1) -> None:
        self._deadline_s = deadline_s
        self._name = name
        self._refusal = refusal
        self._limit = limit
        self._changed = threading.Condition()
        self._running: set[Future[Any]] = set()
        self._overdue: set[Future[Any]] = set()
        self._closed = False

    def run(self, work: Callable[[], T]) -> T:
        """Return the result of ``work`` or raise its exception; raise a refusal after at most two deadlines.

        The first deadline is for a free place, the second for the call. An overdue call may still complete.
        """
        with self._changed:
            self._changed.wait_for(self._may_proceed, self._deadline_s)
            if self._closed:
                raise self._refusal("stopping")
            if len(self._running) >= self._limit:
                raise self._refusal("busy")
            future = run_in_thread(self._name, work)
            self._running.add(future)
            future.add_done_callback(self._release)
            self._changed.wait_for(lambda: self._closed or future.done(), self._deadline_s)
            if not future.done():
                if self._closed:
                    raise self._refusal("stopping")
                self._overdue.add(future)
                self._changed.notify_all()
                raise self._refusal("timeout")
        return future.result()

    def close(self) -> None:
        """End waiting and later calls as ``stopping``."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> bool:
        """Block until no call runs or ``seconds`` are over; return whether none runs."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def _may_proceed(self) -> bool:
        return self._closed or bool(self._overdue) or len(self._running) < self._limit

    def _release(self, future: Future[Any]) -> None:
        with self._changed:
            self._running.discard(future)
            self._overdue.discard(future)
            self._changed.notify_all()
