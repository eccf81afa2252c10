"""Read the values of entries: texts, words, numbers, durations, lists, expressions. Every wrong one is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.flow.language.declarations import Constant, Expression, Join, ListValue, MapValue, Name, Scalar
from flashflow.backend.flow.language.errors import FlowError, Place
from flashflow.backend.flow.language.schedule import UNITS
from flashflow.backend.flow.language.source import MOST_ERRORS, Source
from flashflow.backend.flow.language.syntax import (
    Assignment,
    Block,
    Element,
    Entry,
    Items,
    Joined,
    Loop,
    Mark,
    Node,
    Number,
    Query,
    Quoted,
    Statement,
    Value,
    Word,
)
from flashflow.backend.flow.language.vocabulary import ELEMENTS, OTHER_WORDS, Construct
from flashflow.backend.schemas.validation import convert, nearest

T = TypeVar("T")

VALUES = "See docs/flow.md for its values."
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CONSTANTS: Mapping[str, Scalar] = {"true": True, "false": False, "null": None}
_PART = re.compile(r'\w+|"(?:\\.|[^"\\])*"')
_LARGEST = 2**53


class Reader:
    """Reader of one file; it collects ``errors``."""

    def __init__(self, source: Source, errors: list[FlowError]) -> None:
        self.source = source
        self.errors = errors

    # --- errors ---------------------------------------------------------------------------------------------------

    def place(self, node: Node) -> Place:
        return self.source.place(node.start, node.end)

    def fail(self, node: Node, message: str, hint: str) -> None:
        """Add an error at ``node``."""
        self.fail_at(self.place(node), message, hint)

    def fail_at(self, place: Place, message: str, hint: str) -> None:
        """Add an error at ``place``; of more than MOST_ERRORS none is shown."""
        if len(self.errors) <= MOST_ERRORS:
            self.errors.append(FlowError(place, message, hint))

    # --- entries of a construct -----------------------------------------------------------------------------------

    def entries(self, construct: Construct, block: Block, owner: Node) -> dict[str, Entry]:
        """Return the entries of a block by name. Unknown, repeated and missing entries are errors."""
        found: dict[str, Entry] = {}
        for statement in block.statements:
            if not isinstance(statement, Entry):
                continue
            rule = construct.entry(statement.key)
            if rule is None:
                self._unknown(construct, statement)
            elif statement.key in found and not rule.repeated:
                line = self.place(found[statement.key]).line
                self.fail(statement, f"“{statement.key}” is given in line {line} already", "Remove one of them.")
            else:
                found.setdefault(statement.key, statement)
        for rule in construct.entries:
            if rule.required and rule.name not in found and not (rule.name == "to" and "user_id" in found):
                plain = rule.form.startswith(('"', "{"))
                hint = f"Add `{rule.name}: {rule.form}`." if plain else f"Add `{rule.name}: …`: {rule.form}."
                self.fail(owner, f"“{rule.name}” is missing", hint)
        return found

    def only_entries(self, construct: Construct, block: Block) -> None:
        """Add an error for each statement of the block that is no entry."""
        for statement in block.statements:
            if not isinstance(statement, Entry):
                self.misplaced(statement, construct.name)

    def misplaced(self, statement: Statement, where: str) -> None:
        """Add the error of a statement that has no place in a construct."""
        match statement:
            case Element(keyword=keyword):
                known = keyword.text in ELEMENTS
                message = f"“{keyword.text}” is not an entry of {where}"
                hint = "Elements are part of a page." if known else "Write entries as `name: value`."
                self.fail(statement, message, OTHER_WORDS.get(keyword.text, hint))
            case Loop():
                self.fail(statement, f"{where} has no loops", "Loops are part of a job: `task: { for … }`.")
            case Assignment(variable=variable):
                self.fail(statement, f"“{variable} = …” has no place in {where}", "Write entries as `name: value`.")
            case Query():
                self.refuse_query(statement)
            case Entry(key=key):
                self.fail(statement, f"“{key}” is not an entry of {where}", "Remove it.")

    def refuse_query(self, query: Query) -> None:
        hint = "Use `data:` with a data source: `rows = data: user_engagement_metrics` (docs/flow.md)."
        self.fail(query, "SQL is not run", hint)

    def _unknown(self, construct: Construct, entry: Entry) -> None:
        names = tuple(rule.name for rule in construct.entries)
        message = f"“{entry.key}” is not an entry of {construct.name}"
        self.fail(entry, message, OTHER_WORDS.get(entry.key) or self.suggest(entry.key, names, "Entries are"))

    def suggest(self, name: str, known: Sequence[str], listed: str) -> str:
        """Return a hint: the name nearest to ``name``, else the list of known names."""
        near = nearest(name, tuple(known))
        if near is not None:
            return f"Did you mean “{near}”?"
        return f"{listed} {', '.join(known)}." if known else "There are none."

    # --- values ---------------------------------------------------------------------------------------------------

    def single(self, entry: Entry) -> Value:
        """Return the first value of an entry; further ones are an error."""
        if len(entry.values) > 1:
            self.surplus(entry.values[1])
        return entry.values[0]

    def surplus(self, value: Value) -> None:
        """Add the error of a value that follows another one."""
        shown = self.shown(value)
        hint = "Write one value after a colon; the next entry begins with `name:`."
        if isinstance(value, Word):
            near = nearest(value.text, ELEMENTS)
            listed = f"{hint} Elements are {', '.join(ELEMENTS)}."
            hint = OTHER_WORDS.get(value.text) or (f"Did you mean “{near}”?" if near else listed)
        self.fail(value, f"{shown} is not expected after the value", hint)

    def shown(self, node: Value) -> str:
        """Return a value as a message shows it."""
        match node:
            case Block():
                return "a block"
            case Items():
                return "a list"
            case Joined():
                return "an expression"
            case Quoted():
                return "a text"
            case _:
                return f"“{node.text[:40]}”"

    def text(self, entry: Entry) -> str | None:
        """Read a text in double quotes."""
        value = self.single(entry)
        if not isinstance(value, Quoted):
            example = value.text if isinstance(value, Word | Number) else "…"
            self.fail(value, f"“{entry.key}” needs a text", f'Write it in double quotes: `{entry.key}: "{example}"`.')
            return None
        return self.unquote(value)

    def unquote(self, node: Quoted) -> str | None:
        """Return the characters of a text."""
        try:
            text: str = json.loads(node.text, strict=False)
            text.encode()
        except ValueError:
            hint = r"Write a backslash as `\\`; escapes are \" \\ \/ \n \t \r \b \f \uXXXX."
            self.fail(node, "this text has an unknown escape", hint)
            return None
        return text

    def word(self, entry: Entry, choices: Sequence[str]) -> str | None:
        """Read one of ``choices``, with or without quotes."""
        value = self.single(entry)
        text = value.text.strip('"') if isinstance(value, Word | Quoted) else None
        if text not in choices:
            listed = ", ".join(choices)
            self.fail(value, f"{self.shown(value)} is not a value of “{entry.key}”", f"Write one of {listed}.")
            return None
        return text

    def truth(self, entry: Entry) -> bool | None:
        """Read ``true`` or ``false``."""
        word = self.word(entry, ("true", "false"))
        return None if word is None else word == "true"

    def integer(self, entry: Entry, first: int, last: int) -> int | None:
        """Read a whole number between ``first`` and ``last``."""
        value = self.single(entry)
        if isinstance(value, Number) and re.fullmatch(r"-?\d{1,15}", value.text) and first <= int(value.text) <= last:
            return int(value.text)
        self.fail(
            value,
            f"{self.shown(value)} is not a value of “{entry.key}”",
            f"Write a whole number from {first} to {last}.",
        )
        return None

    def name(self, entry: Entry) -> str | None:
        """Read one word."""
        value = self.single(entry)
        if isinstance(value, Word) and IDENTIFIER.fullmatch(value.text):
            return value.text
        self.fail(value, f"{self.shown(value)} is not a name", f"Write a word without quotes: `{entry.key}: name`.")
        return None

    def names(self, entry: Entry) -> tuple[tuple[str, Place], ...] | None:
        """Read a list of words, each once."""
        value = self.single(entry)
        items = value.items if isinstance(value, Items) else (value,) if isinstance(value, Word | Quoted) else None
        if not items:
            self.fail(value, f"“{entry.key}” needs a list of names", f"Write `{entry.key}: [name, name]`.")
            return None
        found: dict[str, Place] = {}
        for item in items:
            name = item.text.strip('"') if isinstance(item, Word | Quoted) else ""
            if not IDENTIFIER.fullmatch(name):
                self.fail(item, f"{self.shown(item)} is not a name", "Write words with commas between: `[name, name]`.")
            elif name in found:
                self.fail(item, f"“{name}” is named twice", "Remove one of them.")
            else:
                found[name] = self.place(item)
        return tuple(found.items())

    def minutes(self, node: Node, values: Sequence[Value], most: int, *, zero: bool = False) -> int | None:
        """Read a duration such as ``10 minutes`` or ``hour``, up to ``most`` minutes."""
        match values:
            case [Number(text="0")] if zero:
                return 0
            case [Number(text=count), Word(text=unit)] if count.isdigit() and len(count) < 8 and _unit(unit):
                minutes = int(count) * UNITS[_unit(unit)]
            case [Word(text=unit)] if unit in UNITS:
                minutes = UNITS[unit]
            case _:
                hint = f"Write a number and a unit, such as `10 minutes`; units are {', '.join(UNITS)}."
                self.fail(values[0] if values else node, "this is not a duration", hint)
                return None
        if not 1 <= minutes <= most:
            hint = f"It must be between 1 minute and {most // UNITS['day']} days."
            self.fail(values[0], "this duration is out of range", hint)
            return None
        return minutes

    # --- expressions ----------------------------------------------------------------------------------------------

    def expression(self, node: Value) -> Expression | None:
        """Read an expression."""
        place = self.place(node)
        read: Expression | None = None
        match node:
            case Quoted():
                text = self.unquote(node)
                read = None if text is None else Constant(text, place)
            case Number():
                read = self._number(node)
            case Word(text=text):
                read = Constant(_CONSTANTS[text], place) if text in _CONSTANTS else self._name(node)
            case Joined(parts=nodes):
                parts = self._all(nodes)
                read = None if parts is None else Join(parts, place)
            case Items(items=nodes):
                parts = self._all(nodes)
                read = None if parts is None else ListValue(parts, place)
            case Block():
                read = self.map(node)
            case Mark():
                self.fail(node, f"“{node.text}” is not expected in an expression", "Write texts, names and “+”.")
        return read

    def _all(self, nodes: Sequence[Value]) -> tuple[Expression, ...] | None:
        read = [self.expression(node) for node in nodes]
        found = tuple(one for one in read if one is not None)
        return found if len(found) == len(read) else None

    def _number(self, node: Number) -> Constant | None:
        digits = node.text
        value: float = float(digits) if re.search(r"[.eE]", digits) or len(digits) > 17 else int(digits)
        if abs(value) > _LARGEST:
            self.fail(node, "this number is out of range", 'Write it as a text: "…".')
            return None
        return Constant(value, self.place(node))

    def _name(self, node: Word) -> Name | None:
        parts = [part if part[0] != '"' else json.loads(part, strict=False) for part in _PART.findall(node.text)]
        return Name(tuple(parts), self.place(node))

    def map(self, block: Block) -> MapValue | None:
        """Read a map of expressions."""
        entries: dict[str, Expression] = {}
        count = len(self.errors)
        for statement in block.statements:
            if not isinstance(statement, Entry):
                self.misplaced(statement, "a map")
                continue
            key = self.key(statement)
            if key in entries:
                self.fail(statement, f"“{key}” is given twice", "Remove one of them.")
            value = self.expression(self.single(statement))
            if key is not None and value is not None:
                entries[key] = value
        return MapValue(tuple(entries.items()), self.place(block)) if len(self.errors) == count else None

    def key(self, entry: Entry) -> str | None:
        """Return the key of a map's entry; it may be quoted."""
        if not entry.key.startswith('"'):
            return entry.key
        return self.unquote(Quoted(entry.key, entry.start, entry.end))

    def plain(self, node: Value) -> Any:
        """Read a value without names to evaluate: words are texts. Raises nothing; an error leaves None."""
        expression = self.expression(node)
        return None if expression is None else as_plain(expression)

    def request(
        self,
        kind: type[T],
        owner: Node,
        entries: Mapping[str, Entry],
        given: Mapping[str, Any],
        fields: Mapping[str, str],
    ) -> T | None:
        """Build a request from plain values. ``fields``: entry → field, where these differ. A refused field is an error
        at its entry, others are at ``owner``."""
        body = {fields.get(name, name): value for name, value in given.items()}
        by_field = {fields.get(name, name): entry for name, entry in entries.items()}
        try:
            return convert(body, kind)
        except ValidationError as refusal:
            for field, message in refusal.errors:
                first, _, rest = field.partition(".")
                entry = by_field.get(first)
                node = owner if entry is None else entry.values[0]
                name = first if entry is None else entry.key
                self.fail(node, f"“{name}{'.' if rest else ''}{rest}” {worded(message)}", VALUES)
            return None


