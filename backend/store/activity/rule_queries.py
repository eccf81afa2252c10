"""Queries of the rules: activities since the last check, activities and sessions of a time window."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from peewee import SQL, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.rule_conditions import ActivityFacts
from flashflow.backend.store.activity.models import UserActivity, UserSession
from flashflow.backend.store.activity.user_index import activity_columns
from flashflow.backend.store.engine.statement import Statement, among, any_or_same, by_index, slot


class _Facts(NamedTuple):
    """The values of ActivityFacts, in its order; ``metadata`` is JSON text."""

    seq: int
    id: str
    user_id: str
    activity_type: str
    session_id: str
    app: str
    timestamp: int
    received_at: int
    metadata: str | None
    page_url: str | None
    referrer: str | None
    user_agent: str | None


_A, _S = UserActivity, UserSession
_FACTS = _A.select(*activity_columns(_Facts, stored=["metadata"])).where(_A.timestamp >= slot("since"))
SINCE = Statement(
    lambda: (
        _FACTS.from_(by_index(_A, None))
        .where(_A.seq > slot("after"), _A.seq <= slot("until"), among(_A.activity_type, "types"))
        .order_by(_A.seq)
        .limit(slot("limit"))
    ),
    _Facts,
)
DURING = Statement(
    lambda: (
        _FACTS.from_(by_index(_A, "user_activities_time"))
        .where(_A.activity_type == slot("type"), any_or_same(_A.app))
        .order_by(_A.timestamp, _A.seq)
    ),
    _Facts,
)
BEGUN = Statement(
    lambda: (
        _S.select(fn.COUNT(SQL("*")))
        .from_(by_index(_S, "user_sessions_start"))
        .where(_S.start_time >= slot("start"), _S.start_time < slot("end"), any_or_same(_S.app))
    )
)


class ActivityBatch(NamedTuple):
    """Activities in order of arrival, and the last ``seq`` that was read."""

    activities: list[ActivityFacts]
    reached: int


def activities_since(
    conn: sqlite3.Connection, after: int, until: int, since_ms: int, types: Sequence[str], limit: int
) -> ActivityBatch:
    """Return up to ``limit`` activities of ``types`` after seq ``after`` up to ``until``, from ``since_ms`` on."""
    rows = SINCE.all(conn, after=after, until=until, since=since_ms, types=types, limit=limit)
    return ActivityBatch([ActivityFacts(*row) for row in rows], rows[-1].seq if len(rows) == limit else until)


def activities_of_type(
    conn: sqlite3.Connection, since_ms: int, activity_type: str, app: str | None
) -> Iterator[ActivityFacts]:
    """Iterate over the activities of a type timed ``since_ms`` or later, oldest first."""
    for row in DURING.each(conn, since=since_ms, type=activity_type, app=app):
        yield ActivityFacts(*row)


def count_sessions(conn: sqlite3.Connection, start_ms: int, end_ms: int, app: str | None) -> int:
    """Count the sessions of an app (None: all) that began in [``start_ms``, ``end_ms``)."""
    return int(BEGUN.value(conn, start=start_ms, end=end_ms, app=app))
