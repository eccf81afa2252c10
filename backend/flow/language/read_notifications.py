"""Read notification types, templates and rules."""

from __future__ import annotations

import re
from typing import Any, Literal

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.flow.language.declarations import (
    Constant,
    Expression,
    Group,
    Join,
    ListValue,
    Name,
    NotificationType,
    Rule,
    SendNotification,
    Template,
)
from flashflow.backend.flow.language.read_actions import is_constant, read_notification
from flashflow.backend.flow.language.reader import Reader, as_plain, worded
from flashflow.backend.flow.language.syntax import Block, Declared, Entry, Mark, Quoted, Value, Word
from flashflow.backend.flow.language.vocabulary import CONSTRUCTS, GROUPS, RULE_FIELDS, Construct
from flashflow.backend.rendering.template_renderer import variables
from flashflow.backend.schemas.requests import WEEK_MINUTES, TemplateIn, TypeIn
from flashflow.backend.schemas.rules import MONTH_MINUTES, OnIn, RuleIn, RuleMessageIn, WhereIn, check_rule
from flashflow.backend.schemas.validation import convert

ACTIVITY_FIELDS = (
    "activity_type", "app", "page_url", "referrer", "session_id", "user_agent", "user_id", "metadata",
)  # fmt: skip
"""Fields of an activity in conditions."""
TEXT_FIELDS = ("user_id", "activity_type", "activity_id", "session_id", "page_url", "app", "timestamp")
"""Fields of an activity in texts; of the metadata too."""
_OPERATORS = {"=": "eq", "==": "eq", "!=": "ne", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_WORD_OPERATORS = ("contains", "in", "exists", "missing")


def read_notification_type(reader: Reader, declared: Declared, name: str) -> NotificationType | None:
    """Read a notification type."""
    construct = CONSTRUCTS["notification_type"]
    entries, values = _plain_entries(reader, construct, declared)
    request = reader.request(TypeIn, declared.heads[0], entries, {"name": name, **values}, {})
    return None if request is None else NotificationType(request, reader.place(declared.heads[0]))


def read_template(reader: Reader, declared: Declared, name: str) -> Template | None:
    """Read a template."""
    construct = CONSTRUCTS["template"]
    entries, values = _plain_entries(reader, construct, declared)
    if any(rule.required and rule.name not in entries for rule in construct.entries):
        return None
    fields = {"title": "title_template", "message": "message_template"}
    request = reader.request(TemplateIn, declared.heads[0], entries, {"name": name, **values}, fields)
    return None if request is None else Template(request, reader.place(declared.heads[0]))


def _plain_entries(reader: Reader, construct: Construct, declared: Declared) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Return the entries of a block and their plain values."""
    reader.only_entries(construct, declared.block)
    entries = reader.entries(construct, declared.block, declared)
    values = {}
    for name, entry in entries.items():
        value = reader.expression(reader.single(entry))
        if isinstance(value, Join):
            reader.fail(entry.values[0], f"“{name}” has no expressions", 'Write one text in double quotes: "…".')
        elif value is not None:
            values[name] = as_plain(value)
    return entries, values


# --- rules ------------------------------------------------------------------------------------------------------------


class _Message(NamedTuple):
    """Read ``send_notification`` of a rule."""

    request: RuleMessageIn
    to: Literal["user"] | Group | tuple[str, ...]
    kind: Literal["info", "success", "warning", "error"] | None


def read_rule(reader: Reader, declared: Declared) -> Rule | None:
    """Read ``on activity "type" { … }``."""
    count = len(reader.errors)
    activity_type = _activity_type(reader, declared)
    construct = CONSTRUCTS["on"]
    block = Block(tuple(s for s in declared.block.statements if not _is_track(s)), 0, 0)
    for statement in declared.block.statements:
        if isinstance(statement, Entry) and _is_track(statement):
            _refuse_track(reader, statement, activity_type)
    reader.only_entries(construct, block)
    entries = reader.entries(construct, block, declared)
    wheres = [s for s in block.statements if isinstance(s, Entry) and s.key == "where"]
    conditions = [_condition(reader, entry) for entry in wheres]
    if len(wheres) > 10:
        reader.fail(wheres[10], "a rule has at most 10 conditions", "Remove some.")
    times = reader.integer(entries["count"], 1, 1000) if "count" in entries else 1
    within = _minutes(reader, entries, "within", WEEK_MINUTES)
    cooldown = _minutes(reader, entries, "cooldown", MONTH_MINUTES) if "cooldown" in entries else 60
    if times is not None and (times > 1) != ("within" in entries):
        entry = entries["count" if times > 1 else "within"]
        missing, hint = ("within", "within: 10 minutes") if times > 1 else ("count", "count: 3")
        reader.fail(entry, f"“{entry.key}” needs “{missing}”", f"Add `{hint}`.")
    name = reader.name(entries["name"]) if "name" in entries else _slug(activity_type or "")
    message = _message(reader, entries["send_notification"]) if "send_notification" in entries else None
    if activity_type is None or message is None or name is None or times is None or cooldown is None:
        return None
    on = OnIn(
        activity_type=activity_type, where=[one for one in conditions if one is not None][:10], times=times,
        within_minutes=within,
    )  # fmt: skip
    rule = Rule(name, on, message.request, message.to, cooldown, reader.place(declared), message.kind)
    if len(reader.errors) == count:
        _check(reader, declared, rule)
    return rule


def _check(reader: Reader, declared: Declared, rule: Rule) -> None:
    """Check a rule as the API does; add its error."""
    recipients = "user" if rule.to == "user" or rule.to in GROUPS else list(rule.to)
    body = {
        "name": rule.name, "on": rule.on, "send": rule.send, "to": recipients,
        "cooldown_minutes": rule.cooldown_minutes,
    }  # fmt: skip
    try:
        check_rule(convert(body, RuleIn))
    except ValidationError as refusal:
        reader.fail(declared, str(refusal), "See docs/rules.md.")


def _activity_type(reader: Reader, declared: Declared) -> str | None:
    match declared.heads:
        case [Word(text="activity"), Quoted() as name]:
            return reader.unquote(name)
    reader.fail(declared, "this rule has no activity type", 'Write `on activity "checkout_failed" { … }`.')
    return None


def _is_track(statement: Any) -> bool:
    return isinstance(statement, Entry) and statement.key == "track_activity"


def _refuse_track(reader: Reader, statement: Entry, activity_type: str | None) -> None:
    """Refuse an activity as the action of a rule, which may trigger the rule itself."""
    block = statement.values[0]
    names = (
        [e for e in block.statements if isinstance(e, Entry) and e.key == "activity_type"]
        if isinstance(block, Block)
        else []
    )
    value = names[0].values[0] if names else None
    if isinstance(value, Quoted) and activity_type is not None and reader.unquote(value) == activity_type:
        message = f"this rule would trigger itself: it records “{activity_type}”"
    else:
        message = "a rule records no activities"
    reader.fail(statement, message, "Record the activity where it happens; a rule sends a notification.")


def _slug(activity_type: str) -> str:
    """Return the name of a rule by its activity type."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", activity_type).strip("-._")[:100] or "rule"


