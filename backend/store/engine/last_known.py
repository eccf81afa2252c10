"""What a file held when it was last written, kept beside it: SQLite drops a WAL that fails its checksum without a word.

``NAME.db.last`` holds the highest row number of each table (a deletion never lowers it), written after every commit
and synced at every fold, and after a clean stop the number of rows too. It is written after the commit, so it never
claims more than was acknowledged.
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

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import StorageError
from flashflow.backend.core.private_files import set_aside, write_private

log = logging.getLogger(__name__)

ENDING = ".last"
COUNT_BYTES = 256 * 1024 * 1024
"""The rows of a larger file are not counted at a stop: that would take seconds."""
_SLOT = 1024
"""Bytes of each of the two records in the file. They are written in turn, so one of them is always whole."""
WORDS = {
    "user_activities": "activities",
    "user_sessions": "sessions",
    "notifications": "notifications",
    "notification_templates": "templates",
    "device_tokens": "devices",
    "schedules": "schedules",
    "rules": "rules",
}
"""The tables that an owner knows, in their words."""


class Known(msgspec.Struct, frozen=True):
    """``last``: the highest number by table; ``rows``: how many, only after a clean stop; ``at``: when, in ms."""

    turn: int
    at: int
    last: dict[str, int]
    rows: dict[str, int] = {}


class LastKnown:
    """The record beside an open file. ``note`` and ``sync`` are called in the writer's turn, between transactions."""

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
            self._write(Known(self._turn + 1, clock.now_ms(), last))  # what is missing now is told once
            self.sync()
        except (OSError, StorageError) as error:
            log.warning("%s is not kept until the next start: %s", record.name, error)

    def note(self, conn: sqlite3.Connection) -> None:
        """Record what ``conn``'s file holds after a commit."""
        if self._file is None:
            return
        last = highest(conn)
        if last != self._last:
            self._write(Known(self._turn + 1, self._clock.now_ms(), last))
            self._last = last

    def sync(self) -> None:
        """Ask the disk to keep the record."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self, *, clean: bool) -> None:
        """End the record; of a file that was closed ``clean`` it has the number of rows. Safe to call twice."""
        if self._file is None:
            return
        try:
            if clean and self._path.stat().st_size <= COUNT_BYTES:
                with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as conn:
                    self._write(Known(self._turn + 1, self._clock.now_ms(), highest(conn), rows(conn)))
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
    """The file beside ``path`` that says what it last held."""
    return path.with_name(path.name + ENDING)


def read_record(path: Path, tell: Callable[[str], None]) -> Known | None:
    """Return what ``path`` last held; None where that is not known. ``tell`` hears of a damaged record."""
    record = record_of(path)
    try:
        content = record.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read: %s", record.name, error.strerror)
        content = b""
    slots = [_parsed(content[start : start + _SLOT]) for start in (0, _SLOT)]
    whole = [known for known in slots if known is not None]
    if whole:
        return max(whole, key=lambda known: known.turn)
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


def highest(conn: sqlite3.Connection) -> dict[str, int]:
    """The highest row number that each table of ``conn``'s file ever had."""
    try:
        return dict(conn.execute("SELECT name, seq FROM sqlite_sequence"))
    except sqlite3.OperationalError:  # no table of it counts
        return {}


def rows(conn: sqlite3.Connection) -> dict[str, int]:
    """How many rows there are of what an owner knows."""
    return {
        table: conn.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in highest(conn) if table in WORDS
    }


def missing_from(conn: sqlite3.Connection, known: Known) -> dict[str, int]:
    """How many rows of each table ``conn``'s file lacks of what it is known to have held."""
    there = highest(conn)
    lost = {table: last - there.get(table, 0) for table, last in known.last.items() if table in WORDS}
    if known.rows and there == known.last:
        counted = rows(conn)
        lost = {table: count - counted.get(table, 0) for table, count in known.rows.items()}
    return {table: count for table, count in lost.items() if count > 0}


def in_words(counts: dict[str, int]) -> str:
    """``2,500 activities, 12 sessions``."""
    return ", ".join(f"{count:,} {WORDS[table]}" for table, count in counts.items())
