"""Dry runs: count how often a rule would have fired in the last seven days. Nothing is stored or sent."""

from __future__ import annotations

import sqlite3
from collections import deque
from datetime import datetime
from zoneinfo import ZoneInfo

from flashflow.backend.core.clock import DAY_MS, to_datetime
from flashflow.backend.domain.metric_alerts import Metrics, Reading, check_times, is_breached, read
from flashflow.backend.domain.rule_conditions import ActivityFacts, conditions_of
from flashflow.backend.domain.rule_firing import NONE_YET, RuleState, after_firing, match, may_notify, terms_of
from flashflow.backend.schemas.records import Record
from flashflow.backend.schemas.rules import AlertIn, OnIn
from flashflow.backend.store.activity.rule_queries import activities_of_type

DAYS = 7
WEEK_MS = DAYS * DAY_MS
EXAMPLES = 10
MOST_JUDGED = 250_000
"""Activities evaluated in one dry run: it must end before the caller's time-out."""


class ActivityExample(Record, frozen=True, kw_only=True):
    """One activity on which the rule would have fired."""

    at: datetime
    user_id: str
    activity_id: str


class AlertExample(Record, frozen=True, kw_only=True):
    """One metric reading on which the alert would have fired."""

    at: datetime
    now: int
    before: int
    change_percent: float | None


class DryRun(Record, frozen=True, kw_only=True):
    """Result of a dry run: number of firings, the newest ten as examples, and the number of activities of the type
    (alert: of readings) evaluated. ``complete`` is false if the newest activities exceeded the limit and were
    skipped."""

    would_have_fired: int
    examples: tuple[ActivityExample, ...] | tuple[AlertExample, ...]
    days: int
    judged: int
    complete: bool


def try_activities(conn: sqlite3.Connection, on: OnIn, cooldown_minutes: int, now_ms: int, app: str | None) -> DryRun:
    """Evaluate the activities of the last seven days, of one app or all (None), each as if it had arrived when it
    happened."""
    terms, conditions = terms_of(on, cooldown_minutes), conditions_of(on.where)
    states: dict[str, RuleState] = {}
    newest: deque[ActivityFacts] = deque(maxlen=EXAMPLES)
    fired = judged = 0
    complete = True
    for activity in activities_of_type(conn, now_ms - WEEK_MS, on.activity_type, app):
        if judged == MOST_JUDGED:
            complete = False
            break
        judged += 1
        if not all(condition.holds(activity) for condition in conditions):
            continue
        at, user = activity.at_ms, activity.user_id
        fires, state = match(terms, states.get(user, NONE_YET), at, at)
        if fires:
            fired, state = fired + 1, after_firing(at)
            newest.append(activity)
        states[user] = state
    examples = tuple(
        ActivityExample(at=to_datetime(one.at_ms), user_id=one.user_id, activity_id=one.id) for one in reversed(newest)
    )
    return DryRun(would_have_fired=fired, examples=examples, days=DAYS, judged=judged, complete=complete)


def try_alert(
    alert: AlertIn, cooldown_minutes: int, now_ms: int, app: str | None, metrics: Metrics, zone: ZoneInfo
) -> DryRun:
    """Read the metric of one app or all (None) at every check time of the last seven days."""
    found: list[tuple[int, Reading]] = []
    judged, fired_at = 0, None
    for at in check_times(alert, now_ms - WEEK_MS, now_ms, zone):
        judged += 1
        if not may_notify(fired_at, cooldown_minutes, at, zone):
            continue
        seen = read(alert, metrics, at, zone, app)
        if is_breached(alert, seen):
            fired_at = at
            found.append((at, seen))
    examples = tuple(
        AlertExample(at=to_datetime(at), now=seen.now, before=seen.before, change_percent=seen.change)
        for at, seen in reversed(found[-EXAMPLES:])
    )
    return DryRun(would_have_fired=len(found), examples=examples, days=DAYS, judged=judged, complete=True)
