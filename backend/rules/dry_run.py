"""A rule's dry run: how often it would have fired in the last seven days. Nothing is stored, nobody is told."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.domain.metric_alerts import Metrics, Reading, check_times, is_breached, may_notify, read
from flashflow.backend.domain.rule_conditions import (
    NONE_YET,
    ActivityFacts,
    RuleState,
    conditions_of,
    match,
    terms_of,
    told,
)
from flashflow.backend.schemas.records import Record
from flashflow.backend.schemas.rules import AlertIn, OnIn
from flashflow.backend.store.activity.rule_queries import during

DAYS = 7
WEEK_MS = DAYS * 24 * 60 * 60 * 1000
EXAMPLES = 10
MOST_JUDGED = 250_000
"""Activities of the type that are looked at; a trial must end before whoever asked gives up."""


class ActivityExample(Record, frozen=True, kw_only=True):
    """One activity with which the rule would have fired."""

    at: datetime
    user_id: str
    activity_id: str


class AlertExample(Record, frozen=True, kw_only=True):
    """One reading with which the alert would have fired."""

    at: datetime
    now: int
    before: int
    change_percent: float | None


class DryRun(Record, frozen=True, kw_only=True):
    """How often it would have fired, the newest ten of these times, and how many activities of the type (for an alert:
    readings) were judged. ``complete`` is false where there were so many that the newest were not looked at."""

    would_have_fired: int
    examples: tuple[ActivityExample, ...] | tuple[AlertExample, ...]
    days: int
    judged: int
    complete: bool


class Scope(NamedTuple):
    """When it is asked, and over whose rows (``app`` None: all)."""

    now_ms: int
    app: str | None


def try_activities(
    conn: sqlite3.Connection, on: OnIn, cooldown_minutes: int, scope: Scope, most: int = MOST_JUDGED
) -> DryRun:
    """Judge what happened in the last seven days, each activity as if at the time it happened."""
    return _judge(on, cooldown_minutes, during(conn, scope.now_ms - WEEK_MS, on.activity_type, scope.app), most)


def _judge(on: OnIn, cooldown_minutes: int, happenings: Iterable[ActivityFacts], most: int) -> DryRun:
    terms, conditions = terms_of(on, cooldown_minutes), conditions_of(on.where)
    remembered: dict[str, RuleState] = {}
    newest: deque[ActivityFacts] = deque(maxlen=EXAMPLES)
    fired = judged = 0
    complete = True
    for happening in happenings:
        if judged == most:
            complete = False
            break
        judged += 1
        if not all(condition.holds(happening) for condition in conditions):
            continue
        at, user = happening.at_ms, happening.user_id
        fires, uses = match(terms, remembered.get(user, NONE_YET), at, at)
        if fires:
            fired, uses = fired + 1, told(at)
            newest.append(happening)
        remembered[user] = uses
    examples = tuple(
        ActivityExample(at=to_datetime(one.at_ms), user_id=one.user_id, activity_id=one.id) for one in reversed(newest)
    )
    return DryRun(would_have_fired=fired, examples=examples, days=DAYS, judged=judged, complete=complete)


def try_alert(alert: AlertIn, cooldown_minutes: int, scope: Scope, metrics: Metrics, zone: ZoneInfo) -> DryRun:
    """Look at the figure at every moment of the last seven days at which the alert would have."""
    found: list[tuple[int, Reading]] = []
    judged, fired_at = 0, None
    for at in check_times(alert, scope.now_ms - WEEK_MS, scope.now_ms, zone):
        judged += 1
        if not may_notify(fired_at, cooldown_minutes, at, zone):
            continue
        seen = read(alert, metrics, at, zone, scope.app)
        if is_breached(alert, seen):
            fired_at = at
            found.append((at, seen))
    examples = tuple(
        AlertExample(at=to_datetime(at), now=seen.now, before=seen.before, change_percent=seen.change)
        for at, seen in reversed(found[-EXAMPLES:])
    )
    return DryRun(would_have_fired=len(found), examples=examples, days=DAYS, judged=judged, complete=True)
