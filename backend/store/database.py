"""A SQLite file as FlashFlow keeps it: WAL, ``synchronous=FULL``, one writer, a connection for each reading thread."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from peewee import PeeweeException, SqliteDatabase

from backend.clock import Clock
from backend.events import Event
from backend.store.faults import storage_error
from backend.store.writer import I, R, Write, Writer

T = TypeVar("T")
Prepare = Callable[[sqlite3.Connection], None]
"""Gives a new connection what its statements need beyond SQL: functions of our own."""
BUSY_TIMEOUT_S = 10
WRITER_CACHE_KIB = -32_000
"""SQLite's negative KiB. Indexes over users are written all over: what does not fit here is read again each time."""


class _Connection(sqlite3.Connection):
    """A connection that a WeakSet can hold, so that a thread which ends takes its own with it."""

    __slots__ = ("__weakref__",)


class Database(SqliteDatabase):
    """Peewee's database with every thread's connection known, so that ``close_all`` leaves none behind."""

    def __init__(self, path: Path, name: str, prepare: Prepare | None = None) -> None:
        self._prepare = prepare
        self._opened: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        super().__init__(
            str(path),
            pragmas=[
                ("journal_mode", "wal"),
                ("synchronous", "full"),
                ("foreign_keys", 1),
                ("temp_store", "memory"),
                ("cache_size", -8_000),
                ("wal_autocheckpoint", 0),  # the Checkpointer's work
                ("journal_size_limit", 96 * 1024 * 1024),
            ],
            timeout=BUSY_TIMEOUT_S,
            factory=_Connection,
            check_same_thread=False,
        )
        self.name = name

    def _connect(self) -> sqlite3.Connection:
        conn: sqlite3.Connection = super()._connect()  # type: ignore[misc]  # the stubs leave it out
        self._opened.add(conn)
        if self._prepare is not None:
            self._prepare(conn)
        return conn

    def close_all(self) -> None:
        """Close every thread's connection. Only when nothing reads or writes any more."""
        for conn in list(self._opened):
            conn.close()
        self._opened.clear()


def create_private(path: Path) -> None:
    """Make sure ``path`` exists and only its owner can read it: ``-wal`` and ``-shm`` follow its mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        os.chmod(path, 0o600)


class Store:
    """One open file: reads on any thread, writes through the writer."""

    def __init__(self, database: Database, clock: Clock, publish: Callable[[Iterable[Event]], None]) -> None:
        self.database = database
        self.clock = clock
        self.writer = Writer(self._connect_writer, clock, publish, name=f"flashflow-write-{database.name}")
        self._closed = False

    def _connect_writer(self) -> sqlite3.Connection:
        conn: sqlite3.Connection = self.database.connection()  # type: ignore[no-untyped-call]
        conn.execute(f"PRAGMA cache_size = {WRITER_CACHE_KIB}").fetchall()
        # From the first write on: what a row leaves behind where it is moved within the file must go with it, too.
        conn.execute("PRAGMA secure_delete = ON").fetchall()
        return conn

    def run(self, write: Write[I, R]) -> R:
        """Do ``write`` and return after its COMMIT."""
        return self.writer.run(write)

    def run_all(self, writes: Sequence[Write[I, R]]) -> list[R | BaseException]:
        """Do all ``writes``, in one transaction unless one of them cannot be done; for each its result or its refusal.
        Raises Stopping."""
        return self.writer.run_all(writes)

    def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Answer ``question`` from this thread's own connection, on one snapshot of the file."""
        try:
            conn: sqlite3.Connection = self.database.connection()  # type: ignore[no-untyped-call]
            conn.execute("BEGIN")
            try:
                return question(conn)
            finally:
                if conn.in_transaction:
                    conn.execute("COMMIT")
        except (sqlite3.Error, PeeweeException) as error:
            raise storage_error(error) from error

    def close(self) -> None:
        """Finish the waiting writes, fold the WAL into the file, close everything. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.writer.stop()
        self.database.close_all()
        fold_wal(Path(self.database.database))


def fold_wal(path: Path) -> None:
    """Checkpoint and empty the WAL of a file that nothing else in this process has open."""
    conn = sqlite3.connect(path, timeout=2, isolation_level=None)
    try:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        conn.close()


def rows_as_dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    """All rows of ``cursor``, by column name."""
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
