"""The writer: what it answered is on disk, one that fails takes nobody with it, and a refusal changes nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee
import pytest
from peewee import BigIntegerField

from flashflow.backend.core.errors import Conflict, FlashFlowError, Stopping, StorageError, StorageFull
from flashflow.backend.core.events import Event
from flashflow.backend.store.engine.checkpoint import GROUPS, Checkpointer
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.errors import is_storage_fault
from flashflow.backend.store.engine.models import BaseModel, BytesField
from flashflow.backend.store.engine.open import open_store
from flashflow.backend.store.engine.schema import FileSchema
from flashflow.backend.store.engine.writer import Bundle, TryCarefully, Tx, Write
from tests.support.fixed_clock import StillClock
from tests.support.server_process import eventually

PATIENCE = 10.0


class Number(BaseModel):
    """A number."""

    n = BigIntegerField(primary_key=True)
    filler = BytesField(null=True)

    class Meta:
        table_name = "t"


SCHEMA = FileSchema((Number,))


class Kept:
    """A store of one table of numbers, and what it told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[Event] = []
        self.groups: list[list[int]] = []
        self.store: Store = open_store(path, SCHEMA, StillClock(), self.told.extend, [].append)

    def insert(self, tx: Tx, items: Sequence[int]) -> list[int | FlashFlowError]:
        """Store numbers; a negative one is refused, 13 breaks the group, answers are ten times the number."""
        self.groups.append(list(items))
        answers: list[int | FlashFlowError] = []
        for number in items:
            if number < 0:
                answers.append(Conflict(f"{number} is negative"))
                continue
            tx.conn.execute("INSERT INTO t (n) VALUES (?)", (number,))
            tx.events.append(Event("activity", str(number)))
            if number == 13:
                raise ZeroDivisionError("13")
            answers.append(number * 10)
        return answers

    def together(self, *numbers: int, handler: Any = None) -> list[Any]:
        """What becomes of numbers that reach the writer in one group."""
        done = threading.Event()
        bundle = Bundle([Write(handler or self.insert, number) for number in numbers], done.set)
        self.store.writer.submit(bundle)
        assert done.wait(PATIENCE)
        return [repr(result) if isinstance(result, Exception) else result for result in bundle.results]

    def numbers(self) -> list[int]:
        """What another program reads from the file now."""
        with closing(sqlite3.connect(self.path)) as other:
            return [n for (n,) in other.execute("SELECT n FROM t ORDER BY n")]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path / "x.db")
    yield kept
    kept.store.close()


# --- group commit -----------------------------------------------------------------------------------------------------


def test_whatever_waits_is_committed_together_and_answered_in_order(kept: Kept) -> None:
    assert kept.together(3, 1, 2) == [30, 10, 20]
    assert kept.groups == [[3, 1, 2]]
    assert [event.id for event in kept.told] == ["3", "1", "2"]


def test_items_of_several_handlers_share_one_transaction_and_each_gets_its_own_answer(kept: Kept) -> None:
    seen: list[int] = []

    def total(tx: Tx, items: Sequence[str]) -> list[str]:
        seen.append(tx.conn.execute("SELECT COUNT(*) FROM t").fetchone()[0])
        return [item.upper() for item in items]

    done = threading.Event()
    bundle = Bundle([Write(kept.insert, 1), Write(total, "a"), Write(kept.insert, 2), Write(total, "b")], done.set)
    kept.store.writer.submit(bundle)
    assert done.wait(PATIENCE)
    assert bundle.results == [10, "A", 20, "B"]
    assert seen == [2]


def test_an_answer_comes_only_after_another_connection_can_see_the_row(kept: Kept) -> None:
    with closing(sqlite3.connect(kept.path)) as other:
        for number in range(100, 300):
            kept.store.run(Write(kept.insert, number))
            assert other.execute("SELECT 1 FROM t WHERE n = ?", (number,)).fetchone() == (1,)


def test_whoever_waits_is_answered_after_the_commit_and_before_the_bus(kept: Kept) -> None:
    order: list[str] = []
    told = threading.Event()

    def done() -> None:
        order.append(f"answered with {kept.numbers()} on disk")

    def publish(events: Any) -> None:
        order.append("told")
        told.set()

    kept.store.writer._publish = publish
    kept.store.writer.submit(Bundle([Write(kept.insert, 1)], done))
    assert told.wait(PATIENCE)
    assert order == ["answered with [1] on disk", "told"]


def test_an_item_that_is_refused_changes_nothing_and_takes_no_other_with_it(kept: Kept) -> None:
    assert kept.together(1, -5, 2) == [10, "Conflict('-5 is negative')", 20]
    assert kept.numbers() == [1, 2]
    assert len(kept.groups) == 1


