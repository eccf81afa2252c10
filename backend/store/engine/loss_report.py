"""What a file has lost since it was last written, for its owner: how much, since when, and which backup holds it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from flashflow.backend.core.clock import rfc3339
from flashflow.backend.store.engine.backup import is_sound, newest_first
from flashflow.backend.store.engine.database import uri_of
from flashflow.backend.store.engine.last_known import Known, in_words, missing_from


def describe(path: Path, conn: sqlite3.Connection, known: Known | None, wal: str | None) -> str | None:
    """One sentence or two about what ``conn``'s file lacks; None where nothing is known to be missing.

    ``known`` is what it last held, ``wal`` the name under which a damaged WAL was set aside.
    """
    missing = {} if known is None else missing_from(conn, known)
    told = []
    if wal is not None:
        told.append(f"The WAL of {path.name} was damaged; it was set aside as {wal}.")
    if missing and known is not None:
        told.append(f"{path.name} lacks {in_words(missing)} that were stored before {rfc3339(known.at)}.")
        told.append(_who_holds(path, known, missing))
    elif wal is not None:
        told.append("The latest changes before the end of FlashFlow may be missing.")
    return " ".join(told) or None


def _who_holds(path: Path, known: Known, missing: dict[str, int]) -> str:
    for backup in newest_first(path):
        if not is_sound(backup):
            continue
        with closing(sqlite3.connect(uri_of(backup, mode="ro"), uri=True)) as copy:
            lacks = missing_from(copy, known)
        held = {table: count - lacks.get(table, 0) for table, count in missing.items() if count > lacks.get(table, 0)}
        if held:
            return f"The backup {backup.name} holds {in_words(held)} of them."
    return "No backup holds any of them."
