"""Activities on their way in, as apps send them: each checked on its own, its time corrected, its origin added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from backend.admission import Admission
from backend.batch_rows import Batch, decode_row, made_id, rejected
from backend.clock import Clock
from backend.errors import ValidationError
from backend.inputs import ActivityIn, row_json
from backend.moments import metadata_json, moment_ms
from backend.records import RejectedRow
from backend.store.activities import NewActivity

FUTURE_MS = 60 * 60 * 1000
"""An activity from further ahead is refused [Mixpanel]."""
SKEW_MS = 5_000
"""A batch's clock is corrected when it is off by more [Segment]."""
LOCAL_APP = "local"
"""The app of whatever is written without a key: by this process itself."""


class Origin(msgspec.Struct, frozen=True):
    """Who sends: the app, and what the connection tells."""

    app: str = LOCAL_APP
    ip_address: str | None = None
    user_agent: str | None = None


class Incoming:
    """Makes of what came what can be stored. ``new_id`` names the rows that came without an id."""

    def __init__(self, admission: Admission, clock: Clock, new_id: Callable[[], str]) -> None:
        self._admission = admission
        self._clock = clock
        self._new_id = new_id

    def one(self, activity: ActivityIn, origin: Origin) -> NewActivity:
        """A single activity. Raises ValidationError."""
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
        """What of ``rows`` can be stored, and why the rest cannot. Raises ValidationError for a bad ``sent_at``."""
        now = self._clock.now_ms()
        ahead = 0 if sent_at is None else moment_ms("sent_at", sent_at) - now
        correction = ahead if abs(ahead) > SKEW_MS else 0
        places: list[int] = []
        good: list[NewActivity] = []
        refused: list[RejectedRow] = []
        for index, row in enumerate(rows):
            try:
                raw = bytes(row) if isinstance(row, msgspec.Raw) else row_json(row)
                activity = decode_row(raw)
                if activity.app is not None and not may_name_app:
                    raise ValidationError.of("app", "may be given with an admin key only")
                if activity.activity_id is None and (sent_at is not None or key is not None):
                    said = sent_at or activity.timestamp
                    parts = (origin.app, key, None if sent_at is None else sent_at.isoformat(), index, raw)
                    activity = msgspec.structs.replace(activity, activity_id=made_id(said, parts))
                good.append(self._prepare(activity, origin, now, correction))
                places.append(index)
            except ValidationError as error:
                refused.append(rejected(index, error))
        return places, good, refused

    def _prepare(self, activity: ActivityIn, origin: Origin, now: int, correction: int) -> NewActivity:
        timestamp = now
        if activity.timestamp is not None:
            timestamp = moment_ms("timestamp", activity.timestamp) - correction
            if timestamp > now + FUTURE_MS:
                raise ValidationError.of("timestamp", "is more than an hour in the future")
            timestamp = max(timestamp, 0)
            self._admission.check_age(timestamp)
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
            metadata_json(activity.metadata),
            activity.page_url,
            activity.referrer,
            activity.user_agent or origin.user_agent,
            self._admission.masked(origin.ip_address),
        )