def test_an_item_that_breaks_its_group_fails_alone(kept: Kept) -> None:
    assert kept.together(1, 13, 2) == [10, "ZeroDivisionError('13')", 20]
    assert kept.numbers() == [1, 2]
    assert kept.groups == [[1, 13, 2], [1], [13], [2]]
    assert [event.id for event in kept.told] == ["1", "2"]
    assert kept.store.writer.fault is None


def test_a_broken_constraint_is_a_refusal_of_that_item_alone(kept: Kept) -> None:
    kept.store.run(Write(kept.insert, 2))
    first, twice, last = kept.together(1, 2, 3)
    assert (first, last) == (10, 30)
    assert twice.startswith("StorageError")
    assert kept.numbers() == [1, 2, 3]


def test_a_handler_that_answers_too_few_changes_nothing(kept: Kept) -> None:
    def forgetful(tx: Tx, items: Sequence[int]) -> list[int]:
        tx.conn.execute("INSERT INTO t (n) VALUES (99)")
        return []

    (answer,) = kept.together(1, handler=forgetful)
    assert answer.startswith("ValueError")
    assert kept.numbers() == []


def test_many_threads_are_each_given_their_own_answer(kept: Kept) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: kept.store.run(Write(kept.insert, number)), range(100, 600)))
    assert answers == [number * 10 for number in range(100, 600)]
    assert kept.numbers() == list(range(100, 600))


# --- trying again -----------------------------------------------------------------------------------------------------


def test_a_shortcut_that_fails_is_tried_again_carefully_one_by_one(kept: Kept) -> None:
    tries: list[tuple[bool, list[int]]] = []

    def quick(tx: Tx, items: Sequence[int]) -> list[str]:
        tries.append((tx.careful, list(items)))
        tx.conn.executemany("INSERT INTO t (n) VALUES (?)", [(item,) for item in items])
        if not tx.careful:
            raise TryCarefully
        return [f"carefully {item}" for item in items]

    assert kept.together(1, 2, handler=quick) == ["carefully 1", "carefully 2"]
    assert tries == [(False, [1, 2]), (True, [1]), (True, [2])]
    assert kept.numbers() == [1, 2]
    assert kept.together(3, handler=quick) == ["carefully 3"]


def test_what_a_handler_remembers_is_taken_back_when_its_transaction_is(kept: Kept) -> None:
    remembered: list[int] = []

    def remembering(tx: Tx, items: Sequence[int]) -> list[int | FlashFlowError]:
        tx.undo.append(remembered.clear)
        remembered.extend(items)
        return kept.insert(tx, items)

    assert kept.together(1, 2, handler=remembering) == [10, 20]
    assert remembered == [1, 2]
    kept.together(13, handler=remembering)
    assert remembered == []


# --- faults -----------------------------------------------------------------------------------------------------------


def run_out_of_pages(tx: Tx, items: Sequence[Any]) -> list[None]:
    """From now on the file may not grow: SQLite says so as it does of a full disk."""
    tx.conn.execute(f"PRAGMA max_page_count = {items[0]}")
    return [None] * len(items)


def big(tx: Tx, items: Sequence[int]) -> list[int]:
    tx.conn.executemany("INSERT INTO t VALUES (?, zeroblob(100000))", [(item,) for item in items])
    return list(items)


def nothing(tx: Tx, items: Sequence[None]) -> list[None]:
    return list(items)


def test_a_full_disk_is_a_fault_until_a_write_of_something_works_again(kept: Kept) -> None:
    kept.store.run(Write(run_out_of_pages, 1))
    with pytest.raises(StorageFull):
        kept.store.run(Write(big, 1))
    assert kept.store.writer.fault == "storage_full"
    kept.store.run(Write(nothing, None))
    assert kept.store.writer.fault == "storage_full"
    assert kept.store.read(lambda conn: conn.execute("SELECT COUNT(*) FROM t").fetchone()) == (0,)
    kept.store.run(Write(run_out_of_pages, 1_000_000))
    assert kept.store.run(Write(big, 1)) == 1
    assert kept.store.writer.fault is None


def test_a_fault_in_peewees_wrapping_is_known_for_what_it_is(kept: Kept) -> None:
    def by_model(tx: Tx, items: Sequence[int]) -> list[None]:
        try:
            big(tx, items)
        except sqlite3.Error as error:
            raise peewee.OperationalError(*error.args) from error
        return [None]

    kept.store.run(Write(run_out_of_pages, 1))
    with pytest.raises(StorageFull):
        kept.store.run(Write(by_model, 1))


