"""Import exported activities: check each row on its own; keep its id, times and addresses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

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
    """An exported activity. Without ``id`` or ``activity_id`` it gets an id derived from its content, so that it is
    stored once."""

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


_decoder = msgspec.json.Decoder(ImportedActivityIn)


def decode_row(raw: msgspec.Raw | bytes) -> ImportedActivityIn:
    """Decode one row. Raises ValidationError."""
    return validation.decode_row(_decoder, raw)


def prepare_rows(rows: Sequence[msgspec.Raw | bytes], now_ms: int, app: str, admission: Admission) -> Batch:
    """Check ``rows``; return the valid ones and the rejections. ``app`` is the default app."""
    return batch.prepare_rows(rows, lambda raw: _prepare(decode_row(raw), now_ms, app, admission))


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
    """UUID (version 8, RFC 9562) of the row's content: the same row has the same id on every machine."""
    digest = hashlib.sha256(msgspec.json.encode(row, order="deterministic")).digest()[:16]
    number = int.from_bytes(digest) & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
    h = f"{number:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def import_activities_write(
    service: UserActivityService, rows: Sequence[msgspec.Raw | bytes], app: str = LOCAL_APP
) -> Write[Batch, BatchResult]:
    """Build the write that stores exported activities (JSON). ``app`` is the default app."""
    checked = prepare_rows(rows, service.clock.now_ms(), app, service.admission)
    return Write(service.track_batches, checked, len(checked[1]))
