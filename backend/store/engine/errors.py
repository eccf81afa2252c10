"""Translate SQLite errors to StorageError."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from flashflow.backend.core.errors import FlashFlowError, StorageError, StorageFull

# Primary and extended result codes (sqlite.org/rescode.html) of a full disk.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC}
_DAMAGED_TEXT = ("Could not decode to UTF-8", "malformed JSON", "user-defined function raised exception")
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def storage_error(error: BaseException) -> StorageError:
    """Return the refusal for ``error``."""
    refusal = StorageError("The storage failed; nothing was written.")
    # Its causes count too: a full disk can surface as "cannot rollback".
    for code in result_codes(error):
        if code in _FULL:
            refusal = StorageFull("The disk is full; nothing was written. Reading goes on.")
            break
        if code & 0xFF in _BUSY:
            refusal = StorageError("Another program holds the storage; nothing was written. Try again.")
            break
    refusal.__cause__ = error
    return refusal


def is_full(error: BaseException) -> bool:
    """Whether ``error`` reports a full disk."""
    return any(code in _FULL for code in result_codes(error))


def is_damaged_text(error: BaseException) -> bool:
    """Whether a row has text that is not UTF-8, or JSON that does not parse."""
    # sqlite3 gives no result code for it, so the message decides.
    while not isinstance(error, sqlite3.Error) and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, sqlite3.Error) and any(sign in str(error) for sign in _DAMAGED_TEXT)


def is_damage(error: BaseException) -> bool:
    """Whether ``error`` reports a corrupt file."""
    # All other codes are faults of the machine: a full disk or a lock must not set a good file aside.
    return any(code & 0xFF in _DAMAGE for code in result_codes(error))


def is_storage_fault(error: BaseException) -> bool:
    """Whether ``error`` is SQLite's, also wrapped by Peewee; a FlashFlowError is not, even if SQLite caused it."""
    return isinstance(error, sqlite3.Error) or (not isinstance(error, FlashFlowError) and any(result_codes(error)))


def result_codes(error: BaseException) -> Iterator[int]:
    """SQLite's result codes of ``error`` and its chain of causes."""
    cause: BaseException | None = error
    seen: set[int] = set()  # an error that was raised twice may be its own cause
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None:
            yield code
        cause = cause.__cause__ or cause.__context__
