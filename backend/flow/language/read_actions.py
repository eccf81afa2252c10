"""Read actions, data sources and jobs."""

from __future__ import annotations

import re
from typing import Any, cast

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.flow.language.declarations import (
    Action,
    Constant,
    DataSource,
    Expression,
    ForEach,
    Group,
    Job,
    Kind,
    ListValue,
    MapValue,
    Name,
    Named,
    SendNotification,
    SendScheduled,
    TrackActivity,
)
from flashflow.backend.flow.language.reader import IDENTIFIER, VALUES, Reader, as_plain, worded
from flashflow.backend.flow.language.schedule import WEEKDAYS, Schedule, parse_schedule
from flashflow.backend.flow.language.syntax import (
    Assignment,
    Block,
    Declared,
    Entry,
    Loop,
    Node,
    Number,
    Query,
    Quoted,
    Statement,
    Value,
    Word,
)
from flashflow.backend.flow.language.vocabulary import ACTIONS, CONSTRUCTS, GROUPS, KINDS
from flashflow.backend.schemas.requests import WEEK_MINUTES, ActivityIn, SendIn
from flashflow.backend.schemas.validation import convert

_WORDS = frozenset(
    {"activity_type", "channel", "channels", "locale", "notification_type", "priority", "template", "type"}
)
"""Entries whose single words are texts, not names of values."""
LONGEST_SQL = 500
"""Characters of a statement that are compared with the documented ones."""
_PENDING = re.compile(
    r"select\s+(?:\*|[\w\s,]+?)\s+from\s+notifications?\s+where\s+status\s*=\s*'pending'"
    r"(?:\s+and\s+scheduled_at\s*<=\s*now\(\))?\s*;?",
    re.IGNORECASE,
)
_MARK_SENT = re.compile(
    r"update\s+notifications?\s+set\s+status\s*=\s*'sent'(?:\s*,\s*sent_at\s*=\s*now\(\))?"
    r"\s+where\s+id\s*=\s*\w+\.id\s*;?",
    re.IGNORECASE,
)


def read_actions(reader: Reader, block: Block, where: str) -> tuple[Action, ...]:
    """Read the actions of a block."""
    found = [read_action(reader, statement, where) for statement in block.statements]
    return tuple(action for action in found if action is not None)


def read_action(reader: Reader, statement: Statement, where: str) -> Action | None:
    """Read one action."""
    if not isinstance(statement, Entry):
        reader.misplaced(statement, where)
        return None
    if statement.key not in ACTIONS:
        hint = reader.suggest(statement.key, ACTIONS, "Actions are")
        reader.fail(statement, f"“{statement.key}” is not an action", hint)
        return None
    block = reader.single(statement)
    if not isinstance(block, Block):
        reader.fail(block, f"“{statement.key}” needs a block", f"Write `{statement.key}: {{ … }}`.")
        return None
    if statement.key == "track_activity":
        return _track_activity(reader, statement, block)
    return read_notification(reader, statement, block)


def _track_activity(reader: Reader, owner: Entry, block: Block) -> TrackActivity:
    construct = CONSTRUCTS["track_activity"]
    reader.only_entries(construct, block)
    fields = []
    for name, entry in reader.entries(construct, block, owner).items():
        value = _field(reader, entry)
        if value is not None:
            _check_constant(reader, ActivityIn, name, entry, value)
            fields.append((name, value))
    return TrackActivity(tuple(fields), reader.place(owner))


