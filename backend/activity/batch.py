"""Rows of a batch: each is decoded and accepted or rejected independently."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from flashflow.backend.core.clock import to_ms
from flashflow.backend.core.errors import Conflict, FieldError, FlashFlowError, ValidationError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import BatchResult, RejectedRow, Tracked
from flashflow.backend.store.activity.activities import NewActivity


class OfUser(Protocol):
    """A row with a user id."""

    @property
    def user_id(self) -> str: ...


MOST_ROWS = 1_000
"""Rows in one batch or import."""

T = TypeVar("T")
U = TypeVar("U", bound=OfUser)


class Rows(NamedTuple, Generic[U]):
    """The indexes of the valid rows in the batch, the valid rows, the rejected rows."""

    places: list[int]
    good: Sequence[U]
    rejected: list[RejectedRow]


Batch = Rows[NewActivity]


def derive_id(timestamp: datetime | None, parts: Sequence[object]) -> str | None:
    """Derive a UUIDv7 from ``parts`` (app, Idempotency-Key, the row's index and text) and the row's ``timestamp``; None
    without a timestamp: such a row needs a new id."""
    if timestamp is None:
        return None
    digest = hashlib.sha256(repr(parts).encode()).digest()
    ms = max(to_ms(timestamp), 0) & (1 << 48) - 1
    number = ms << 80 | 0x7000 << 64 | 0x8000 << 48 | int.from_bytes(digest, "big") & _FREE_BITS
    return str(uuid.UUID(int=number))


_FREE_BITS = (0xFFF << 64) | (1 << 62) - 1


def rejected(index: int, error: FlashFlowError) -> RejectedRow:
    """Build the rejection of the row at ``index``."""
    errors = error.errors if isinstance(error, ValidationError) else (FieldError("", str(error)),)
    if isinstance(error, Conflict):
        field, _, message = str(error).partition(": ")
        errors = (FieldError(field, message),)
    return RejectedRow(index=index, errors=tuple((e.field, e.message) for e in errors))


def prepare_rows(rows: Sequence[T], prepare: Callable[[int, T], U]) -> Rows[U]:
    """Apply ``prepare`` to each row and its index; a row for which it raises ValidationError is rejected."""
    places: list[int] = []
    good: list[U] = []
    refused: list[RejectedRow] = []
    for index, row in enumerate(rows):
        try:
            good.append(prepare(index, row))
            places.append(index)
        except ValidationError as error:
            refused.append(rejected(index, error))
    return Rows(places, good, refused)


def without_users(batch: Rows[U], refused: Mapping[str, FlashFlowError]) -> Rows[U]:
    """Move the rows of the ``refused`` users to the rejected rows."""
    why = {user: ValidationError.of("user_id", str(refusal)) for user, refusal in refused.items()}
    return without_rows(batch, {at: why[a.user_id] for at, a in enumerate(batch.good) if a.user_id in why})


def without_rows(batch: Rows[U], refused: Mapping[int, FlashFlowError]) -> Rows[U]:
    """Move valid rows, by their index among the valid rows, to the rejected rows."""
    places, good, rows = batch
    left = [at for at in range(len(good)) if at not in refused]
    rows = [*rows, *(rejected(places[at], why) for at, why in refused.items())]
    return Rows([places[at] for at in left], [good[at] for at in left], rows)


def result_of(batch: Rows[U], answer: Sequence[Tracked | FlashFlowError] | FlashFlowError) -> BatchResult:
    """Build the result of ``batch``; ``answer`` has one outcome for each valid row."""
    places, _, refused = batch
    rows = list(refused)
    duplicates = 0
    assert not isinstance(answer, FlashFlowError)
    for index, outcome in zip(places, answer, strict=True):
        if isinstance(outcome, FlashFlowError):
            rows.append(rejected(index, outcome))
        else:
            duplicates += outcome.duplicate
    accepted = len(places) + len(refused) - len(rows) - duplicates
    rows.sort(key=lambda row: row.index)
    return BatchResult(accepted=accepted, duplicates=duplicates, rejected=tuple(rows))
