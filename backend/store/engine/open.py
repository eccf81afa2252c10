"""Opening a file: private, sound, at this version's schema; or a clear refusal."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.encoding import decode_text
from flashflow.backend.core.errors import SchemaTooNew, StorageError
from flashflow.backend.core.events import Event
from flashflow.backend.store.engine.backup import back_up, is_sound, recover, was_emptied
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
from flashflow.backend.store.engine.last_known import LastKnown, highest, read_record
from flashflow.backend.store.engine.loss_report import describe
from flashflow.backend.store.engine.wal_check import keep_damaged

CHECK_AT_START_BYTES = 256 * 1024 * 1024
"""A larger file is checked in the background after the start (Backend), so that opening stays quick."""

Migration = Callable[[sqlite3.Connection], None]


def open_store(
    path: Path,
    migrations: Sequence[Migration],
    clock: Clock,
    publish: Callable[[Iterable[Event]], None],
    tell: Callable[[str], None],
    prepare: Prepare | None = None,
    *,
    keep_record: bool = False,
) -> Store:
    """Open ``path``, making, recovering or migrating it first. ``tell`` hears what a person should know; ``prepare``
    sees every connection first; with ``keep_record`` a file beside it says what it last held.

    Raises SchemaTooNew for a file of a newer FlashFlow and StorageError where the file or its folder cannot be used.
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
            _migrate(path, migrations, clock, no_room=no_room)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            recovered = _recover(path, clock)  # too large to be checked first, and broken where it is read first
            _migrate(path, migrations, clock)
        marker.unlink(missing_ok=True)
        known = read_record(path, tell) if keep_record else None
        with closing(sqlite3.connect(uri_of(path, no_room=no_room), uri=True, isolation_level=None)) as conn:
            loss = describe(path, conn, known, damaged_wal)
            record = LastKnown(path, clock, known, highest(conn)) if keep_record else None
        if told := " ".join(filter(None, (recovered, loss))):
            tell(told)
    except OSError as error:
        raise StorageError(f"{path} cannot be used: {error.strerror}.") from error
    except sqlite3.Error as error:
        raise storage_error(error) from error
    return Store(Database(path, path.stem, prepare, no_room=no_room), clock, publish, record=record, loss=loss)


def _recover(path: Path, clock: Clock) -> str:
    told = recover(path, clock)
    create_private(path)
    return told


def _migrate(path: Path, migrations: Sequence[Migration], clock: Clock, *, no_room: bool = False) -> None:
    """Bring the file from its ``user_version`` to ``len(migrations)``, in one transaction: all steps or none."""
    with closing(sqlite3.connect(uri_of(path, no_room=no_room), uri=True, isolation_level=None, timeout=10)) as conn:
        conn.text_factory = decode_text
        version = _version(conn)
        conn.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # a schema that does not read is damage
        if version > len(migrations):
            raise SchemaTooNew(
                f"{path.name} was written by a newer FlashFlow (schema {version}, this one knows {len(migrations)}). "
                "Nothing was changed. Start the newer FlashFlow, or use another data folder."
            )
        if version == len(migrations):
            return
        conn.execute("PRAGMA journal_mode=wal")
        conn.execute("PRAGMA synchronous=full")
        if version:
            back_up(path, clock, f"before-schema-{len(migrations)}")
        conn.execute("BEGIN IMMEDIATE")
        # Another process may have migrated while this one waited for the lock.
        for step in range(_version(conn), len(migrations)):
            migrations[step](conn)
            conn.execute(f"PRAGMA user_version = {step + 1}")
        conn.execute("COMMIT")


def _version(conn: sqlite3.Connection) -> int:
    return int(conn.execute("PRAGMA user_version").fetchone()[0])
