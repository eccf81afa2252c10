"""Requests for rules: trigger, message and recipients."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.schemas.records import Priority
from flashflow.backend.schemas.requests import (
    END,
    SLUG,
    WEEK_MINUTES,
    ActionIn,
    AppName,
    Channel,
    Input,
    Message,
    Name,
    Title,
    TypeName,
    UserId,
)

MONTH_MINUTES = 30 * 24 * 60
RESERVED = "dry-run"
"""Reserved rule name: ``/api/rules/dry-run`` is a route of its own."""

QUOTED_KEY = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?:[0-9A-CEFa-cef][0-9A-Fa-f]{3}|[dD][0-7][0-9A-Fa-f]{2}))*"'
"""Metadata key as a JSON string, without escaped surrogates."""
FIELD = (
    r"^(activity_type|app|page_url|referrer|session_id|user_agent|user_id|"
    rf"metadata(\.({QUOTED_KEY}|[^.\x00-\x1f\x7f]+)){{1,8}})" + END
)
CHECK = r"^(hourly|([01][0-9]|2[0-3]):[0-5][0-9])" + END
_LARGEST = 2**63

RuleName = Annotated[str, Meta(min_length=1, max_length=100, pattern=SLUG)]
Text = Annotated[str, Meta(max_length=1000)]
Scalar = Text | int | float | bool
Op = Literal["eq", "ne", "lt", "lte", "gt", "gte", "contains", "exists", "in"]
CheckAt = Annotated[str, Meta(pattern=CHECK, description="hourly, or HH:MM in the workspace's zone")]
ORDERED = frozenset({"lt", "lte", "gt", "gte"})


class WhereIn(Input, frozen=True, kw_only=True):
    """Condition on one field of an activity: ``page_url``, ``referrer``, ``app``, ``user_id``, ``session_id``,
    ``user_agent``, or ``metadata.KEY`` (``metadata.cart.total`` is a nested value; a key with dots may be quoted, as
    in ``metadata."http.status"``)."""

    field: Annotated[
        str, Meta(max_length=300, pattern=FIELD, description='page_url, app, … or metadata.KEY, metadata."KEY"')
    ]
    op: Op
    value: Scalar | Annotated[list[Scalar], Meta(min_length=1, max_length=100)] | None = None


class OnIn(Input, frozen=True, kw_only=True):
    """Activity trigger: ``times`` activities of a type by one user within ``within_minutes``, all conditions met."""

    activity_type: TypeName
    where: Annotated[list[WhereIn], Meta(max_length=10)] = msgspec.field(default_factory=list)
    times: Annotated[int, Meta(ge=1, le=1000)] = 1
    within_minutes: Annotated[int, Meta(ge=1, le=WEEK_MINUTES)] | None = None


class AlertIn(Input, frozen=True, kw_only=True):
    """Metric alert: today's value so far differs by ``change_percent`` (-50: fell by half or more) from the same hours
    of yesterday or of the same weekday last week, whose value must be at least ``min_before``."""

    metric: Literal["active_users", "activities", "sessions", "new_users"]
    compare: Literal["same_weekday", "previous_day"] = "same_weekday"
    change_percent: Annotated[float, Meta(ge=-100, le=100_000)]
    min_before: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 10
    check_at: CheckAt = "hourly"


class RuleMessageIn(Input, frozen=True, kw_only=True):
    """Message of a rule: a ``template``, or a title and a message with variables such as ``{user_id}``."""

    template: Name | None = None
    title: Title | None = None
    message: Message | None = None
    locale: Annotated[str, Meta(max_length=35)] | None = None
    notification_type: TypeName = "general"
    channels: Annotated[list[Channel], Meta(min_length=1, max_length=16)] | None = None
    priority: Priority = "normal"
    data: dict[str, Any] | None = None
    collapse_key: Name | None = None
    actions: Annotated[list[ActionIn], Meta(max_length=3)] | None = None


Recipients = Literal["user"] | Annotated[list[UserId], Meta(min_length=1, max_length=100)]
Cooldown = Annotated[
    int,
    Meta(ge=0, le=MONTH_MINUTES, description="Minutes between two notifications to one user; 0: no limit"),
]


class RuleChangeIn(Input, frozen=True, kw_only=True):
    """New content of a rule; ``name`` renames it. Requires either ``on`` or ``alert``. ``to`` is ``"user"`` (the user
    of the activity) or a list of user ids, which an alert requires."""

    name: RuleName | None = None
    enabled: bool = True
    on: OnIn | None = None
    alert: AlertIn | None = None
    send: RuleMessageIn
    to: Recipients = "user"
    cooldown_minutes: Cooldown = 60


class RuleIn(RuleChangeIn, frozen=True, kw_only=True):
    """A new rule."""

    name: RuleName
    app: AppName | None = None


class RuleDraftIn(Input, frozen=True, kw_only=True):
    """Rule for a dry run; only the trigger is required."""

    name: RuleName | None = None
    enabled: bool = True
    on: OnIn | None = None
    alert: AlertIn | None = None
    send: RuleMessageIn | None = None
    to: Recipients | None = None
    cooldown_minutes: Cooldown = 60
    app: AppName | None = None


class RuleQuery(Input, frozen=True, kw_only=True):
    """Rule's app, needed where an admin key sees several rules with one name."""

    app: AppName | None = None


def check_rule(rule: RuleChangeIn) -> None:
    """Check rules between fields. Raises ValidationError."""
    faults = ErrorCollector()
    if rule.name == RESERVED:
        faults.add("name", f"“{RESERVED}” is reserved")
    with faults:
        check_when(rule.on, rule.alert)
    if rule.alert is not None and rule.to == "user":
        faults.add("to", "must be a list of user ids: an alert has no user of its own")
    if rule.send.template is None:
        for field in ("title", "message"):
            if getattr(rule.send, field) is None:
                faults.add(f"send.{field}", "is required where no template is given", "send.template")
    faults.done()


def check_when(on: OnIn | None, alert: AlertIn | None) -> None:
    """Check the trigger. Raises ValidationError."""
    faults = ErrorCollector()
    if (on is None) == (alert is None):
        faults.add("on", "give either on or alert", "alert")
    if alert is not None and alert.change_percent == 0:
        faults.add("alert.change_percent", "must not be 0: below it means a fall, above it a rise")
    if on is not None:
        if on.times > 1 and on.within_minutes is None:
            faults.add("on.within_minutes", "is required where times is more than 1", "on.times")
        if on.times == 1 and on.within_minutes is not None:
            faults.add("on.within_minutes", "goes with times of 2 or more", "on.times")
        for place, condition in enumerate(on.where):
            if wrong := _value_error(condition):
                faults.add(f"on.where.{place}.value", wrong)
    faults.done()


def _value_error(condition: WhereIn) -> str | None:
    """Return the error of the condition's value, or None."""
    op, value = condition.op, condition.value
    if op == "exists":
        return None if value is None or isinstance(value, bool) else "must be true or false, or left out, for exists"
    if value is None:
        return "is required; use exists to test for any value"
    if (op == "in") != isinstance(value, list):
        return "must be a list for in" if op == "in" else f"must not be a list for {op}"
    return _scalar_error(op, value)


def _scalar_error(op: str, value: str | float | bool | list[str | int | float | bool]) -> str | None:
    if op in ORDERED and isinstance(value, bool):
        return f"must be a number or a text for {op}"
    if op == "contains" and value == "":
        return "must not be empty for contains"
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, int) and not -_LARGEST <= one < _LARGEST for one in values):
        return "is a number out of range"
    return None
