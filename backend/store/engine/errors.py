"""What a SQLite fault means to the person."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from flashflow.backend.core.errors import FlashFlowError, StorageError, StorageFull

# Primary and extended result codes (sqlite.org/rescode.html) that say the disk gave no more room.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC}
_DAMAGED_TEXT = ("Could not decode to UTF-8", "malformed JSON", "user-defined function raised exception")
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def storage_error(error: BaseException) -> StorageError:
    """The refusal that goes to the caller for ``error``; looks at what lies beneath it too, since a full disk can
    surface as "cannot rollback"."""
    refusal = StorageError("The storage failed; nothing was written.")
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
    """Whether ``error`` says that the disk has no more room."""
    return any(code in _FULL for code in result_codes(error))


def is_damaged_text(error: BaseException) -> bool:
    """Whether a row was read whose text is not UTF-8, or whose JSON does not parse: the module gives no code for it."""
    while not isinstance(error, sqlite3.Error) and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, sqlite3.Error) and any(sign in str(error) for sign in _DAMAGED_TEXT)


def is_damage(error: BaseException) -> bool:
    """Whether ``error`` says that the file itself is broken. All other codes speak of the machine: a full disk or a
    lock must not set a good file aside."""
    return any(code & 0xFF in _DAMAGE for code in result_codes(error))


def is_storage_fault(error: BaseException) -> bool:
    """Whether ``error`` is SQLite's, be it in Peewee's wrapping; a refusal of ours is not, whatever led to it."""
    return isinstance(error, sqlite3.Error) or (not isinstance(error, FlashFlowError) and any(result_codes(error)))


def result_codes(error: BaseException) -> Iterator[int]:
    """SQLite's result codes from ``error`` down to what it began with."""
    cause: BaseException | None = error
    seen: set[int] = set()  # one error raised twice may come to lie beneath itself
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None:
            yield code
        cause = cause.__cause__ or cause.__context__
