"""Tombstones: erased users as salted hashes.

Every write that names a user checks inside its own transaction, so no row can be written during an erasure. Without
tombstones the check is one read of an empty table per transaction (2 µs).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from peewee import SQL

from flashflow.backend.core.errors import Erased, FlashFlowError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.statement import Statement, columns, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.privacy import models

ROWS, TRACES = "rows", "traces"
"""Work left to do of an erasure: delete rows; then remove traces on disk."""

T = TypeVar("T")
R = TypeVar("R")


class Tombstone(NamedTuple):
    """A tombstone; ``left_to_do`` is None once the erasure is finished."""

    user_hash: bytes
    erased_at: int
    left_to_do: str | None
    user_id: str | None


def refusal(user_id: str) -> Erased:
    """Error for a write that names an erased user."""
    return Erased(f"The user {user_id!r} was erased, and nothing is stored of them until they are readmitted.")


def hash_of(conn: sqlite3.Connection, user_id: str) -> bytes:
    """Salted hash of the user id; the id can only be found by guessing and comparing."""
    return _hashed(_salt(conn), user_id)


def _salt(conn: sqlite3.Connection) -> bytes:
    return bytes(_SALT.value(conn))


def _hashed(salt: bytes, user_id: str) -> bytes:
    return hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), key=salt, digest_size=32).digest()


def any_erased(conn: sqlite3.Connection) -> bool:
    """Whether there is any tombstone."""
    return _ANY.one(conn) is not None


def find(conn: sqlite3.Connection, user_id: str) -> Tombstone | None:
    """Return the user's tombstone."""
    if not any_erased(conn):
        return None
    return _FIND.one(conn, user_hash=hash_of(conn, user_id))


def erased_among(conn: sqlite3.Connection, user_ids: Iterable[str]) -> frozenset[str]:
    """Return the members of ``user_ids`` that are erased."""
    if not any_erased(conn):
        return frozenset()
    salt = _salt(conn)
    return frozenset(user for user in set(user_ids) if _FIND.one(conn, user_hash=_hashed(salt, user)) is not None)


def unless_erased(
    tx: Tx,
    items: Sequence[T],
    users_of: Callable[[T], Iterable[str]],
    write: Callable[[Sequence[T]], Sequence[R | FlashFlowError]],
) -> list[R | FlashFlowError]:
    """Pass the items that name no erased user to ``write``; return its results and, in their places, refusals of the
    others."""
    if not any_erased(tx.conn):
        return list(write(items))
    answers: list[Any] = [_first_refusal(tx.conn, users_of(item)) for item in items]
    good = [item for item, refused in zip(items, answers, strict=True) if refused is None]
    written = iter(write(good) if good else ())
    return [next(written) if answer is None else answer for answer in answers]


def _first_refusal(conn: sqlite3.Connection, users: Iterable[str]) -> Erased | None:
    return next((refusal(user) for user in users if find(conn, user) is not None), None)


def add_tombstone(tx: Tx, user_id: str, left_to_do: str | None) -> Tombstone:
    """Add the user's tombstone: from this transaction on their rows are refused. An existing one keeps its time."""
    _ADD.run(
        tx.conn,
        user_hash=hash_of(tx.conn, user_id),
        erased_at=tx.now_ms,
        left_to_do=left_to_do,
        user_id=None if left_to_do is None else user_id,
    )
    stone = find(tx.conn, user_id)
    assert stone is not None
    return stone


def note_left(tx: Tx, user_hash: bytes, left_to_do: str | None) -> None:
    """Update the work left to do and delete the user id, which is no longer needed."""
    _NOTE_LEFT.run(tx.conn, user_hash=user_hash, left_to_do=left_to_do)


def unfinished(conn: sqlite3.Connection) -> list[Tombstone]:
    """Return unfinished erasures."""
    return _UNFINISHED.all(conn)


def remove_tombstone(tx: Tx, user_id: str) -> bool:
    """Remove the user's tombstone; return whether there was one."""
    return _REMOVE.run(tx.conn, user_hash=hash_of(tx.conn, user_id)).rowcount > 0


_T = models.Tombstone
_SALT = Statement(models.TombstoneSalt.select)
_ANY = Statement(lambda: _T.select(SQL("1")).limit(1))
_FIND = Statement(lambda: _T.select(*columns(_T, Tombstone)).where(_T.user_hash == slot("user_hash")), Tombstone)
_UNFINISHED = Statement(lambda: _T.select(*columns(_T, Tombstone)).where(_T.left_to_do.is_null(False)), Tombstone)
_ADD = Statement(
    lambda: _T.insert(slots(*columns(_T, Tombstone))).on_conflict(
        conflict_target=[_T.user_hash], preserve=[_T.left_to_do, _T.user_id]
    )
)
_NOTE_LEFT = Statement(
    lambda: _T.update({_T.left_to_do: slot("left_to_do"), _T.user_id: None}).where(_T.user_hash == slot("user_hash"))
)
_REMOVE = Statement(lambda: _T.delete().where(_T.user_hash == slot("user_hash")))
