"""Calls into the operating system that may never return, without ever waiting for them past a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, TypeVar

from flashflow.backend.domain.channel import Transient

T = TypeVar("T")


class DeadlineCall:
    """Runs one call at a time, each in a daemon thread of its own.

    A call that is past its deadline keeps its thread and its place, and until it returns every other is refused at
    once: so there is never more than one hung thread, and nobody queues up behind it.
    """

    def __init__(self, deadline_s: float, name: str) -> None:
        self._deadline_s = deadline_s
        self._name = name
        self._changed = threading.Condition()
        self._current: Future[Any] | None = None
        self._overdue = False

    def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returned or raised. Waits at most one deadline for its turn and one for the work; raises
        Transient ``busy`` or ``timeout`` past them. After a ``timeout`` the work may still come to its end unseen.
        """
        future = self._start(work)
        if not wait([future], self._deadline_s).done:
            with self._changed:
                if not future.done():
                    self._overdue = True
                    self._changed.notify_all()
                    raise Transient("timeout", f"The desktop did not answer within {self._deadline_s:g} seconds.")
        return future.result()

    def wait_until_idle(self, seconds: float) -> bool:
        """Whether nothing runs any more."""
        with self._changed:
            return self._changed.wait_for(lambda: self._current is None, seconds)

    def _start(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        thread = threading.Thread(target=self._carry_out, args=(work, future), name=self._name, daemon=True)
        with self._changed:
            self._changed.wait_for(lambda: self._current is None or self._overdue, self._deadline_s)
            if self._current is not None:
                raise Transient("busy", "The desktop has not answered the notice before this one yet.")
            thread.start()
            self._current = future
        return future

    def _carry_out(self, work: Callable[[], T], future: Future[T]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 it is raised again where the call was made
            self._finish(partial(future.set_exception, error))
        else:
            self._finish(partial(future.set_result, result))

    def _finish(self, outcome: Callable[[], None]) -> None:
        with self._changed:
            self._current = None
            self._overdue = False
            outcome()
            self._changed.notify_all()
