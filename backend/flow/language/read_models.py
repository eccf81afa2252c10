"""Read models, and the fields of models, requests and responses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import cast

from flashflow.backend.flow.language.declarations import Field, FieldType, Model, Reference, Scalar
from flashflow.backend.flow.language.reader import IDENTIFIER, Reader
from flashflow.backend.flow.language.syntax import Block, Declared, Entry, Mark, Value, Word
from flashflow.backend.flow.language.vocabulary import FIELD_TYPES, MODIFIERS, SAME_MODIFIERS

MOST_FIELDS = 200
"""Fields of one model, request or response."""
_TEXTS = frozenset({"string", "text"})
_AUTOMATIC = frozenset({"timestamp", "datetime", "date", "uuid", "string", "text"})
_NUMBERED = frozenset({"integer", "decimal"})


def read_model(reader: Reader, declared: Declared, name: str) -> Model:
    """Read a model."""
    fields = read_fields(reader, declared.block, f"model {name}")
    if not declared.block.statements:
        reader.fail(declared, f"model {name} has no fields", "Add one: `name: string required`.")
    primary = [field for field in fields if field.primary]
    for field in primary[1:]:
        reader.fail_at(field.place, f"“{primary[0].name}” is the primary field already", "Remove one `primary`.")
    return Model(name, singular(name), plural(singular(name)), fields, reader.place(declared.heads[0]))


def singular(name: str) -> str:
    """Return ``user_activity`` for ``UserActivity``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def plural(word: str) -> str:
    """Return the plural of an English word."""
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}es" if re.search(r"(?:s|x|z|ch|sh)$", word) else f"{word}s"


def read_fields(reader: Reader, block: Block, where: str) -> tuple[Field, ...]:
    """Read the fields of a block."""
    found: dict[str, Field] = {}
    for statement in block.statements:
        if not isinstance(statement, Entry):
            reader.misplaced(statement, where)
        elif (field := _Field(reader, statement).read()) is None:
            continue
        elif field.name in found:
            line = found[field.name].place.line
            reader.fail(statement, f"field “{field.name}” is declared in line {line} already", "Rename one of them.")
        elif len(found) == MOST_FIELDS:
            reader.fail(statement, f"{where} has more than {MOST_FIELDS} fields", "Use a field of type json.")
            break
        else:
            found[field.name] = field
    return tuple(found.values())


class _Field:
    """One field: ``name: type modifier…``."""

    def __init__(self, reader: Reader, entry: Entry) -> None:
        self._reader = reader
        self._entry = entry
        self._flags: set[str] = set()
        self._choices: tuple[str, ...] = ()
        self._default: tuple[Mark, str] | None = None
        self._references: Reference | None = None

    def read(self) -> Field | None:
        reader, entry = self._reader, self._entry
        errors = len(reader.errors)
        if entry.key in {"enum", "default"}:
            hint = f"Write it without spaces after the type: `{entry.key}:{'a,b,c' if entry.key == 'enum' else '5'}`."
            reader.fail(entry, f"“{entry.key}:” is followed by a space", hint)
            return None
        if not IDENTIFIER.fullmatch(entry.key):
            hint = "Names have letters, digits and “_”, and begin with a letter."
            reader.fail(entry, f"“{entry.key[:64]}” is not the name of a field", hint)
        kind = self._type(entry.values[0])
        rest = iter(entry.values[1:])
        if kind == "reference":
            self._references = self._reference(next(rest, entry.values[0]), "reference Product")
        for value in rest:
            self._modifier(value, rest)
        if len(reader.errors) > errors or kind is None:
            return None
        self._check(kind)
        return Field(
            entry.key, kind, reader.place(entry),
            required="required" in self._flags, unique="unique" in self._flags, primary="primary" in self._flags,
            auto="auto" in self._flags, default=self._default_value(kind), choices=self._choices,
            references=self._references,
        )  # fmt: skip

    def _type(self, value: Value) -> FieldType | None:
        if isinstance(value, Word) and value.text in FIELD_TYPES:
            return cast(FieldType, value.text)
        word = value.text if isinstance(value, Word) else ""
        hint = self._reader.suggest(word, tuple(FIELD_TYPES), "Types are")
        self._reader.fail(value, f"{self._reader.shown(value)} is not a type", hint)
        return None

    def _modifier(self, value: Value, rest: Iterator[Value]) -> None:
        reader = self._reader
        text = value.text if isinstance(value, Word | Mark) else ""
        word = SAME_MODIFIERS.get(text, text)
        if isinstance(value, Mark) and text.startswith("enum:"):
            self._choices = tuple(text.removeprefix("enum:").split(","))
            if len(set(self._choices)) < len(self._choices):
                reader.fail(value, "this enum has a word twice", "Remove one of them.")
        elif isinstance(value, Mark) and text.startswith("default:"):
            self._default = (value, text.removeprefix("default:"))
        elif word == "references":
            self._references = self._reference(next(rest, value), "references User.id")
        elif word in {"required", "unique", "primary", "auto"}:
            self._flags.add(word)
        else:
            hint = reader.suggest(text, tuple(MODIFIERS), "Modifiers are")
            reader.fail(value, f"{reader.shown(value)} is not a modifier", hint)

    def _reference(self, value: Value, example: str) -> Reference | None:
        if isinstance(value, Word):
            model, _, field = value.text.partition(".")
            if value.text not in {"references", "reference"} and "." not in field:
                return Reference(model, field or "id")
        self._reader.fail(value, "the model of this reference is missing", f"Write `{example}`.")
        return None

    def _check(self, kind: FieldType) -> None:
        reader, entry = self._reader, self._entry
        if self._choices and kind not in _TEXTS:
            reader.fail(entry, f"a field of type {kind} has no enum", "Use the type string.")
        numbered = kind in _NUMBERED and "primary" in self._flags
        if "auto" in self._flags and kind not in _AUTOMATIC and not numbered:
            hint = "Add `primary`, or remove `auto`." if kind in _NUMBERED else "Remove `auto`."
            reader.fail(entry, f"a field of type {kind} cannot be filled in", hint)

    def _default_value(self, kind: FieldType) -> Scalar:
        if self._default is None:
            return None
        mark, text = self._default
        value = _parse_default(kind, text)
        if value is None:
            hint = f"Write a {FIELD_TYPES[kind]}.".replace("a `", "`")
            self._reader.fail(mark, f"“{text[:40]}” is not a default of type {kind}", hint)
        elif self._choices and value not in self._choices:
            listed = ", ".join(self._choices)
            self._reader.fail(mark, f"the default “{text[:40]}” is not in the enum", f"Write one of {listed}.")
        return value


def _parse_default(kind: FieldType, text: str) -> Scalar:
    """Return the value of a default; None for one that does not fit the type."""
    value: Scalar = None
    match kind:
        case "integer" if re.fullmatch(r"-?[0-9]{1,15}", text):
            value = int(text)
        case "decimal" if re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{1,30})?", text):
            value = float(text)
        case "boolean":
            value = {"true": True, "false": False}.get(text)
        case "integer" | "decimal" | "json" | "object" | "array" | "reference":
            pass
        case _:
            value = _unquoted(text)
    return value


def _unquoted(text: str) -> str | None:
    if not text.startswith('"'):
        return text
    try:
        quoted: str = json.loads(text, strict=False)
        quoted.encode()
    except ValueError:
        return None
    return quoted