def _minutes(reader: Reader, entries: dict[str, Entry], key: str, most: int) -> int | None:
    return reader.minutes(entries[key], entries[key].values, most, zero=key == "cooldown") if key in entries else None


def _condition(reader: Reader, entry: Entry) -> WhereIn | None:
    """Read ``field operator value``."""
    match entry.values:
        case [Word() as field, (Mark() | Word()) as operator, *rest]:
            pass
        case _:
            hint = 'Write `where: metadata.plan == "pro"`; operators are == != < <= > >= contains in exists missing.'
            reader.fail(entry.values[0], "this is not a condition", hint)
            return None
    path = field.text.removeprefix("activity.")
    if path.partition(".")[0] not in ACTIVITY_FIELDS or (path == "metadata"):
        listed = ", ".join(ACTIVITY_FIELDS[:-1])
        hint = f"Fields are {listed} and metadata.KEY; did you mean “metadata.{path.removeprefix('metadata')}”?"
        reader.fail(
            field, f"“{field.text}” is not a field of an activity", hint.replace("metadata.”", "metadata.plan”")
        )
        return None
    op = _OPERATORS.get(operator.text, operator.text)
    if op not in {*_OPERATORS.values(), *_WORD_OPERATORS}:
        hint = f"Operators are {', '.join(list(_OPERATORS)[1:])}, {', '.join(_WORD_OPERATORS)}."
        reader.fail(operator, f"“{operator.text}” is not an operator", hint)
        return None
    count = len(reader.errors)
    value = _operand(reader, operator, op, rest)
    if len(reader.errors) > count:
        return None
    op = "exists" if op == "missing" else op
    body = {"field": path, "op": op, **({} if value is None else {"value": value})}
    try:
        where = convert(body, WhereIn)
        check_rule(_probe(where))
    except ValidationError as refusal:
        message = refusal.errors[0].message if refusal.errors else str(refusal)
        reader.fail(
            rest[0] if rest else operator, f"the value of this condition {worded(message)}", "See docs/rules.md."
        )
        return None
    return where


