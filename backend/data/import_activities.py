"""Rows of an export on their way back in: each checked on its own, with the times, addresses and ids it left with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from flashflow.backend.activity import batch
from flashflow.backend.activity.batch import Batch
from flashflow.backend.activity.consent import Admission
from flashflow.backend.activity.ingest import LOCAL_APP
from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.schemas import validation
from flashflow.backend.schemas.records import BatchResult
from flashflow.backend.schemas.requests import Agent, AppName, Id, Input, Moment, TypeName, Url, UserId
from flashflow.backend.schemas.values import metadata_json, timestamp_ms
from flashflow.backend.store.activity.activities import NewActivity
from flashflow.backend.store.engine.writer import Write

MOST_ROWS = 1_000
FUTURE_MS = 60 * 60 * 1000
Address = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[!-~]+\Z")]


class ImportedActivityIn(Input, frozen=True, kw_only=True):
    """An activity as an export wrote it. Without an ``id`` (or ``activity_id``) it gets one made from all it says, so
    that it too is stored once."""

    user_id: UserId
    activity_type: TypeName
    timestamp: Moment
    id: Id | None = None
    activity_id: Id | None = None
    session_id: Id | None = None
    app: AppName | None = None
    received_at: Moment | None = None
    metadata: dict[str, Any] | None = None
    page_url: Url | None = None
    referrer: Url | None = None
    user_agent: Agent | None = None
    ip_address: Address | None = None


class ImportIn(Input, frozen=True, kw_only=True):
    """Up to 1,000 rows of an export; each is checked on its own."""

    activities: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_ROWS)]


T = TypeVar("T", bound=Input)
_decoder = msgspec.json.Decoder(ImportedActivityIn)


def decode_row(raw: msgspec.Raw | bytes) -> ImportedActivityIn:
    """One row. Raises ValidationError."""
    return decoded(_decoder, raw)


def decoded(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw | bytes) -> T:
    """One row of whatever kind ``decoder`` reads. Raises ValidationError."""
    return validation.decode_row(decoder, raw)


def prepared(rows: Sequence[msgspec.Raw | bytes], now_ms: int, app: str, admission: Admission) -> Batch:
    """What of ``rows`` can be stored, and why the rest cannot. ``app``: whose those are that name none."""
    return batch.prepared(rows, lambda raw: _prepare(decode_row(raw), now_ms, app, admission))


def _prepare(row: ImportedActivityIn, now_ms: int, app: str, admission: Admission) -> NewActivity:
    timestamp = timestamp_ms("timestamp", row.timestamp)
    if timestamp > now_ms + FUTURE_MS:
        raise ValidationError.of("timestamp", "is more than an hour in the future")
    admission.check_age(timestamp)
    received = now_ms if row.received_at is None else min(timestamp_ms("received_at", row.received_at), now_ms)
    return NewActivity(
        row.id or row.activity_id or _made_id(row),
        True,
        True,
        row.user_id,
        row.activity_type,
        row.session_id,
        row.app or app,
        timestamp,
        received,
        metadata_json(row.metadata),
        row.page_url,
        row.referrer,
        row.user_agent,
        admission.masked(row.ip_address),
    )


def _made_id(row: ImportedActivityIn) -> str:
    """A UUID (version 8, RFC 9562) of what the row says: the same row has the same id wherever it is imported."""
    digest = hashlib.sha256(msgspec.json.encode(row, order="deterministic")).digest()[:16]
    number = int.from_bytes(digest) & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
    h = f"{number:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def import_activities_write(
    service: UserActivityService, rows: Sequence[msgspec.Raw | bytes], app: str = LOCAL_APP
) -> Write[Batch, BatchResult]:
    """Return the write that stores exported rows (JSON) with the ids and times they have."""
    checked = prepared(rows, service.clock.now_ms(), app, service.admission)
    return Write(service.track_batches, checked, len(checked[1]))
