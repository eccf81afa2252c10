"""Bring a file to the current schema: create it, upgrade it, or say in which way it differs.

An upgrade is one transaction: a process that ends at any time leaves the old or the new file. A backup is made first.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.encoding import decode_text
from flashflow.backend.core.errors import SchemaTooNew, SchemaUnknown
from flashflow.backend.store.engine.backup import back_up, newest_first
from flashflow.backend.store.engine.database import BUSY_TIMEOUT_S, uri_of
from flashflow.backend.store.engine.errors import result_codes
from flashflow.backend.store.engine.schema import (
    Difference,
    FileSchema,
    Step,
    create,
    describe_differences,
    read_entries,
    statement_of,
)

log = logging.getLogger(__name__)

PROGRESS_S = 2.0
"""Time between two messages about a running upgrade."""
MOST_NAMED = 5
"""Differences named in one message."""
_OF_THE_CONTENTS = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}


def bring_up_to_date(path: Path, schema: FileSchema, clock: Clock, *, no_room: bool = False) -> list[str]:
    """Create or upgrade ``path`` and compare it with ``schema``; return sentences for the user.

    Missing indexes, triggers and views are created again; additional tables and columns are reported and left alone.
    Raises SchemaTooNew or SchemaUnknown, with nothing changed, for a file that cannot be used.
    """
    with closing(sqlite3.connect(uri_of(path, no_room=no_room), uri=True, isolation_level=None, timeout=10)) as conn:
        conn.text_factory = decode_text
        version = _version(conn)
        entries = read_entries(conn)  # raises if the schema is damaged
        if version == schema.version:
            return _settle(conn, path, schema)
        if version == 0 and not entries:
            _create(conn, schema)
            return []
        steps = _steps_from(path, version, schema)
        with _progress(path, version, schema.version) as report:
            report("making a backup")
            backup = back_up(path, clock, f"before-schema-{schema.version}")
            notes = _upgrade(conn, path, schema, steps, report, backup)
            log.warning("%s has schema %d now; %s is the file before it", path.name, schema.version, backup.name)
        return notes


def _version(conn: sqlite3.Connection) -> int:
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    return int(version)


def _create(conn: sqlite3.Connection, schema: FileSchema) -> None:
    _prepare(conn)
    conn.execute("BEGIN IMMEDIATE")
    if _version(conn) == 0:  # no other process was faster
        create(conn, schema)
        conn.execute(f"PRAGMA user_version = {schema.version}")
    conn.execute("COMMIT")


def _prepare(conn: sqlite3.Connection) -> None:
    conn.execute("PRAGMA journal_mode=wal")
    conn.execute("PRAGMA synchronous=full")


def _steps_from(path: Path, version: int, schema: FileSchema) -> Sequence[Step]:
    """Return the steps from ``version`` on. Raises SchemaTooNew and SchemaUnknown."""
    if version > schema.version:
        raise SchemaTooNew(
            f"{path.name} was written by a newer FlashFlow (schema {version}, this one knows {schema.version}). "
            "Nothing was changed. Start the newer FlashFlow, or use another data folder."
        )
    for place, step in enumerate(schema.steps):
        if step.source == version:
            return schema.steps[place:]
    known = ", ".join(str(step.source) for step in schema.steps)
    raise SchemaUnknown(
        f"{path.name} has schema {version}, which this FlashFlow cannot upgrade (it knows {known or 'none'} and "
        f"{schema.version}). Nothing was changed. {_newest_backup(path)}"
    )


def _newest_backup(path: Path) -> str:
    backup = next(iter(newest_first(path)), None)
    return "There is no backup of it." if backup is None else f"Its newest backup is backups/{backup.name}."


def _upgrade(
    conn: sqlite3.Connection,
    path: Path,
    schema: FileSchema,
    steps: Sequence[Step],
    report: _Report,
    backup: Path,
) -> list[str]:
    """Run ``steps`` in one transaction; return sentences for the user."""
    _prepare(conn)
    conn.execute("PRAGMA foreign_keys = OFF")
    # Values are written again: no copy in a free page may survive an erasure.
    conn.execute("PRAGMA secure_delete = ON").fetchall()
    conn.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}").fetchall()
    conn.execute("BEGIN IMMEDIATE")
    try:
        if _version(conn) != steps[0].source:  # another process has upgraded the file meanwhile
            conn.execute("ROLLBACK")
            return _settle(conn, path, schema)
        for step in steps:
            report(f"step to schema {step.target}")
            step.run(conn, report)
            conn.execute(f"PRAGMA user_version = {step.target}")
        report("comparing the schema")
        notes = _repair(conn, path, schema, describe_differences(conn, schema))
        report("writing it to disk")
        conn.execute("COMMIT")
    except BaseException as error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        if _is_of_the_contents(error):
            raise SchemaUnknown(
                f"{path.name} cannot be upgraded from schema {steps[0].source}, from which it differs: {error}. "
                f"Nothing was changed; backups/{backup.name} is a copy."
            ) from error
        raise
    return notes


def _is_of_the_contents(error: BaseException) -> bool:
    """Whether a statement failed because of a table that it did not expect, not because of the disk or a lock."""
    return isinstance(error, sqlite3.Error) and any(code & 0xFF in _OF_THE_CONTENTS for code in result_codes(error))


def _settle(conn: sqlite3.Connection, path: Path, schema: FileSchema) -> list[str]:
    """Compare a file of the current version with ``schema``; return sentences for the user."""
    differences = describe_differences(conn, schema)
    if not differences:
        return []
    conn.execute("BEGIN IMMEDIATE")
    try:
        notes = _repair(conn, path, schema, describe_differences(conn, schema))
        conn.execute("COMMIT")
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    return notes


def _repair(conn: sqlite3.Connection, path: Path, schema: FileSchema, differences: Sequence[Difference]) -> list[str]:
    """Create indexes, triggers and views again that differ. Raises SchemaUnknown for a table or column that does."""
    lacking = [found for found in differences if found.holds_data and found.state != "additional"]
    if lacking:
        named = " ".join(str(found) for found in lacking[:MOST_NAMED])
        more = f" And {len(lacking) - MOST_NAMED} more." if len(lacking) > MOST_NAMED else ""
        raise SchemaUnknown(
            f"{path.name} differs from its schema {schema.version}: {named}{more} Nothing was changed. "
            f"{_newest_backup(path)}"
        )
    notes = []
    for found in differences:
        if found.state == "additional":
            notes.append(f"{path.name}: {found} It is left alone.")
            continue
        try:
            if found.state == "different":
                conn.execute(f"DROP {found.kind.upper()} {found.name}")
            conn.execute(statement_of(schema, found))
        except sqlite3.IntegrityError as error:
            raise SchemaUnknown(
                f"{path.name}: {found} It cannot be created again: {error}. Nothing was changed. {_newest_backup(path)}"
            ) from error
        notes.append(f"{path.name}: {found} It was created again.")
    for note in notes:
        log.warning(note)
    return notes


class _Report:
    """The current work of an upgrade."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, text: str) -> None:
        self.text = text


@contextmanager
def _progress(path: Path, source: int, target: int) -> Iterator[_Report]:
    """Log the current work at once and every PROGRESS_S seconds, from a thread of its own."""
    # SQLite runs one statement for minutes; the interpreter lock is free meanwhile.
    report, over, began = _Report(), threading.Event(), time.monotonic()
    log.warning("%s is upgraded from schema %d to %d", path.name, source, target)

    def repeat() -> None:
        while not over.wait(PROGRESS_S):
            log.warning("upgrading %s: %s (%.0f s)", path.name, report.text, time.monotonic() - began)

    thread = threading.Thread(target=repeat, name="flashflow-upgrade", daemon=True)
    thread.start()
    try:
        yield report
    finally:
        over.set()
        thread.join()
