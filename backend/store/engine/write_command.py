"""A write: what to do, with what, and where its result goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.events import Event

I = TypeVar("I")  # noqa: E741 an item
R = TypeVar("R")


class Tx:
    """What a handler gets: the writer's connection inside BEGIN IMMEDIATE, the time, and where to leave its events.

    ``careful`` is set on the second try of a handler that raised TryCarefully. ``undo`` is called if the transaction is
    rolled back: for what a handler remembers beyond it.
    """

    __slots__ = ("careful", "conn", "events", "now_ms", "undo")

    def __init__(self, conn: sqlite3.Connection, now_ms: int, *, careful: bool = False) -> None:
        self.conn = conn
        self.now_ms = now_ms
        self.careful = careful
        self.events: list[Event] = []
        self.undo: list[Callable[[], None]] = []


class TryCarefully(Exception):
    """Raised by a handler whose shortcut failed: its items are tried again one by one, with ``tx.careful``."""


Handler = Callable[[Tx, Sequence[I]], Sequence[R | FlashFlowError]]
"""Takes the items that wait, gives one result or one refusal each, in order. A refused item must not have changed
anything by then; a handler that raises has its changes undone and its items tried again one by one."""


class Write(Generic[I, R]):
    """One write, not yet done: ``handler`` will be called with a group that holds ``item``, of ``weight`` rows and
    about ``size`` bytes (0 where that is not known)."""

    __slots__ = ("handler", "item", "size", "weight")

    def __init__(self, handler: Handler[I, R], item: I, weight: int = 1, size: int = 0) -> None:
        self.handler = handler
        self.item = item
        self.weight = weight
        self.size = size


class Bundle:
    """Writes handed over together: their results (or refusals) stand in ``results`` when ``done`` is called, once,
    in the writer's thread."""

    __slots__ = ("done", "results", "writes")

    def __init__(self, writes: list[Write[Any, Any]], done: Callable[[], None]) -> None:
        self.writes = writes
        self.results: list[Any] = [None] * len(writes)
        self.done = done

    @property
    def rows(self) -> int:
        """How many rows it writes."""
        return sum([write.weight for write in self.writes])

    @property
    def size(self) -> int:
        """About how many bytes it writes."""
        return sum([write.size for write in self.writes])


Ticket = tuple[Write[Any, Any], Bundle, int]
"""A write, and where its result goes."""
