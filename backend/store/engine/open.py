"""Open a database file: create, check, recover and migrate it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from flashflow.backend.core.clock import Clock, rfc3339
from flashflow.backend.core.errors import StorageError
from flashflow.backend.core.events import Event
from flashflow.backend.store.engine.backup import is_sound, newest_first, recover, was_emptied
from flashflow.backend.store.engine.database import (
    Database,
    Prepare,
    Store,
    create_private,
    lacks_room,
    suspect_marker,
    uri_of,
)
from flashflow.backend.store.engine.errors import is_damage, storage_error
from flashflow.backend.store.engine.last_known import Known, LastKnown, in_words, missing_from, read_record
from flashflow.backend.store.engine.numbers import last_seqs
from flashflow.backend.store.engine.schema import FileSchema
from flashflow.backend.store.engine.upgrade import bring_up_to_date
from flashflow.backend.store.engine.wal_check import keep_damaged

CHECK_AT_START_BYTES = 256 * 1024 * 1024
"""Larger files are checked in the background after the start (``maintenance``), so that opening stays fast."""


def open_store(
    path: Path,
    schema: FileSchema,
    clock: Clock,
    publish: Callable[[Iterable[Event]], None],
    tell: Callable[[str], None],
    prepare: Prepare | None = None,
    *,
    keep_record: bool = False,
) -> Store:
    """Create, recover or upgrade ``path``, then open it.

    ``tell`` receives a message for the user if rows were lost, a backup was restored or the file differs from its
    ``schema``; ``prepare`` sets up each new connection; ``keep_record`` keeps a LastKnown record beside the file.
    Raises SchemaTooNew for a file of a newer FlashFlow, SchemaUnknown for one that no step leads on from, and
    StorageError if the file or its folder cannot be used.
    """
    recovered = None
    try:
        emptied = was_emptied(path)
        create_private(path)
        marker = suspect_marker(path)
        size = path.stat().st_size
        check = size and (marker.exists() or size <= CHECK_AT_START_BYTES)
        no_room = not emptied and lacks_room(path)
        if emptied or (check and not is_sound(path, no_room=no_room)):
            recovered = _recover(path, clock)
        damaged_wal = keep_damaged(path, clock)
        try:
            notes = bring_up_to_date(path, schema, clock, no_room=no_room)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            recovered = _recover(path, clock)  # it was too large to be checked before
            notes = bring_up_to_date(path, schema, clock)
        marker.unlink(missing_ok=True)
        known = read_record(path, tell) if keep_record else None
        with closing(sqlite3.connect(uri_of(path, no_room=no_room), uri=True, isolation_level=None)) as conn:
            loss = describe_loss(path, conn, known, damaged_wal)
            record = LastKnown(path, clock, known, last_seqs(conn)) if keep_record else None
        if message := " ".join(filter(None, (recovered, loss, *notes))):
            tell(message)
    except OSError as error:
        raise StorageError(f"{path} cannot be used: {error.strerror}.") from error
    except sqlite3.Error as error:
        raise storage_error(error) from error
    return Store(Database(path, path.stem, prepare, no_room=no_room), clock, publish, record=record, loss=loss)


def _recover(path: Path, clock: Clock) -> str:
    message = recover(path, clock)
    create_private(path)
    return message


def describe_loss(path: Path, conn: sqlite3.Connection, known: Known | None, wal: str | None) -> str | None:
    """Describe the rows that ``conn``'s file has lost, and the backup that has them; None if none are known to be lost.

    ``known`` is the record of the last write, ``wal`` the name under which a damaged WAL was set aside.
    """
    missing = {} if known is None else missing_from(conn, known)
    sentences = []
    if wal is not None:
        sentences.append(f"The WAL of {path.name} was damaged; it was set aside as {wal}.")
    if missing and known is not None:
        sentences.append(f"{path.name} lacks {in_words(missing)} that were stored before {rfc3339(known.at)}.")
        sentences.append(_describe_backup(path, known, missing))
    elif wal is not None:
        sentences.append("The latest changes before the end of FlashFlow may be missing.")
    return " ".join(sentences) or None


def _describe_backup(path: Path, known: Known, missing: dict[str, int]) -> str:
    for backup in newest_first(path):
        if not is_sound(backup):
            continue
        with closing(sqlite3.connect(uri_of(backup, mode="ro"), uri=True)) as copy:
            lacks = missing_from(copy, known)
        held = {table: count - lacks.get(table, 0) for table, count in missing.items() if count > lacks.get(table, 0)}
        if held:
            return f"The backup {backup.name} holds {in_words(held)} of them."
    return "No backup holds any of them."
