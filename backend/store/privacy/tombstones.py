"""Tombstones: erased users as salted hashes.

Every write that names a user checks inside its own transaction, so no row can be written during an erasure. Without
tombstones the check is one read of an empty table per transaction (2 µs).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from flashflow.backend.core.errors import Erased, FlashFlowError
from flashflow.backend.store.engine.writer import Tx

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
    (salt,) = conn.execute("SELECT salt FROM tombstone_salt").fetchone()
    return bytes(salt)


def _hashed(salt: bytes, user_id: str) -> bytes:
    return hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), key=salt, digest_size=32).digest()


def any_erased(conn: sqlite3.Connection) -> bool:
    """Whether there is any tombstone."""
    return bool(conn.execute("SELECT EXISTS (SELECT 1 FROM tombstones)").fetchone()[0])


def find(conn: sqlite3.Connection, user_id: str) -> Tombstone | None:
    """Return the user's tombstone."""
    if not any_erased(conn):
        return None
    row = conn.execute(
        "SELECT user_hash, erased_at, left_to_do, user_id FROM tombstones WHERE user_hash = ?",
        (hash_of(conn, user_id),),
    ).fetchone()
    return None if row is None else Tombstone(*row)


def erased_among(conn: sqlite3.Connection, user_ids: Iterable[str]) -> frozenset[str]:
    """Return the members of ``user_ids`` that are erased."""
    if not any_erased(conn):
        return frozenset()
    salt, found = _salt(conn), "SELECT 1 FROM tombstones WHERE user_hash = ?"
    return frozenset(
        user for user in set(user_ids) if conn.execute(found, (_hashed(salt, user),)).fetchone() is not None
    )


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
    tx.conn.execute(
        "INSERT INTO tombstones (user_hash, erased_at, left_to_do, user_id) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET left_to_do = excluded.left_to_do, user_id = excluded.user_id",
        (hash_of(tx.conn, user_id), tx.now_ms, left_to_do, None if left_to_do is None else user_id),
    )
    stone = find(tx.conn, user_id)
    assert stone is not None
    return stone


def note_left(tx: Tx, user_hash: bytes, left_to_do: str | None) -> None:
    """Update the work left to do and delete the user id, which is no longer needed."""
    tx.conn.execute("UPDATE tombstones SET left_to_do = ?, user_id = NULL WHERE user_hash = ?", (left_to_do, user_hash))


def unfinished(conn: sqlite3.Connection) -> list[Tombstone]:
    """Return unfinished erasures."""
    rows = conn.execute("SELECT user_hash, erased_at, left_to_do, user_id FROM tombstones WHERE left_to_do IS NOT NULL")
    return [Tombstone(*row) for row in rows]


def remove_tombstone(tx: Tx, user_id: str) -> bool:
    """Remove the user's tombstone; return whether there was one."""
    gone = tx.conn.execute("DELETE FROM tombstones WHERE user_hash = ?", (hash_of(tx.conn, user_id),))
    return gone.rowcount > 0