def read_notification(reader: Reader, owner: Entry, block: Block) -> SendNotification | None:
    """Read ``send_notification``; None where its recipient is missing or wrong."""
    construct = CONSTRUCTS["send_notification"]
    reader.only_entries(construct, block)
    entries = reader.entries(construct, block, owner)
    if "to" in entries and "user_id" in entries:
        reader.fail(entries["user_id"], "“user_id” and “to” are the same", "Remove one of them.")
    if "template" not in entries:
        for missing in ({"title", "message"}) - entries.keys():
            reader.fail(owner, f"“{missing}” is missing", f'Add `{missing}: "…"`, or a `template`.')
    recipient = entries.pop("to", None) or entries.get("user_id")
    entries.pop("user_id", None)
    to = None if recipient is None else _field(reader, recipient)
    kind, typed = _kind(reader, entries)
    fields = list(typed)
    for name, entry in entries.items():
        value = _field(reader, entry)
        if value is not None:
            _check_constant(reader, SendIn, name, entry, value)
            fields.append((name, value))
    if to is None or recipient is None:
        return None
    if isinstance(to, Name) and str(to) in GROUPS:
        return SendNotification(cast(Group, str(to)), tuple(fields), reader.place(owner), kind)
    _check_recipient(reader, recipient, to)
    return SendNotification(to, tuple(fields), reader.place(owner), kind)


def _kind(reader: Reader, entries: dict[str, Entry]) -> tuple[Kind | None, Named]:
    """Remove ``type`` from the entries: return the look that it names, or the notification type."""
    entry = entries.pop("type", None)
    value = None if entry is None else _field(reader, entry)
    if entry is None or value is None:
        return None, ()
    if isinstance(value, Constant) and value.value in KINDS:
        return cast(Kind, value.value), ()
    if "notification_type" in entries:
        hint = f"Remove one of them, or write one of {', '.join(KINDS)}."
        reader.fail(entry, "“type” and “notification_type” are the same", hint)
    _check_constant(reader, SendIn, "notification_type", entry, value)
    return None, (("notification_type", value),)


def _check_recipient(reader: Reader, entry: Entry, to: Expression) -> None:
    field = "user_ids" if isinstance(to, ListValue) else "user_id"
    _check_constant(reader, SendIn, field, entry, to)


def _field(reader: Reader, entry: Entry) -> Expression | None:
    """Read the value of an action's entry. Numbers as user ids, and words where no name can stand, are texts."""
    value = reader.expression(reader.single(entry))
    if entry.key in _WORDS:
        return words_as_texts(value)
    if entry.key in {"user_id", "to"}:
        return _ids_as_texts(value)
    return value


def words_as_texts(value: Expression | None) -> Expression | None:
    """Replace single words by texts, in lists too."""
    match value:
        case Name(parts=(word,), place=place):
            return Constant(word, place)
        case ListValue(items=items, place=place):
            return ListValue(tuple(cast(Expression, words_as_texts(item)) for item in items), place)
    return value


def _ids_as_texts(value: Expression | None) -> Expression | None:
    match value:
        case Constant(value=int() as number, place=place) if not isinstance(number, bool):
            return Constant(str(number), place)
        case ListValue(items=items, place=place):
            return ListValue(tuple(cast(Expression, _ids_as_texts(item)) for item in items), place)
    return value


def is_constant(value: Expression) -> bool:
    """Whether an expression has no names and no joins."""
    match value:
        case Constant():
            return True
        case MapValue(entries=entries):
            return all(is_constant(one) for _, one in entries)
        case ListValue(items=items):
            return all(is_constant(one) for one in items)
    return False


def _check_constant(reader: Reader, kind: type[Any], field: str, entry: Entry, value: Expression) -> None:
    """Check a constant as the field of a request."""
    if not is_constant(value):
        return
    try:
        convert({field: as_plain(value)}, kind)
    except ValidationError as refusal:
        for name, message in refusal.errors:
            first, _, rest = name.partition(".")
            if first == field:
                shown = f"{entry.key}.{rest}" if rest else entry.key
                reader.fail(entry.values[0], f"“{shown}” {worded(message)}", VALUES)


# --- data sources -----------------------------------------------------------------------------------------------------


