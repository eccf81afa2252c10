"""Import exported sessions. Their counts of activities and pages are ignored: those come with the activities, in any
order of import."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from flashflow.backend.activity.batch import MOST_ROWS, Rows, prepare_rows, result_of, without_rows, without_users
from flashflow.backend.activity.ingest import LOCAL_APP, past_ms
from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import FlashFlowError, ValidationError
from flashflow.backend.data.import_activities import Address
from flashflow.backend.schemas.records import BatchResult
from flashflow.backend.schemas.requests import Agent, AppName, Id, Input, Timestamp, UserId
from flashflow.backend.schemas.validation import decode_row
from flashflow.backend.schemas.values import metadata_json
from flashflow.backend.store.activity import session_import
from flashflow.backend.store.activity.session_import import NewSession
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.rollups import partitions


class ImportedSessionIn(Input, frozen=True, kw_only=True):
    """An exported session."""

    id: Id
    user_id: UserId
    start_time: Timestamp
    app: AppName | None = None
    last_seen: Timestamp | None = None
    end_time: Timestamp | None = None
    end_reason: Literal["ended", "timeout"] | None = None
    device_info: dict[str, Any] | None = None
    ip_address: Address | None = None
    user_agent: Agent | None = None
    duration: Any = None
    pages_visited: Any = None
    activities: Any = None


class ImportSessionsIn(Input, frozen=True, kw_only=True):
    """Up to 1,000 rows of an export; each is checked on its own."""

    sessions: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_ROWS)]


SessionRows = Rows[NewSession]
decode_session = partial(decode_row, ImportedSessionIn)


def import_sessions_write(
    service: UserActivityService, rows: Sequence[msgspec.Raw | bytes], app: str = LOCAL_APP
) -> Write[SessionRows, BatchResult]:
    """Build the write that stores exported sessions (JSON). ``app`` is the default app."""
    now_ms = service.clock.now_ms()
    checked = prepare_rows(rows, lambda _, raw: _prepare(service, decode_session(raw), now_ms, app))
    return Write(partial(_store, service), checked, len(checked.good))


def _store(service: UserActivityService, tx: Tx, items: Sequence[SessionRows]) -> list[BatchResult]:
    before = partitions.pruned_before(tx.conn)
    items = [without_rows(item, _too_old(item.good, before)) for item in items]
    refused_users = service.admission.refused_users(tx, (s.user_id for _, good, _ in items for s in good))
    if refused_users:
        items = [without_users(item, refused_users) for item in items]
    answers = session_import.import_sessions(tx, [good for _, good, _ in items], service.cache)
    return [result_of(item, answer) for item, answer in zip(items, answers, strict=True)]


def _too_old(sessions: Sequence[NewSession], before: int) -> dict[int, FlashFlowError]:
    why = ValidationError.of("start_time", "is older than what is kept: sessions that ended before then were pruned")
    return {at: why for at, session in enumerate(sessions) if max(session.last_seen, session.end_time or 0) < before}


def _prepare(service: UserActivityService, row: ImportedSessionIn, now_ms: int, app: str) -> NewSession:
    faults = ErrorCollector()
    times: dict[str, int | None] = dict.fromkeys(("start_time", "last_seen", "end_time"))
    for name in times:
        with faults:
            if (time := getattr(row, name)) is not None:
                times[name] = past_ms(name, time, now_ms)
    start = times["start_time"] or 0
    for name, at in times.items():
        if at is not None and at < start:
            faults.add(name, "is before start_time", "start_time")
    if (row.end_time is None) != (row.end_reason is None):
        faults.add("end_reason", "and end_time belong together")
    device_info = None
    with faults:
        device_info = metadata_json(row.device_info, "device_info")
    faults.done()
    last_seen, end = times["last_seen"], times["end_time"]
    return NewSession(
        row.id,
        row.user_id,
        row.app or app,
        start,
        start if last_seen is None else last_seen,
        end,
        row.end_reason,
        device_info,
        service.admission.masked(row.ip_address),
        row.user_agent,
    )
