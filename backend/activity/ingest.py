"""Parsing of incoming activities: validation, clock correction, origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from flashflow.backend.activity.batch import Batch, derive_id, prepare_rows
from flashflow.backend.activity.consent import Admission
from flashflow.backend.core.clock import HOUR_MS, Clock
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.schemas.requests import ActivityIn, row_json
from flashflow.backend.schemas.validation import Malformed, decode_row
from flashflow.backend.schemas.values import metadata_json, timestamp_ms
from flashflow.backend.store.activity.activities import NewActivity

FUTURE_MS = HOUR_MS
"""The furthest future timestamp that is accepted [Mixpanel]."""
SKEW_MS = 5_000
"""The clock skew of a batch above which its timestamps are corrected [Segment]."""
LOCAL_APP = "local"
"""The app of rows that this process writes itself, without an API key."""


class Origin(msgspec.Struct, frozen=True):
    """The sender: its app, and the connection's address and user agent."""

    app: str = LOCAL_APP
    ip_address: str | None = None
    user_agent: str | None = None


CheckMetadata = Callable[[Mapping[str, Any]], None]
"""Raises ValidationError for metadata that does not fit its model."""
MODEL_KEY = "model"
"""Key of metadata that names a model."""


def past_ms(field: str, value: datetime, now_ms: int, correction: int = 0) -> int:
    """Convert a time to milliseconds since 1970, less ``correction``. Raises ValidationError for a time after
    FUTURE_MS from now."""
    ms = timestamp_ms(field, value) - correction
    if ms > now_ms + FUTURE_MS:
        raise ValidationError.of(field, "is more than an hour in the future")
    return ms


class ActivityParser:
    """Convert requests to rows to store. ``new_id`` makes the ids of activities without one."""

    def __init__(self, admission: Admission, clock: Clock, new_id: Callable[[], str]) -> None:
        self._admission = admission
        self._clock = clock
        self._new_id = new_id
        self.models: Mapping[str, CheckMetadata] = {}
        """Checks of metadata by the model that it names; other metadata is free."""

    def one(self, activity: ActivityIn, origin: Origin) -> NewActivity:
        """Convert a single activity. Raises ValidationError."""
        return self._prepare(activity, origin, self._clock.now_ms(), 0)

    def batch(
        self,
        rows: Sequence[msgspec.Raw | dict[str, Any]],
        sent_at: datetime | None,
        origin: Origin,
        *,
        may_name_app: bool,
        key: str | None,
    ) -> Batch:
        """Convert each of ``rows`` or reject it. Raises ValidationError for an invalid ``sent_at``."""
        now = self._clock.now_ms()
        ahead = 0 if sent_at is None else timestamp_ms("sent_at", sent_at) - now
        correction = ahead if abs(ahead) > SKEW_MS else 0

        def prepare(index: int, row: msgspec.Raw | dict[str, Any]) -> NewActivity:
            raw = bytes(row) if isinstance(row, msgspec.Raw) else row_json(row)
            try:
                activity = decode_row(ActivityIn, raw)
            except Malformed as error:
                raise self._every_fault(error, now, correction, may_name_app=may_name_app) from None
            if activity.activity_id is None and key is not None:
                activity = msgspec.structs.replace(
                    activity, activity_id=derive_id(activity.timestamp, (origin.app, key, index, raw))
                )
            return self._prepare(activity, origin, now, correction, may_name_app=may_name_app)

        return prepare_rows(rows, prepare)

    def _every_fault(self, first: Malformed, now: int, correction: int, *, may_name_app: bool) -> ValidationError:
        """Add the errors of the fields that could be decoded to ``first``."""
        faults = ErrorCollector()
        with faults:
            raise first
        if first.part is not None:
            with faults:
                self.check(first.part, now, correction, may_name_app=may_name_app)
        return faults.error()

    def check(self, activity: ActivityIn, now: int, correction: int = 0, *, may_name_app: bool = True) -> None:
        """Raise ValidationError that names every invalid field."""
        faults = ErrorCollector()
        if activity.app is not None and not may_name_app:
            faults.add("app", "may be given with an admin key only")
        with faults:
            self._time_ms(activity, now, correction)
        with faults:
            self._metadata(activity)
        faults.done()

    def _time_ms(self, activity: ActivityIn, now: int, correction: int) -> int:
        if activity.timestamp is None:
            return now
        timestamp = max(past_ms("timestamp", activity.timestamp, now, correction), 0)
        self._admission.check_age(timestamp)
        return timestamp

    def _metadata(self, activity: ActivityIn) -> str | None:
        metadata = activity.metadata
        text = metadata_json(metadata)
        if metadata and self.models:
            model = metadata.get(MODEL_KEY)
            if isinstance(model, str) and (check := self.models.get(model)) is not None:
                check(metadata)
        return text

    def _prepare(
        self, activity: ActivityIn, origin: Origin, now: int, correction: int, *, may_name_app: bool = True
    ) -> NewActivity:
        try:
            if activity.app is not None and not may_name_app:
                raise ValidationError.of("app", "may be given with an admin key only")
            timestamp = self._time_ms(activity, now, correction)
            metadata = self._metadata(activity)
        except ValidationError:
            self.check(activity, now, correction, may_name_app=may_name_app)  # names all invalid fields
            raise
        return NewActivity(
            activity.activity_id or self._new_id(),
            activity.activity_id is not None,
            activity.timestamp is not None,
            activity.user_id,
            activity.activity_type,
            activity.session_id,
            activity.app or origin.app,
            timestamp,
            now,
            metadata,
            activity.page_url,
            activity.referrer,
            activity.user_agent or origin.user_agent,
            self._admission.masked(origin.ip_address),
        )
