"""Several workers' turns go into one transaction, and nobody waits who must not."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from backend.delivery.clerk import Clerk
from tests.server_process import eventually

PATIENCE = 10.0


class Book:
    """Doubles what it is given, in the groups that it keeps; refuses odd numbers over ten."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []

    def do(self, turns: Sequence[int]) -> list[int | BaseException]:
        self.groups.append(sorted(turns))
        return [ValueError(str(turn)) if turn > 10 and turn % 2 else turn * 2 for turn in turns]


def waiting(clerk: Clerk[int, int], count: int) -> None:
    eventually(lambda: len(clerk._asked) == count, what=f"{count} turns that wait")


def asked(pool: ThreadPoolExecutor, clerk: Clerk[int, int], book: Book, *turns: int) -> list[Future[int]]:
    """Turns that may wait, one after the other."""
    futures = []
    for number, turn in enumerate(turns, 1):
        futures.append(pool.submit(clerk.turn, turn, book.do, may_wait=True))
        waiting(clerk, number)
    return futures


def test_those_who_may_wait_go_together_once_they_are_enough() -> None:
    clerk, book = Clerk[int, int](enough=3, gather_s=PATIENCE), Book()
    with ThreadPoolExecutor(3) as pool:
        first = asked(pool, clerk, book, 1, 2)
        assert book.groups == []
        assert clerk.turn(3, book.do, may_wait=True) == 6
        assert [future.result(PATIENCE) for future in first] == [2, 4]
    assert book.groups == [[1, 2, 3]]


def test_who_may_not_wait_goes_now_and_takes_along_who_waits() -> None:
    clerk, book = Clerk[int, int](enough=9, gather_s=PATIENCE), Book()
    assert clerk.turn(7, book.do, may_wait=False) == 14
    with ThreadPoolExecutor(2) as pool:
        first = asked(pool, clerk, book, 1, 2)
        assert clerk.turn(3, book.do, may_wait=False) == 6
        assert [future.result(PATIENCE) for future in first] == [2, 4]
    assert book.groups == [[7], [1, 2, 3]]


def test_nobody_waits_for_long() -> None:
    clerk, book = Clerk[int, int](enough=2, gather_s=0.001), Book()
    assert clerk.turn(1, book.do, may_wait=True) == 2


def test_a_turn_that_fails_fails_for_its_own_worker_alone() -> None:
    clerk, book = Clerk[int, int](enough=2, gather_s=PATIENCE), Book()
    with ThreadPoolExecutor(1) as pool:
        (first,) = asked(pool, clerk, book, 11)
        assert clerk.turn(12, book.do, may_wait=True) == 24
        with pytest.raises(ValueError, match="11"):
            first.result(PATIENCE)


def test_where_nothing_could_be_done_everyone_is_told() -> None:
    clerk, book = Clerk[int, int](enough=2, gather_s=PATIENCE), Book()

    def closed(turns: Sequence[int]) -> list[int | BaseException]:
        raise RuntimeError("closed")

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(clerk.turn, 1, closed, may_wait=True)
        waiting(clerk, 1)
        with pytest.raises(RuntimeError):
            clerk.turn(2, book.do, may_wait=True)
        with pytest.raises(RuntimeError):
            first.result(PATIENCE)
    assert clerk.turn(3, book.do, may_wait=False) == 6


def test_every_turn_is_done_once_however_many_come_at_a_time() -> None:
    clerk, book = Clerk[int, int](enough=3, gather_s=0.001), Book()
    go = threading.Barrier(8)

    def work(worker: int) -> list[int]:
        go.wait(PATIENCE)
        return [clerk.turn(2 * (100 * worker + n), book.do, may_wait=n % 3 > 0) for n in range(50)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(work, range(8)))
    assert answers == [[4 * (100 * worker + n) for n in range(50)] for worker in range(8)]
    assert sorted(turn for group in book.groups for turn in group) == sorted(
        2 * (100 * worker + n) for worker in range(8) for n in range(50)
    )