def read_data_source(reader: Reader, entry: Entry) -> DataSource | None:
    """Read ``data: source`` or ``data: source {argument: value}``."""
    name, *rest = entry.values
    arguments = rest[0] if rest and isinstance(rest[0], Block) else None
    if arguments is not None:
        rest = rest[1:]
    if rest:
        reader.surplus(rest[0])
    if not isinstance(name, Word) or not IDENTIFIER.fullmatch(name.text):
        hint = "Write the name of a source: `data: recent_user_activities` (docs/flow.md)."
        reader.fail(name, f"{reader.shown(name)} is not a data source", hint)
        return None
    return data_source(reader, name, arguments)


def data_source(reader: Reader, name: Word, arguments: Block | None) -> DataSource | None:
    """Return the data source with arguments."""
    read = MapValue((), reader.place(name)) if arguments is None else reader.map(arguments)
    if read is None:
        return None
    values: Named = tuple((key, cast(Expression, words_as_texts(value))) for key, value in read.entries)
    return DataSource(name.text, values, reader.place(name))


# --- jobs -------------------------------------------------------------------------------------------------------------


def read_job(reader: Reader, declared: Declared, name: str) -> Job | None:
    """Read a job."""
    construct = CONSTRUCTS["job"]
    reader.only_entries(construct, declared.block)
    entries = reader.entries(construct, declared.block, declared)
    if ("schedule" in entries) == ("every" in entries):
        hint = 'Write `schedule: "*/5 * * * *"`, or `every: 5 minutes`.'
        both = "schedule" in entries
        reader.fail(declared, "a job has one schedule" if both else "this job has no schedule", hint)
    schedule = None
    if "schedule" in entries:
        schedule = _schedule(reader, entries["schedule"])
    elif "every" in entries:
        schedule = _every(reader, entries["every"], entries["every"].values)
    description = reader.text(entries["description"]) if "description" in entries else ""
    actions: tuple[Action, ...] = ()
    if "task" in entries:
        block = reader.single(entries["task"])
        if isinstance(block, Block):
            actions = _Task(reader).read(block)
        else:
            reader.fail(block, "“task” needs a block", "Write `task: { send_notification: { … } }`.")
    if schedule is None:
        return None
    return Job(name, schedule, description or "", actions, reader.place(declared.heads[0]))


def read_every(reader: Reader, declared: Declared) -> Job | None:
    """Read ``every 5 minutes { … }``."""
    schedule = _every(reader, declared, declared.heads)
    construct = CONSTRUCTS["every"]
    own = {"name", "description"}
    entries = reader.entries(
        construct, Block(tuple(s for s in declared.block.statements if isinstance(s, Entry) and s.key in own), 0, 0),
        declared,
    )  # fmt: skip
    rest = [s for s in declared.block.statements if not (isinstance(s, Entry) and s.key in own)]
    actions = _Task(reader).read(Block(tuple(rest), declared.block.start, declared.block.end))
    description = reader.text(entries["description"]) if "description" in entries else ""
    name = reader.name(entries["name"]) if "name" in entries else None
    if schedule is None:
        return None
    return Job(name or schedule.text, schedule, description or "", actions, reader.place(declared))


def _schedule(reader: Reader, entry: Entry) -> Schedule | None:
    value = reader.single(entry)
    text = value.text if isinstance(value, Word) else reader.unquote(value) if isinstance(value, Quoted) else None
    if text is None:
        reader.fail(value, f"{reader.shown(value)} is not a schedule", 'Write `schedule: "*/5 * * * *"`.')
        return None
    try:
        return parse_schedule(text)
    except ValidationError as refusal:
        hint = 'Fields are minute, hour, day of the month, month, weekday: "30 9 * * 1-5" is 9:30 on workdays.'
        reader.fail(value, str(refusal), hint)
        return None


