"""A SQLite file as FlashFlow keeps it: WAL, ``synchronous=FULL``, one writer, a connection for each reading thread."""

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

from peewee import PeeweeException, SqliteDatabase

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.encoding import decode_text
from flashflow.backend.core.errors import Stopping, StorageError, StorageFull
from flashflow.backend.core.events import Event
from flashflow.backend.store.engine.cancellable_read import current
from flashflow.backend.store.engine.errors import is_damage, is_damaged_text, is_full, storage_error
from flashflow.backend.store.engine.last_known import LastKnown
from flashflow.backend.store.engine.writer import I, R, Tx, Write, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")
Prepare = Callable[[sqlite3.Connection], None]
"""Gives a new connection what its statements need beyond SQL: functions of our own."""
BUSY_TIMEOUT_S = 10
FAULT_SHOWN_S = 60.0
PROBE_ROW = 64 * 1024
PROBE_BYTES = 1024 * 1024
"""Below this much room a full disk counts as full still: a write may find room by chance that the next does not."""
WRITER_CACHE_KIB = -32_000
"""SQLite's negative KiB. Indexes over users are written all over: what does not fit here is read again each time."""


class _Connection(sqlite3.Connection):
    """A connection that a WeakSet can hold, so that a thread which ends takes its own with it."""

    __slots__ = ("__weakref__",)


def _without_shm(path: str, *arguments: Any, **options: Any) -> _Connection:
    options["uri"] = True
    return _Connection(uri_of(Path(path), no_room=True), *arguments, **options)


def uri_of(path: Path, *, mode: str = "rwc", no_room: bool = False) -> str:
    """The URI that opens ``path``; with ``no_room`` the WAL's index stays in this process's memory.

    SQLite cannot even read a WAL file without the 32 KiB of its ``-shm`` on the disk. Its VFS ``unix-excl`` needs none;
    in return no other process can open the file.
    """
    return f"{path.absolute().as_uri()}?mode={mode}{'&vfs=unix-excl' if no_room else ''}"


def lacks_room(path: Path) -> bool:
    """Whether ``path`` cannot be read in the usual way because the disk is full, though it could be without a -shm."""
    if os.name != "posix" or path.stat().st_size == 0:
        return False
    try:
        # Read only: the end of a connection that may write folds the WAL, which is not checked yet.
        with closing(sqlite3.connect(uri_of(path, mode="ro"), uri=True, timeout=BUSY_TIMEOUT_S)) as conn:
            conn.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return is_full(error)
    return False


class Database(SqliteDatabase):
    """Peewee's database with every thread's connection known, so that ``close_all`` leaves none behind."""

    def __init__(self, path: Path, name: str, prepare: Prepare | None = None, *, no_room: bool = False) -> None:
        self._prepare = prepare
        self._opened: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        self._opening = threading.Lock()
        self.tolerant = False
        """Whether text that is not UTF-8 is read with U+FFFD in it; off until a row needs it: reading is slower so."""
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
        """Switch ``tolerant`` for every connection. Any thread may call it."""
        with self._opening:
            self.tolerant = on
            for conn in self._opened:
                conn.text_factory = self._text()

    def _text(self) -> Callable[[bytes], str]:
        return decode_text if self.tolerant else str

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


def suspect_marker(path: Path) -> Path:
    """The file beside ``path`` whose presence has the next start check it, whatever its size."""
    return path.with_name(path.name + ".suspect")


