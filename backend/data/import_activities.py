"""Import exported activities: check each row on its own; keep its id, times and addresses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from flashflow.backend.activity.batch import MOST_ROWS, Batch, prepare_rows
from flashflow.backend.activity.consent import Admission
from flashflow.backend.activity.ingest import LOCAL_APP, past_ms
from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.encoding import decode_id
from flashflow.backend.schemas.records import BatchResult
from flashflow.backend.schemas.requests import END, Agent, AppName, Id, Input, Timestamp, TypeName, Url, UserId
from flashflow.backend.schemas.validation import decode_row
from flashflow.backend.schemas.values import metadata_json, timestamp_ms
from flashflow.backend.store.activity.activities import NewActivity
from flashflow.backend.store.engine.writer import Write

Address = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[!-~]+" + END)]


class ImportedActivityIn(Input, frozen=True, kw_only=True):
    """An exported activity. Without ``id`` or ``activity_id`` it gets an id derived from its content, so that it is
    stored once."""

    user_id: UserId
    activity_type: TypeName
    timestamp: Timestamp
    id: Id | None = None
    activity_id: Id | None = None
    session_id: Id | None = None
    app: AppName | None = None
    received_at: Timestamp | None = None
    metadata: dict[str, Any] | None = None
    page_url: Url | None = None
    referrer: Url | None = None
    user_agent: Agent | None = None
    ip_address: Address | None = None


class ImportIn(Input, frozen=True, kw_only=True):
    """Up to 1,000 rows of an export; each is checked on its own."""

    activities: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_ROWS)]


decode_activity = partial(decode_row, ImportedActivityIn)


def _prepare(row: ImportedActivityIn, now_ms: int, app: str, admission: Admission) -> NewActivity:
    timestamp = past_ms("timestamp", row.timestamp, now_ms)
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
    return decode_id(number.to_bytes(16))


def import_activities_write(
    service: UserActivityService, rows: Sequence[msgspec.Raw | bytes], app: str = LOCAL_APP
) -> Write[Batch, BatchResult]:
    """Build the write that stores exported activities (JSON). ``app`` is the default app."""
    now_ms = service.clock.now_ms()
    checked = prepare_rows(rows, lambda _, raw: _prepare(decode_activity(raw), now_ms, app, service.admission))
    return Write(service.track_batches, checked, len(checked.good))