def _every(reader: Reader, node: Node, values: tuple[Value, ...]) -> Schedule | None:
    """Read ``5 minutes``, ``hour``, ``day at "09:00"`` or ``monday at "09:00"``."""
    match values:
        case [Word(text=day), Word(text="at"), Quoted(text=at)] if day == "day" or day in WEEKDAYS:
            time = re.fullmatch(r'"([01]?\d|2[0-3]):([0-5]\d)"', at)
            if time is None:
                reader.fail(values[2], f"{at} is not a time of day", 'Write it as "09:00".')
                return None
            weekday = "*" if day == "day" else str(WEEKDAYS.index(day))
            cron = parse_schedule(f"{int(time[2])} {int(time[1])} * * {weekday}")
            return Schedule(f"every {day} at {int(time[1]):02}:{time[2]}", cron.cron)
    if values and isinstance(values[0], Word) and values[0].text in WEEKDAYS:
        reader.fail(values[0], "this weekday has no time", f'Write `every {values[0].text} at "09:00"`.')
        return None
    minutes = reader.minutes(node, values, 4 * WEEK_MINUTES)
    if minutes is None:
        return None
    words = " ".join(value.text for value in values if isinstance(value, Word | Number))
    return Schedule(f"every {words}", every_minutes=minutes)


class _Task:
    """Statements of a job. Variables hold data sources; those of the documented SQL hold None."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._variables: dict[str, DataSource | None] = {}

    def read(self, block: Block) -> tuple[Action, ...]:
        """Read the statements."""
        actions: list[Action] = []
        for statement in block.statements:
            match statement:
                case Loop():
                    actions += self._loop(statement)
                case Assignment():
                    self._assign(statement)
                case Query():
                    actions += self._query(statement)
                case _:
                    action = read_action(self._reader, statement, "a job")
                    actions += [] if action is None else [action]
        return tuple(actions)

    def _query(self, query: Query) -> list[Action]:
        """Read a documented statement, which FlashFlow carries out by itself."""
        match = re.fullmatch(r"(?:(\w+)\s*=\s*)?query\s*:\s*(.*)", query.text[:LONGEST_SQL], re.IGNORECASE)
        if match is not None and match[1] and _PENDING.fullmatch(match[2]):
            self._variables[match[1]] = None
            return [SendScheduled(self._reader.place(query))]
        self._reader.refuse_query(query)
        return []

    def _assign(self, statement: Assignment) -> None:
        entry = statement.entry
        if entry is None or entry.key != "data":
            hint = f"Write `{statement.variable} = data: SOURCE`, then `for row in {statement.variable} {{ … }}`."
            self._reader.fail(statement, f"“{statement.variable}” needs a data source", hint)
            return
        source = read_data_source(self._reader, entry)
        if source is not None:
            self._variables[statement.variable] = source

    def _loop(self, loop: Loop) -> list[Action]:
        reader, name = self._reader, loop.source.text
        if name in self._variables and self._variables[name] is None:
            self._scheduled(loop)
            return []
        source = self._variables.get(name) or data_source(reader, loop.source, loop.arguments)
        if name in self._variables and loop.arguments is not None:
            hint = f"Write them at `{name} = data: …`."
            reader.fail(loop.source, f"“{name}” has its arguments already", hint)
        if not IDENTIFIER.fullmatch(loop.variable.text):
            reader.fail(loop.variable, f"“{loop.variable.text}” is not a name", "Write `for row in SOURCE { … }`.")
        actions = read_actions(reader, loop.block, "a loop")
        if source is None:
            return []
        return [ForEach(loop.variable.text, source, actions, reader.place(loop))]

    def _scheduled(self, loop: Loop) -> None:
        """Check the loop over scheduled notifications; it has nothing to do."""
        for statement in loop.block.statements:
            if isinstance(statement, Query) and _MARK_SENT.fullmatch(statement.text[:LONGEST_SQL]):
                continue
            if isinstance(statement, Entry) and statement.key == "send_notification":
                read_action(self._reader, statement, "a loop")
            else:
                hint = "FlashFlow sends scheduled notifications by itself: remove this statement."
                self._reader.fail(statement, "this has no place in a loop over scheduled notifications", hint)
