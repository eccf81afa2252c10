"""Texts about rules: condition, recipients, history, dry run. Pure functions, no Flet."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import Any

from flashflow.backend import DryRun, Rule
from flashflow.views.controls.formatting import grouped, one_line, plural
from flashflow.views.controls.relative_time import ago

PERIODS = ((10_080, "week"), (1_440, "day"), (60, "hour"))
COMPARED = {"same_weekday": "the same weekday last week", "previous_day": "the day before"}
OPS = {
    "eq": "is", "ne": "is not", "lt": "is below", "lte": "is at most", "gt": "is above", "gte": "is at least",
    "contains": "contains", "in": "is one of",
}  # fmt: skip
_NO_SLUG = re.compile(r"[^A-Za-z0-9._-]+")


def condition_text(rule: Rule) -> str:
    """Describe a condition: "When checkout_failed happens 3 times within 10 min"."""
    if rule.alert is not None:
        percent = f"{abs(rule.alert.change_percent):g}"
        moved = "fall" if rule.alert.change_percent < 0 else "rise"
        metric = rule.alert.metric.replace("_", " ")
        return f"When {metric} {moved} by {percent} % or more compared with {COMPARED[rule.alert.compare]}"
    assert rule.on is not None
    text = f"When {one_line(rule.on.activity_type, 100)} happens"
    if rule.on.times > 1:
        text += f" {grouped(rule.on.times)} times within {period_text(rule.on.within_minutes or 0)}"
    if rule.on.where:
        text += " where " + " and ".join(_condition(one) for one in rule.on.where)
    return text


def action_text(rule: Rule, me: str) -> str:
    """Describe the action: "Notifies the user with the template “sorry”, at most once an hour"."""
    template, title = rule.send.template, one_line(rule.send.title or "", 80)
    text = f"with the template “{template}”" if template else f"with “{title}”"
    often = f", at most once {interval_text(rule.cooldown_minutes)}" if rule.cooldown_minutes else ""
    if rule.alert is not None:
        often = ", at most once a day"
    return f"Notifies {_recipients(rule.to, me)} {text}{often}"


def history_text(rule: Rule, now: datetime) -> str:
    """Describe the history: "Fired 12 times, last 4 min ago"."""
    if not rule.fired or rule.last_fired_at is None:
        return "Has not fired yet"
    return f"Fired {_times(rule.fired)}, last {ago(rule.last_fired_at, now)}"


def dry_run_text(result: DryRun) -> str:
    """Describe a dry run: "Would have fired 12 times in the last 7 days"."""
    text = f"Would have fired {_times(result.would_have_fired)} in the last {result.days} days."
    if not result.complete:
        text += f" Only the oldest {grouped(result.judged)} activities were checked."
    return text


def period_text(minutes: int) -> str:
    """ "10 min", "1 hour", "2 days"."""
    for size, name in PERIODS:
        if minutes and minutes % size == 0:
            return plural(minutes // size, name)
    return f"{grouped(minutes)} min"


def interval_text(minutes: int) -> str:
    """ "an hour", "a day", "in 90 min"."""
    for size, name in PERIODS:
        if minutes == size:
            return f"an {name}" if name == "hour" else f"a {name}"
    return f"in {period_text(minutes)}"


def name_for(activity_type: str, taken: Collection[str]) -> str:
    """Return an unused rule name derived from the activity type."""
    slug = _NO_SLUG.sub("-", activity_type).strip("-._")[:80] or "rule"
    number, name = 1, slug
    while name in taken or name == "dry-run":
        number += 1
        name = f"{slug}-{number}"
    return name


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{grouped(count)} times")


def _recipients(to: str | list[str], me: str) -> str:
    if isinstance(to, str):
        return "the user"
    names = ["you" if user == me else one_line(user, 60) for user in to]
    if len(names) > 3:
        names = [*names[:3], plural(len(names) - 3, "other")]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _condition(one: Any) -> str:
    field = one_line(one.field, 80)
    if one.op == "exists":
        return f"{field} is {'missing' if one.value is False else 'present'}"
    values = one.value if isinstance(one.value, list) else [one.value]
    return f"{field} {OPS[one.op]} {', '.join(one_line(_value(value), 40) for value in values[:5])}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
