"""Writes from an event loop: one bundle a turn, a deadline, and nobody left waiting."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.core.errors import Conflict, FlashFlowError, Stopping
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.open import open_store
from flashflow.backend.store.engine.schema import FileSchema
from flashflow.backend.store.engine.writer import Bundle, LoopWrites, Tx, Write
from tests.support.fixed_clock import StillClock

PATIENCE = 10.0


class Groups:
    """A handler that remembers the groups it was given."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, tx: Tx, items: Sequence[int]) -> list[int | FlashFlowError]:
        self.seen.append(list(items))
        return [Conflict("negative") if item < 0 else item * 10 for item in items]


@pytest.fixture
def groups() -> Groups:
    return Groups()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "x.db", FileSchema(()), StillClock(), lambda events: None, [].append)
    yield store
    store.close()


@contextmanager
def busy(store: Store) -> Iterator[None]:
    """The writer has its hands full with somebody else's write."""
    inside, go_on = threading.Event(), threading.Event()

    def hold(tx: Tx, items: Sequence[None]) -> list[None]:
        inside.set()
        assert go_on.wait(PATIENCE)
        return list(items)

    done = threading.Event()
    store.writer.submit(Bundle([Write(hold, None)], done.set))
    assert inside.wait(PATIENCE)
    try:
        yield
    finally:
        go_on.set()
    assert done.wait(PATIENCE)


def test_all_that_one_turn_asks_for_is_one_group_in_order(store: Store, groups: Groups) -> None:
    async def main() -> list[int]:
        writes = LoopWrites(store.writer)
        first = await asyncio.gather(*(writes.run(Write(groups, number)) for number in range(5)))
        return [*first, *(await asyncio.gather(*(writes.run(Write(groups, number)) for number in (7, 6))))]

    assert asyncio.run(main()) == [0, 10, 20, 30, 40, 70, 60]
    assert groups.seen == [[0, 1, 2, 3, 4], [7, 6]]


def test_a_refusal_is_raised_where_it_was_asked_for(store: Store, groups: Groups) -> None:
    async def main() -> list[Any]:
        writes = LoopWrites(store.writer)
        asked = [writes.run(Write(groups, number)) for number in (1, -1, 2)]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, refused, last = asyncio.run(main())
    assert (first, last) == (10, 20)
    assert isinstance(refused, Conflict)


def test_a_write_that_takes_too_long_is_given_up_and_its_late_answer_hurts_nobody(store: Store, groups: Groups) -> None:
    async def main() -> int:
        with busy(store), pytest.raises(TimeoutError):
            await LoopWrites(store.writer, deadline_s=0.05).run(Write(groups, 1))
        return await LoopWrites(store.writer, deadline_s=PATIENCE).run(Write(groups, 2))

    assert asyncio.run(main()) == 20
    assert groups.seen == [[1], [2]]


def test_while_the_writer_is_busy_the_loop_is_not_held_up(store: Store, groups: Groups) -> None:
    async def main() -> int:
        with busy(store):
            waiting = LoopWrites(store.writer, deadline_s=PATIENCE).run(Write(groups, 1))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not waiting.done()
        return await waiting

    assert asyncio.run(main()) == 10


def test_who_no_longer_waits_does_not_keep_the_others_from_their_answers(store: Store, groups: Groups) -> None:
    async def main() -> list[int]:
        writes = LoopWrites(store.writer)
        gone, kept = writes.run(Write(groups, 1)), writes.run(Write(groups, 2))
        gone.cancel()
        return [await kept, await writes.run(Write(groups, 3))]

    assert asyncio.run(main()) == [20, 30]


def test_after_the_writer_has_stopped_the_refusal_comes_at_once(store: Store, groups: Groups) -> None:
    async def main() -> None:
        writes = LoopWrites(store.writer)
        store.writer.stop()
        with pytest.raises(Stopping):
            await writes.run(Write(groups, 1))

    asyncio.run(main())
    assert groups.seen == []


def test_a_loop_that_ended_before_its_answer_does_not_trouble_the_writer(store: Store, groups: Groups) -> None:
    async def main() -> None:
        LoopWrites(store.writer).run(Write(groups, 1))
        for _ in range(3):
            await asyncio.sleep(0)  # the bundle has been handed over

    with busy(store):
        asyncio.run(main())
    assert store.run(Write(groups, 2)) == 20
    assert groups.seen == [[1, 2]] or groups.seen == [[1], [2]]


def test_while_another_program_holds_the_file_the_loop_is_not_held_up(store: Store, groups: Groups) -> None:
    async def main() -> list[int]:
        writes = LoopWrites(store.writer, deadline_s=PATIENCE)
        first = await writes.run(Write(groups, 1))
        with closing(sqlite3.connect(store.database.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = writes.run(Write(groups, 2))
            turns = 0
            async with asyncio.timeout(PATIENCE / 2):
                for turns in range(1, 1001):  # noqa: B007 counted
                    await asyncio.sleep(0)
            assert not waiting.done()
            other.execute("ROLLBACK")
        return [first, turns, await waiting]

    assert asyncio.run(main()) == [10, 1000, 20]


def test_a_few_rows_are_committed_in_the_loops_own_turn_and_many_by_the_writers_thread(store: Store) -> None:
    threads: dict[str, str] = {}

    def note(tx: Tx, items: Sequence[str]) -> list[None]:
        threads.update(dict.fromkeys(items, threading.current_thread().name))
        return [None] * len(items)

    async def ask() -> None:
        writes = LoopWrites(store.writer)
        await writes.run(Write(note, "few"))
        await writes.run(Write(note, "many", weight=500))

    asyncio.run(ask())
    assert threads["few"] == threading.current_thread().name
    assert threads["many"].startswith("flashflow-write-")