def mark_suspect(path: Path) -> None:
    """Have the next start check ``path`` before it opens it."""
    with suppress(OSError):  # on a full disk: it is looked through at the start unless it is large
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
        """What was found missing when the file was opened, for its owner."""
        self._record = record
        self._failed_read = -math.inf, "", False
        self.writer = Writer(
            self._connect_writer, clock, publish, name=f"flashflow-write-{database.name}", record=record
        )
        self._closed = False

    def _connect_writer(self) -> sqlite3.Connection:
        conn: sqlite3.Connection = self.database.connection()  # type: ignore[no-untyped-call]
        conn.execute(f"PRAGMA cache_size = {WRITER_CACHE_KIB}").fetchall()
        # From the first write on: what a row leaves behind where it is moved within the file must go with it, too.
        conn.execute("PRAGMA secure_delete = ON").fetchall()
        conn.text_factory = decode_text  # a writer reads little, and cannot always begin again
        return conn

    def run(self, write: Write[I, R]) -> R:
        """Do ``write`` and return after its COMMIT."""
        return self.writer.run(write)

    def run_all(self, writes: Sequence[Write[I, R]]) -> list[R | BaseException]:
        """Do all ``writes``, in one transaction unless one of them cannot be done; for each its result or its refusal.
        Raises Stopping."""
        return self.writer.run_all(writes)

    def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Answer ``question`` from this thread's own connection, on one snapshot of the file. Raises StorageError, and
        Cancelled where the Reading that this belongs to was cancelled.

        Damaged text is replaced: the question is asked a second time then, and from then on all text is read so.
        """
        try:
            return self._read(question)
        except (sqlite3.Error, PeeweeException) as error:
            if not is_damaged_text(error) or self.database.tolerant:
                raise self._refusal(error) from error
        log.error("%s holds text that is not UTF-8; it is replaced where it is read", self.database.name)
        self.database.tolerate(True)
        try:
            return self._read(question)
        except (sqlite3.Error, PeeweeException) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> StorageError:
        """Log a read that failed, and keep it for ``fault``."""
        refusal = storage_error(error)
        self._failed_read = self.clock.monotonic(), refusal.code, is_damage(error) or self._failed_read[2]
        log.warning("a read of %s failed: %s", self.database.name, error, exc_info=error)
        if is_damage(error):
            mark_suspect(Path(self.database.database))
        return refusal

    @property
    def fault(self) -> str | None:
        """The code of what is wrong with the file; None when writes work and no read failed lately.

        A damaged page stays damaged, so a read that met one counts until the next start.
        """
        if self.writer.fault is not None:
            return self.writer.fault
        at, code, damaged = self._failed_read
        return code if damaged or self.clock.monotonic() - at < FAULT_SHOWN_S else None

    def probe(self) -> None:
        """Where the last write found the disk full or failing, try one, so that ``fault`` is of now."""
        if self.writer.fault is None or self.writer.waiting:
            return
        path = Path(self.database.database)
        if self.writer.fault == StorageFull.code and shutil.disk_usage(path.parent).free < PROBE_BYTES:
            return
        with suppress(StorageError, Stopping):
            self.run(Write(_probe, None))

    def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        conn: sqlite3.Connection = self.database.connection()  # type: ignore[no-untyped-call]
        with current().on(conn):
            conn.execute("BEGIN")
            try:
                return question(conn)
            finally:
                if conn.in_transaction:
                    conn.execute("COMMIT")

    def close(self) -> None:
        """Finish the waiting writes, fold the WAL into the file, close everything. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.writer.stop()
        self.database.close_all()
        path = Path(self.database.database)
        folded = fold_wal(path)
        if self._record is not None:
            # Where the WAL is still there, another process has the file open and may go on writing.
            self._record.close(clean=folded and not path.with_name(path.name + "-wal").exists())


def _probe(tx: Tx, items: Sequence[None]) -> list[None]:
    """Write as much as a usual request and take it back: a full disk takes a write of nothing."""
    tx.conn.execute("CREATE TABLE flashflow_probe (filler BLOB)")
    tx.conn.execute("INSERT INTO flashflow_probe VALUES (zeroblob(?))", (PROBE_ROW,))
    tx.conn.execute("DROP TABLE flashflow_probe")
    return [None] * len(items)


def fold_wal(path: Path) -> bool:
    """Checkpoint and empty the WAL of a file that nothing else in this process has open; whether all of it is in."""
    try:
        with closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as conn:
            (busy, _, _) = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        # The WAL keeps everything; a later start folds it when the disk has room again.
        log.warning("the WAL of %s was not folded at the end: %s", path.name, error)
        return False
    return not busy


def rows_as_dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    """All rows of ``cursor``, by column name."""
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
