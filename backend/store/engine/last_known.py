"""Record the last committed rows in a file beside the database, to detect loss: SQLite silently drops a damaged WAL.

``NAME.db.last`` has the highest row number of each table (deletions never lower it) and, after a clean stop, the number
of rows. It is written after every commit, so it never exceeds what was acknowledged, and synced at every checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import msgspec
from peewee import SQL, Table, fn

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import StorageError
from flashflow.backend.core.private_files import set_aside, write_private
from flashflow.backend.store.engine.numbers import last_seqs
from flashflow.backend.store.engine.statement import Statement, variants

log = logging.getLogger(__name__)

ENDING = ".last"
COUNT_BYTES = 256 * 1024 * 1024
"""Rows of larger files are not counted at a stop: that would take seconds."""
_SLOT = 1024
"""Bytes of each of the two records in the file. They are written alternately, so one is always complete."""
LABELS = {
    "user_activities": "activities",
    "user_sessions": "sessions",
    "notifications": "notifications",
    "notification_templates": "templates",
    "device_tokens": "devices",
    "schedules": "schedules",
    "rules": "rules",
}
"""Tables that are reported to the user, with their labels."""


class Known(msgspec.Struct, frozen=True):
    """``turn``: number of the record; ``at``: time in milliseconds since 1970; ``last``: highest row number by table;
    ``rows``: number of rows by table, only after a clean stop."""

    turn: int
    at: int
    last: dict[str, int]
    rows: dict[str, int] = {}


class LastKnown:
    """The record beside an open file. The writer calls ``note`` and ``sync`` between transactions."""

    def __init__(self, path: Path, clock: Clock, known: Known | None, last: dict[str, int]) -> None:
        self._path = path
        self._clock = clock
        self._turn = 0 if known is None else known.turn
        self._last = last
        self._file: BinaryIO | None = None
        record = record_of(path)
        try:
            if not record.exists():
                write_private(record, b"\0" * 2 * _SLOT)
            self._file = record.open("r+b", buffering=0)
            self._write(Known(self._turn + 1, clock.now_ms(), last))  # so that a loss is reported only once
            self.sync()
        except (OSError, StorageError) as error:
            log.warning("%s is not written until the next start: %s", record.name, error)

    def note(self, conn: sqlite3.Connection) -> None:
        """Record the highest row numbers after a commit."""
        if self._file is None:
            return
        last = last_seqs(conn)
        if last != self._last:
            self._write(Known(self._turn + 1, self._clock.now_ms(), last))
            self._last = last

    def sync(self) -> None:
        """Sync the record to disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self, *, clean: bool) -> None:
        """Close the record; if the database was closed ``clean``, add the number of rows. Safe to call twice."""
        if self._file is None:
            return
        try:
            if clean and self._path.stat().st_size <= COUNT_BYTES:
                with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as conn:
                    self._write(Known(self._turn + 1, self._clock.now_ms(), last_seqs(conn), rows(conn)))
            self.sync()
        except (OSError, sqlite3.Error) as error:  # a damaged file: the next start sets it aside
            log.warning("the rows of %s were not counted: %s", self._path.name, error)
        self._file.close()
        self._file = None

    def _write(self, known: Known) -> None:
        assert self._file is not None
        content = msgspec.json.encode(known)
        line = b"%08x %s\n" % (zlib.crc32(content), content)
        self._file.seek(known.turn % 2 * _SLOT)
        self._file.write(line.ljust(_SLOT))
        self._turn = known.turn


def record_of(path: Path) -> Path:
    """Path of the record beside ``path``."""
    return path.with_name(path.name + ENDING)


def read_record(path: Path, tell: Callable[[str], None]) -> Known | None:
    """Read the record of ``path``; None if there is none. ``tell`` receives a message about a damaged record."""
    record = record_of(path)
    try:
        content = record.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read: %s", record.name, error.strerror)
        content = b""
    slots = [_parsed(content[start : start + _SLOT]) for start in (0, _SLOT)]
    complete = [known for known in slots if known is not None]
    if complete:
        return max(complete, key=lambda known: known.turn)
    if content != b"\0" * 2 * _SLOT:
        tell(f"{record.name} was damaged. It was set aside as {set_aside(record).name} and created again.")
    return None


def _parsed(slot: bytes) -> Known | None:
    checksum, _, content = slot.rstrip().partition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        return None
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(content, type=Known)
    return None


@variants(LABELS)
def _count(table: str) -> Statement[tuple[int]]:
    return Statement(Table(table).select(fn.COUNT(SQL("*"))))


def rows(conn: sqlite3.Connection) -> dict[str, int]:
    """Number of rows of each table in LABELS."""
    return {table: _count(table).value(conn) for table in last_seqs(conn) if table in LABELS}


def missing_from(conn: sqlite3.Connection, known: Known) -> dict[str, int]:
    """Number of rows by table that ``known`` has and ``conn``'s file lacks."""
    there = last_seqs(conn)
    lost = {table: last - there.get(table, 0) for table, last in known.last.items() if table in LABELS}
    if known.rows and there == known.last:
        counted = rows(conn)
        lost = {table: count - counted.get(table, 0) for table, count in known.rows.items()}
    return {table: count for table, count in lost.items() if count > 0}


def in_words(counts: dict[str, int]) -> str:
    """``2,500 activities, 12 sessions``."""
    return ", ".join(f"{count:,} {LABELS[table]}" for table, count in counts.items())