def _probe(where: WhereIn) -> RuleIn:
    """Return a rule that is correct but for the condition."""
    return RuleIn(
        name="probe", on=OnIn(activity_type="probe", where=[where]), send=RuleMessageIn(title="probe", message="probe")
    )


def _operand(reader: Reader, operator: Word | Mark, op: str, rest: list[Value]) -> Any:
    """Read the value of a condition."""
    if op in {"exists", "missing"}:
        if rest:
            reader.surplus(rest[0])
        return op == "exists"
    if not rest:
        return None
    if len(rest) > 1:
        reader.surplus(rest[1])
    value = reader.expression(rest[0])
    if value is None or not _is_plain(value):
        if value is not None:
            hint = 'Write a text, a number, true, false, or a list of them: `where: app in ["shop", "blog"]`.'
            reader.fail(rest[0], "a condition compares with a constant", hint)
        return None
    return as_plain(value)


def _is_plain(value: Expression) -> bool:
    return isinstance(value, Constant) or (
        isinstance(value, ListValue) and all(isinstance(item, Constant) for item in value.items)
    )


def _message(reader: Reader, owner: Entry) -> _Message | None:
    block = reader.single(owner)
    if not isinstance(block, Block):
        reader.fail(block, "“send_notification” needs a block", "Write `send_notification: { … }`.")
        return None
    for statement in block.statements:
        known = isinstance(statement, Entry) and CONSTRUCTS["send_notification"].entry(statement.key) is not None
        if isinstance(statement, Entry) and known and statement.key not in RULE_FIELDS:
            reader.fail(statement, f"“{statement.key}” has no place in a rule", "Remove it: a rule sends at once.")
    count = len(reader.errors)
    action = read_notification(reader, owner, block)
    if action is None or len(reader.errors) > count:
        return None
    to = _recipients(reader, action)
    fields = {name: _template(reader, value) for name, value in action.fields if name in RULE_FIELDS}
    if "channel" in fields:
        fields["channels"] = [fields.pop("channel")]
    try:
        request = convert(fields, RuleMessageIn)
    except ValidationError as refusal:
        if len(reader.errors) == count:
            reader.fail(owner, str(refusal), "See docs/rules.md.")
        return None
    _check_variables(reader, action, request)
    return None if to is None else _Message(request, to, action.kind)


def _check_variables(reader: Reader, action: SendNotification, request: RuleMessageIn) -> None:
    """Add an error for each variable in the texts of a rule that no activity has: the rule would never send."""
    known = {*TEXT_FIELDS, "times", "rule", *(request.data or {})}
    for name, value in action.fields:
        text = getattr(request, name, None) if name in {"title", "message"} else None
        for variable in variables(text) if isinstance(text, str) else ():
            if variable not in known and not variable.startswith("metadata_"):
                hint = reader.suggest(variable, tuple(sorted(known)), "Variables are metadata_KEY,")
                reader.fail_at(value.place, f"there is no “{{{variable}}}” in a rule", hint)


def _recipients(reader: Reader, action: SendNotification) -> Literal["user"] | Group | tuple[str, ...] | None:
    to = action.to
    if isinstance(to, str):
        return to
    if isinstance(to, Name) and str(to) in {"user", "activity.user_id"}:
        return "user"
    if is_constant(to):
        value = as_plain(to)
        return tuple(value) if isinstance(value, list) else (value,)
    hint = "Write `to: activity.user_id`, a list of user ids, or admin_users, all_users."
    reader.fail_at(to.place, "this is not a recipient of a rule", hint)
    return None


def _template(reader: Reader, value: Expression) -> Any:
    """Return the value with names as variables of a rule's texts: ``{metadata_plan}`` of ``activity.metadata.plan``."""
    match value:
        case Name():
            return _variable(reader, value)
        case Join(parts=parts):
            return "".join(str(_template(reader, part)) for part in parts)
    if is_constant(value):
        return as_plain(value)
    reader.fail_at(value.place, "a rule has constant data", "Names stand in the title and the message only.")
    return None


def _variable(reader: Reader, name: Name) -> str:
    first, *rest = name.parts
    if first == "activity" and len(rest) == 1 and rest[0] in TEXT_FIELDS:
        return f"{{{rest[0]}}}"
    if first == "activity" and len(rest) > 1 and rest[0] == "metadata":
        return "{metadata_" + re.sub(r"\W", "_", "_".join(rest[1:])) + "}"
    if first in {"times", "rule"} and not rest:
        return f"{{{first}}}"
    listed = ", ".join(f"activity.{field}" for field in TEXT_FIELDS)
    reader.fail_at(name.place, f"there is no “{name}” in a rule", f"Names are {listed}, activity.metadata.KEY, times.")
    return ""
