"""Write commands: a handler, its item, and the place of its result."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Generic, TypeVar, overload

from flashflow.backend.core.errors import Conflict, Erased, FlashFlowError, NotFound, ValidationError
from flashflow.backend.core.events import Event

I = TypeVar("I")  # noqa: E741 an item
R = TypeVar("R")
S = TypeVar("S")

REFUSALS = (ValidationError, NotFound, Conflict, Erased)


class Tx:
    """Argument of a handler: the writer's connection inside BEGIN IMMEDIATE, the time, the events to publish.

    ``careful`` is set when a handler that raised TryCarefully runs again. ``undo`` is called on a rollback, to restore
    state that a handler keeps in memory.
    """

    __slots__ = ("careful", "conn", "events", "now_ms", "undo")

    def __init__(self, conn: sqlite3.Connection, now_ms: int, *, careful: bool = False) -> None:
        self.conn = conn
        self.now_ms = now_ms
        self.careful = careful
        self.events: list[Event] = []
        self.undo: list[Callable[[], None]] = []


class TryCarefully(Exception):
    """Raised by a handler whose fast path failed: its items run again one by one, with ``tx.careful``."""


Handler = Callable[[Tx, Sequence[I]], Sequence[R | FlashFlowError]]
"""Takes the waiting items; returns one result or refusal for each, in order. A refused item must not have written
anything. If a handler raises, its changes are rolled back and its items run again one by one."""


@overload
def each_item(change: Callable[[Tx, I], R]) -> Callable[[Tx, Sequence[I]], list[R | FlashFlowError]]: ...


@overload
def each_item(change: Callable[[S, Tx, I], R]) -> Callable[[S, Tx, Sequence[I]], list[R | FlashFlowError]]: ...


def each_item(change: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Make a handler of a function or method that does one item. A refusal that it raises, before it has written
    anything, is the result of that item only."""

    @wraps(change)
    def handle(*args: Any) -> list[Any]:
        *context, items = args
        results: list[Any] = []
        for item in items:
            try:
                results.append(change(*context, item))
            except REFUSALS as refusal:
                results.append(refusal)
        return results

    return handle


class Write(Generic[I, R]):
    """One write to do: ``handler`` is called with a group of items that includes ``item``, of ``weight`` rows and about
    ``size`` bytes (0 if unknown)."""

    __slots__ = ("handler", "item", "size", "weight")

    def __init__(self, handler: Handler[I, R], item: I, weight: int = 1, size: int = 0) -> None:
        self.handler = handler
        self.item = item
        self.weight = weight
        self.size = size


class Bundle:
    """Writes submitted together. The writer's thread fills ``results`` (also refusals), then calls ``done`` once."""

    __slots__ = ("done", "results", "writes")

    def __init__(self, writes: list[Write[Any, Any]], done: Callable[[], None]) -> None:
        self.writes = writes
        self.results: list[Any] = [None] * len(writes)
        self.done = done

    @property
    def rows(self) -> int:
        """Number of rows it writes."""
        return sum([write.weight for write in self.writes])

    @property
    def size(self) -> int:
        """Approximate number of bytes it writes."""
        return sum([write.size for write in self.writes])


Ticket = tuple[Write[Any, Any], Bundle, int]
"""A write, its bundle and its place in ``results``."""
