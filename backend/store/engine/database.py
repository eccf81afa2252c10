"""A SQLite file: WAL, ``synchronous=FULL``, one writer, one connection for each reading thread."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from peewee import PeeweeException, SqliteDatabase, Table, fn

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.encoding import decode_text
from flashflow.backend.core.errors import Stopping, StorageError, StorageFull
from flashflow.backend.core.events import Event
from flashflow.backend.store.engine.cancellable_read import current
from flashflow.backend.store.engine.errors import is_damage, is_damaged_text, is_full, storage_error
from flashflow.backend.store.engine.last_known import LastKnown
from flashflow.backend.store.engine.schema import read_entries
from flashflow.backend.store.engine.statement import Statement, slot
from flashflow.backend.store.engine.writer import I, R, Tx, Write, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")
Prepare = Callable[[sqlite3.Connection], None]
"""Sets up a new connection: registers our SQL functions."""
BUSY_TIMEOUT_S = 10
FAULT_SHOWN_S = 60.0
PROBE_ROW = 64 * 1024
PROBE_BYTES = 1024 * 1024
"""With less free space the disk still counts as full: one write may succeed by chance and the next fail."""
WRITER_CACHE_KIB = -32_000
"""Cache of the writer (SQLite counts KiB as negative). Writes hit indexes by user at random places, so a smaller cache
reads the same pages again and again."""


class _Connection(sqlite3.Connection):
    """A connection that a WeakSet can hold, so that it is freed with its thread."""

    __slots__ = ("__weakref__",)


def _without_shm(path: str, *arguments: Any, **options: Any) -> _Connection:
    options["uri"] = True
    return _Connection(uri_of(Path(path), no_room=True), *arguments, **options)


def uri_of(path: Path, *, mode: str = "rwc", no_room: bool = False) -> str:
    """Return the URI that opens ``path``; with ``no_room`` without a ``-shm`` file."""
    # SQLite cannot even read a file in WAL mode without 32 KiB of disk for ``-shm``. Its VFS ``unix-excl`` keeps it in
    # memory; then no other process can open the file.
    return f"{path.absolute().as_uri()}?mode={mode}{'&vfs=unix-excl' if no_room else ''}"


def lacks_room(path: Path) -> bool:
    """Whether ``path`` cannot be read because the disk is too full for its ``-shm`` file."""
    if os.name != "posix" or path.stat().st_size == 0:
        return False
    try:
        # Read-only: closing a connection that may write would checkpoint the WAL, which is not checked yet.
        with closing(sqlite3.connect(uri_of(path, mode="ro"), uri=True, timeout=BUSY_TIMEOUT_S)) as conn:
            read_entries(conn)
    except sqlite3.Error as error:
        return is_full(error)
    return False


class Database(SqliteDatabase):
    """Peewee's database that tracks every thread's connection, so that ``close_all`` closes all of them."""

    def __init__(self, path: Path, name: str, prepare: Prepare | None = None, *, no_room: bool = False) -> None:
        self._prepare = prepare
        self._opened: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        self._opening = threading.Lock()
        self.tolerant = False
        """Whether invalid UTF-8 is read as U+FFFD. Off until a row needs it, because it slows down reads."""
        super().__init__(
            str(path),
            pragmas=[
                ("journal_mode", "wal"),
                ("synchronous", "full"),
                ("foreign_keys", 1),
                ("temp_store", "memory"),
                ("cache_size", -8_000),
                ("wal_autocheckpoint", 0),  # the Checkpointer does it
                ("journal_size_limit", 96 * 1024 * 1024),
            ],
            timeout=BUSY_TIMEOUT_S,
            factory=_without_shm if no_room else _Connection,
            check_same_thread=False,
        )
        self.name = name

    def _connect(self) -> sqlite3.Connection:
        conn: sqlite3.Connection = super()._connect()  # type: ignore[misc]  # the stubs leave it out
        with self._opening:
            self._opened.add(conn)
            conn.text_factory = self._text()
        if self._prepare is not None:
            self._prepare(conn)
        return conn

    def tolerate(self, on: bool) -> None:
        """Set ``tolerant`` for every connection, from any thread."""
        with self._opening:
            self.tolerant = on
            for conn in self._opened:
                conn.text_factory = self._text()

    def _text(self) -> Callable[[bytes], str]:
        return decode_text if self.tolerant else str

    def close_all(self) -> None:
        """Close every thread's connection. Call it once nothing reads or writes any more."""
        for conn in list(self._opened):
            conn.close()
        self._opened.clear()


