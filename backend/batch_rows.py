"""The rows of a batch: each is decoded on its own, and each that is refused says why."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from backend.errors import Conflict, FieldError, FlashFlowError, ValidationError
from backend.inputs import ActivityIn, explain
from backend.records import RejectedRow
from backend.store.activities import Tracking

Batch = tuple[list[int], Tracking, list[RejectedRow]]
"""Where in the batch each good row stood, the good rows, and those that are refused already."""

_decoder = msgspec.json.Decoder(ActivityIn)


def decode_row(raw: msgspec.Raw | bytes) -> ActivityIn:
    """One row of a batch. Raises ValidationError."""
    try:
        return _decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError.of("", f"is not valid JSON: {error}") from None


def rejected(index: int, error: FlashFlowError) -> RejectedRow:
    """Why the row at ``index`` was not stored."""
    errors = error.errors if isinstance(error, ValidationError) else (FieldError("", str(error)),)
    if isinstance(error, Conflict):
        field, _, message = str(error).partition(": ")
        errors = (FieldError(field, message),)
    return RejectedRow(index=index, errors=tuple((e.field, e.message) for e in errors))


def without_users(batch: Batch, refused: Mapping[str, FlashFlowError]) -> Batch:
    """``batch`` with the rows of these users among the refused."""
    places, good, rows = batch
    rows = [
        *rows,
        *(rejected(at, refused[a.user_id]) for at, a in zip(places, good, strict=True) if a.user_id in refused),
    ]
    left = [(at, a) for at, a in zip(places, good, strict=True) if a.user_id not in refused]
    return [at for at, _ in left], [a for _, a in left], rows