def worded(message: str) -> str:
    """Return msgspec's message about a field in the words of the other messages."""
    for pattern, words in _WORDED:
        if match := re.fullmatch(pattern, message):
            return match.expand(words)
    return message


_WORDED = (
    (r"Invalid enum value '(.*)'; there are (.*)", r"cannot be “\1”; it is one of \2"),
    (r"Expected '(?:int|float)' >= (\S+)", r"must be at least \1"),
    (r"Expected '(?:int|float)' <= (\S+)", r"must be at most \1"),
    (r"Expected '(?:str|array)' of length >= 1", r"must not be empty"),
    (r"Expected 'str' of length <= (\d+)", r"must have at most \1 characters"),
    (r"Expected 'array' of length <= (\d+)", r"must have at most \1 entries"),
    (r"Expected 'array' of length >= (\d+)", r"must have at least \1 entries"),
    (r"Expected 'str(?: \| null)?', got '.*'", r"must be a text"),
    (r"Expected 'int(?: \| null)?', got '.*'", r"must be a whole number"),
    (r"Expected 'bool(?: \| null)?', got '.*'", r"must be true or false"),
    (r"Expected 'object(?: \| null)?', got '.*'", r"must be a map: {key: value}"),
    (r"Expected 'array(?: \| null)?', got '.*'", r"must be a list: [value, value]"),
    (r"Expected '(?:datetime|date)(?: \| null)?', got '.*'", r"must be a time in quotes"),
    (r"Invalid RFC3339 encoded datetime", r"must be a time with an offset, such as 2026-12-24T18:00:00Z"),
    (r"Invalid RFC3339 encoded date", r"must be a day, such as 2026-12-24"),
    (r"needs a time with an offset.*", r"must be a time with an offset, such as 2026-12-24T18:00:00Z"),
)


def as_plain(expression: Expression) -> Any:
    """Return the JSON value of an expression; names are texts, and a join is None."""
    match expression:
        case Constant(value=value):
            return value
        case Name():
            return str(expression)
        case MapValue(entries=entries):
            return {name: as_plain(value) for name, value in entries}
        case ListValue(items=items):
            return [as_plain(item) for item in items]
        case Join():
            return None


def _unit(word: str) -> str:
    """Return the unit of a word in singular; empty for an unknown one."""
    singular = word.removesuffix("s")
    return singular if singular in UNITS else ""