def test_a_file_that_cannot_be_opened_is_a_clear_refusal_for_reader_and_writer(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    kept = Kept(folder / "x.db")
    kept.path.unlink()
    folder.rmdir()
    with pytest.raises(StorageError):
        kept.store.read(lambda conn: conn.execute("SELECT 1").fetchone())
    with pytest.raises(StorageError):
        kept.store.run(Write(kept.insert, 1))
    assert kept.store.writer.fault == "storage_unavailable"
    folder.mkdir()
    open_store(kept.path, SCHEMA, StillClock(), kept.told.extend, [].append).close()
    assert kept.store.run(Write(kept.insert, 1)) == 10
    kept.store.close()


def test_a_bus_that_fails_does_not_end_the_writer(kept: Kept) -> None:
    def deaf(events: Any) -> None:
        raise RuntimeError("deaf")

    kept.store.writer._publish = deaf
    assert kept.store.run(Write(kept.insert, 1)) == 10
    assert kept.store.run(Write(kept.insert, 2)) == 20


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_what_waited_is_written_and_what_comes_after_is_refused(kept: Kept) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(tx: Tx, items: Sequence[int]) -> list[int | FlashFlowError]:
        inside.set()
        assert go_on.wait(PATIENCE)
        return kept.insert(tx, items)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(kept.store.run, Write(slow, 1))
        assert inside.wait(PATIENCE)
        done = threading.Event()
        waiting = Bundle([Write(kept.insert, 2)], done.set)
        kept.store.writer.submit(waiting)
        stopping = pool.submit(kept.store.writer.stop)
        go_on.set()
        stopping.result(PATIENCE)
        assert first.result(PATIENCE) == 10
        assert done.is_set()
    with pytest.raises(Stopping):
        kept.store.run(Write(kept.insert, 3))
    kept.store.writer.stop()
    assert kept.numbers() == [1, 2]


# --- beside the writer ------------------------------------------------------------------------------------------------


def test_readers_go_on_while_the_writer_is_in_the_middle_of_a_transaction(kept: Kept) -> None:
    kept.store.run(Write(kept.insert, 1))
    inside, go_on = threading.Event(), threading.Event()

    def slow(tx: Tx, items: Sequence[int]) -> list[int | FlashFlowError]:
        answers = kept.insert(tx, items)
        inside.set()
        assert go_on.wait(PATIENCE)
        return answers

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(kept.store.run, Write(slow, 2))
        assert inside.wait(PATIENCE)
        count: Callable[[sqlite3.Connection], Any] = lambda conn: conn.execute("SELECT COUNT(*) FROM t").fetchone()  # noqa: E731
        assert kept.store.read(count) == (1,)
        assert pool.submit(kept.store.read, count).result(PATIENCE) == (1,)
        go_on.set()
        assert writing.result(PATIENCE) == 20
        assert kept.store.read(count) == (2,)


def test_a_read_is_of_one_moment_however_long_it_takes(kept: Kept) -> None:
    kept.store.run(Write(kept.insert, 1))

    def twice(conn: sqlite3.Connection) -> list[int]:
        first = conn.execute("SELECT COUNT(*) FROM t").fetchone()[0]
        kept.store.run(Write(kept.insert, 2))
        return [first, conn.execute("SELECT COUNT(*) FROM t").fetchone()[0]]

    assert kept.store.read(twice) == [1, 1]
    assert kept.numbers() == [1, 2]


def test_the_wal_is_folded_while_writes_go_on(kept: Kept) -> None:
    wal = kept.path.with_name("x.db-wal")
    for number in range(GROUPS * 6):
        kept.store.run(Write(big, number))
    assert wal.stat().st_size < GROUPS * 5 * 100_000
    assert len(kept.numbers()) == GROUPS * 6


def test_stopping_in_the_middle_of_a_fold_ends_after_it(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Slow(sqlite3.Connection):
        def execute(self, *args: Any) -> Any:
            inside.set()
            assert go_on.wait(PATIENCE)
            return super().execute(*args)

    folding = Checkpointer(
        lambda: sqlite3.connect(tmp_path / "x.db", factory=Slow, check_same_thread=False), "test-fold"
    )
    with closing(sqlite3.connect(tmp_path / "x.db")) as conn, ThreadPoolExecutor(1) as pool:
        for _ in range(GROUPS):
            folding.after_commit(conn)
        assert inside.wait(PATIENCE)
        stopping = pool.submit(folding.stop)
        eventually(lambda: folding._stopping)
        go_on.set()
        stopping.result(PATIENCE)


def test_an_error_that_lies_beneath_itself_is_looked_at_once() -> None:
    error = ZeroDivisionError("a bug")
    try:
        try:
            raise error
        except ZeroDivisionError as first:
            raise TryCarefully from first
    except TryCarefully as second:
        error.__context__ = second
    assert not is_storage_fault(error)
