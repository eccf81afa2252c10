"""Several workers' turns at the store in one transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
ENOUGH = 3
GATHER_S = 0.003


class _Asked(Generic[I, R]):
    """A turn, and what came of it once it is ``done``."""

    def __init__(self, turn: I) -> None:
        self.turn = turn
        self.done = threading.Event()
        self.result: R | BaseException | None = None


class Clerk(Generic[I, R]):
    """Does a lane's turns. A transaction costs much and a turn in it little, and beside a dozen threads each
    transaction costs more: where a worker ``may_wait``, it waits a moment for others to come. Thread-safe."""

    def __init__(self, enough: int = ENOUGH, gather_s: float = GATHER_S) -> None:
        self._enough = enough
        self._gather_s = gather_s
        self._asked: list[_Asked[I, R]] = []
        self._hurry = False
        self._came = threading.Condition()

    def turn(self, turn: I, do: Callable[[Sequence[I]], Sequence[R | BaseException]], *, may_wait: bool) -> R:
        """``do`` the turn, perhaps together with those of others; its result, or raised what stands in its place."""
        mine: _Asked[I, R] = _Asked(turn)
        group: list[_Asked[I, R]] = []
        with self._came:
            self._asked.append(mine)
            self._hurry = self._hurry or not may_wait or len(self._asked) >= self._enough
            if len(self._asked) == 1:  # the first goes, for all who come meanwhile
                self._came.wait_for(lambda: self._hurry, self._gather_s)
                group, self._asked, self._hurry = self._asked, [], False
            elif self._hurry:
                self._came.notify()
        if group:
            _do(group, do)
        else:
            mine.done.wait()
        if isinstance(mine.result, BaseException):
            raise mine.result
        return cast(R, mine.result)


def _do(group: Sequence[_Asked[I, R]], do: Callable[[Sequence[I]], Sequence[R | BaseException]]) -> None:
    results: Sequence[R | BaseException]
    try:
        results = do([asked.turn for asked in group])
    except BaseException as error:  # noqa: BLE001 it is raised for each of them
        results = [error] * len(group)
    for asked, result in zip(group, results, strict=True):
        asked.result = result
        asked.done.set()