def create_private(path: Path) -> None:
    """Create ``path`` if missing and set mode 0600, which ``-wal`` and ``-shm`` inherit."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        os.chmod(path, 0o600)


def suspect_marker(path: Path) -> Path:
    """Path of the marker file that makes the next start check ``path``, whatever its size."""
    return path.with_name(path.name + ".suspect")


def mark_suspect(path: Path) -> None:
    """Make the next start check ``path`` before it opens it."""
    with suppress(OSError):  # on a full disk; the next start checks files of usual size anyway
        create_private(suspect_marker(path))


class Store:
    """One open file: reads on any thread, writes through the writer."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        publish: Callable[[Iterable[Event]], None],
        *,
        record: LastKnown | None = None,
        loss: str | None = None,
    ) -> None:
        self.database = database
        self.clock = clock
        self.loss = loss
        """Message to the user about rows found missing when the file was opened."""
        self._record = record
        self._failed_read = -math.inf, "", False
        self.writer = Writer(
            self._connect_writer, clock, publish, name=f"flashflow-write-{database.name}", record=record
        )
        self._closed = False

    def _connect_writer(self) -> sqlite3.Connection:
        conn: sqlite3.Connection = self.database.connection()  # type: ignore[no-untyped-call]
        conn.execute(f"PRAGMA cache_size = {WRITER_CACHE_KIB}").fetchall()
        # From the first write on: SQLite moves rows between pages, and no copy may survive an erasure.
        conn.execute("PRAGMA secure_delete = ON").fetchall()
        conn.text_factory = decode_text  # a write cannot always be repeated on damaged text, as a read can
        return conn

    def run(self, write: Write[I, R]) -> R:
        """Run ``write``; return after its COMMIT."""
        return self.writer.run(write)

    def write(self, step: Callable[[Tx], R]) -> R:
        """Run ``step`` in a transaction of the writer; return its result after COMMIT."""
        write: Write[None, R] = Write(lambda tx, items: [step(tx) for _ in items], None)
        return self.run(write)

    def run_all(self, writes: Sequence[Write[I, R]]) -> list[R | BaseException]:
        """Run all ``writes``, in one transaction unless one of them fails; return each one's result or refusal. Raises
        Stopping."""
        return self.writer.run_all(writes)

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``query`` on this thread's connection, on one snapshot of the file. Raises StorageError, and Cancelled if
        this thread's Reading was cancelled.

        The first damaged text makes ``query`` run again; from then on all connections replace it with U+FFFD.
        """
        try:
            return self._read(query)
        except (sqlite3.Error, PeeweeException) as error:
            if not is_damaged_text(error) or self.database.tolerant:
                raise self._refusal(error) from error
        log.error("%s has text that is not UTF-8; reads replace it", self.database.name)
        self.database.tolerate(True)
        try:
            return self._read(query)
        except (sqlite3.Error, PeeweeException) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> StorageError:
        """Log a failed read and record it for ``fault``."""
        refusal = storage_error(error)
        self._failed_read = self.clock.monotonic(), refusal.code, is_damage(error) or self._failed_read[2]
        log.warning("a read of %s failed: %s", self.database.name, error, exc_info=error)
        if is_damage(error):
            mark_suspect(Path(self.database.database))
        return refusal

    @property
    def fault(self) -> str | None:
        """Error code of the file; None if writes work and no read failed within FAULT_SHOWN_S. A read of a damaged page
        counts until the next start."""
        if self.writer.fault is not None:
            return self.writer.fault
        at, code, damaged = self._failed_read
        return code if damaged or self.clock.monotonic() - at < FAULT_SHOWN_S else None

    def probe(self) -> None:
        """If the last write failed, try one, so that ``fault`` is current."""
        if self.writer.fault is None or self.writer.waiting:
            return
        path = Path(self.database.database)
        if self.writer.fault == StorageFull.code and shutil.disk_usage(path.parent).free < PROBE_BYTES:
            return
        with suppress(StorageError, Stopping):
            self.run(Write(_probe, None))

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        conn: sqlite3.Connection = self.database.connection()  # type: ignore[no-untyped-call]
        reading = current()
        if reading is None:
            return _on_snapshot(conn, query)
        with reading.on(conn):
            return _on_snapshot(conn, query)

    def close(self) -> None:
        """Finish waiting writes, checkpoint the WAL, close all connections. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.writer.stop()
        self.database.close_all()
        path = Path(self.database.database)
        emptied = empty_wal(path)
        if self._record is not None:
            # If the WAL still exists, another process has the file open and may write.
            self._record.close(clean=emptied and not path.with_name(path.name + "-wal").exists())


def _on_snapshot(conn: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
    conn.execute("BEGIN")
    try:
        return query(conn)
    finally:
        if conn.in_transaction:
            conn.execute("COMMIT")


PROBE = "CREATE TABLE flashflow_probe (filler BLOB)"
_TABLE = Table("flashflow_probe")
_FILL_PROBE = Statement(lambda: _TABLE.insert({_TABLE.c.filler: fn.zeroblob(slot("size"))}))


def _probe(tx: Tx, items: Sequence[None]) -> list[None]:
    """Write and delete as much as a usual request: a write of nothing succeeds on a full disk."""
    tx.conn.execute(PROBE)
    _FILL_PROBE.run(tx.conn, size=PROBE_ROW)
    tx.conn.execute("DROP TABLE flashflow_probe")
    return [None] * len(items)


def empty_wal(path: Path) -> bool:
    """Checkpoint and empty the WAL of a file that this process has closed; return whether that was complete."""
    try:
        with closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as conn:
            (busy, _, _) = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        # The WAL keeps everything; a later start copies it when the disk has room again.
        log.warning("the WAL of %s was not emptied at the end: %s", path.name, error)
        return False
    return not busy
