"""Parse the parts of a ``.flow`` file with grammar.lark. Importing this module loads lark."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.utils import TextSlice

from flashflow.backend.flow.language.errors import FlowError
from flashflow.backend.flow.language.source import Part, Source
from flashflow.backend.flow.language.syntax import (
    Assignment,
    Attribute,
    Block,
    Declared,
    Element,
    Entry,
    Items,
    Joined,
    Loop,
    Mark,
    Number,
    Query,
    Quoted,
    Value,
    Word,
)
from flashflow.backend.flow.language.vocabulary import DECLARATIONS

_TWO_KEYS = re.compile(r"([^\W\d][\w-]*)[ \t]*:\s*[^\W\d]\w*[ \t]*\Z")
_QUOTES = "'‘’“”«»„`"


def parse(source: Source, parts: list[Part], errors: list[FlowError]) -> list[Declared]:
    """Parse each part; add the first syntax error of each."""
    found: list[Declared] = []
    for part in parts:
        try:
            found += _lark().parse(TextSlice(source.text, part.start, part.end))  # type: ignore[arg-type]
        except UnexpectedInput as error:
            errors.append(_explain(source, part, error))
    return found


@cache
def _lark() -> Lark:
    grammar = (files("flashflow.backend.flow.language") / "grammar.lark").read_text("utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder(), maybe_placeholders=False)


def grammar_rules() -> tuple[str, ...]:
    """Return the names of the grammar's rules."""
    return tuple(sorted({rule.origin.name for rule in _lark().rules}))


_LEAVES: dict[str, type[Word | Quoted | Number | Mark]] = {
    "WORD": Word,
    "ELEMENT": Word,
    "FOR": Word,
    "STRING": Quoted,
    "NUMBER": Number,
    "COMPARISON": Mark,
    "CHOICES": Mark,
    "DEFAULT": Mark,
}


def _leaf(token: Any) -> Any:
    """Return the node of a token; nodes stay as they are."""
    if not isinstance(token, Token):
        return token
    assert token.start_pos is not None
    assert token.end_pos is not None
    return _LEAVES[token.type](str(token), token.start_pos, token.end_pos)


def _key(token: Token) -> str:
    """Return the key of an entry without its colon."""
    return str(token)[:-1].rstrip()


class _Builder(Transformer[Token, Any]):
    """Build the nodes of syntax.py while lark parses. Each method receives the children of its rule."""

    def start(self, children: list[Declared]) -> list[Declared]:
        return children

    def declaration(self, children: list[Any]) -> Declared:
        keyword, *heads, block = children
        return Declared(_leaf(keyword), tuple(heads), block)

    def head(self, children: list[Token]) -> Any:
        return _leaf(children[0])

    def block(self, children: list[Any]) -> Block:
        opened, *statements, closed = children
        return Block(tuple(statements), opened.start_pos, closed.end_pos)

    def entry(self, children: list[Any]) -> Entry:
        key, values = children
        return Entry(_key(key), values, key.start_pos, key.start_pos + len(_key(key)))

    def value(self, children: list[Any]) -> tuple[Value, ...]:
        return tuple(_leaf(child) for child in children)

    def join(self, children: list[Any]) -> Joined:
        parts = tuple(_leaf(child) for child in children)
        return Joined(parts, parts[0].start, parts[-1].end)

    label = join

    def items(self, children: list[Any]) -> Items:
        opened, *items, closed = children
        return Items(tuple(_leaf(item) for item in items), opened.start_pos, closed.end_pos)

    def element(self, children: list[Any]) -> Element:
        keyword, *rest = (_leaf(child) for child in children)
        name = rest[0] if rest and isinstance(rest[0], Word) else None
        label = next((part for part in rest if isinstance(part, Quoted | Joined)), None)
        block = rest[-1] if rest and isinstance(rest[-1], Block) else None
        return Element(keyword, name, label, tuple(part for part in rest if isinstance(part, Attribute)), block)

    def attribute(self, children: list[Any]) -> Attribute:
        name, value = children
        text = str(name).rstrip().removesuffix("=").rstrip()
        return Attribute(text, _leaf(value), name.start_pos, name.start_pos + len(text))

    def loop(self, children: list[Any]) -> Loop:
        keyword, variable, source, *blocks = children
        arguments = blocks[0] if len(blocks) > 1 else None
        return Loop(_leaf(variable), _leaf(source), arguments, blocks[-1], keyword.start_pos, source.end_pos)

    def assignment(self, children: list[Any]) -> Assignment:
        variable, given = children
        text = str(variable).rstrip().removesuffix("=").rstrip()
        entry = given if isinstance(given, Entry) else None
        return Assignment(text, entry, variable.start_pos, variable.start_pos + len(text))

    def query(self, children: list[Token]) -> Query:
        token = children[0]
        text = str(token).rstrip()
        assert token.start_pos is not None
        return Query(text, token.start_pos, token.start_pos + len(text))


# --- messages ---------------------------------------------------------------------------------------------------------


def _explain(source: Source, part: Part, error: UnexpectedInput) -> FlowError:
    """Return the message of a syntax error."""
    if isinstance(error, UnexpectedCharacters):
        return _character(source, error.pos_in_stream or part.start)
    assert isinstance(error, UnexpectedToken)
    token = error.token
    stack: list[Any] = error.state.value_stack
    before = stack[-1] if stack else None
    if token.type == "$END":
        end = len(source.text[: part.end].rstrip())
        start = end - 1
    else:
        start, end = token.start_pos or 0, token.end_pos or 0
    message, hint = _message(token, before, error.expected)
    if isinstance(before, Token) and before.type == "KEY":
        start, end = before.start_pos or 0, before.end_pos or 0
    return FlowError(source.place(start, end), message, hint)


def _message(token: Token, before: Any, expected: set[str]) -> tuple[str, str]:
    shown = _shown(token)
    last = before.type if isinstance(before, Token) else ""
    if before is None:
        message = f"{shown} is outside of a declaration"
        hint = f"A file has declarations such as `model User {{ … }}`: {', '.join(DECLARATIONS)}."
    elif token.type == "$END":
        message, hint = "this declaration has no block", "Write a block in braces after its name: `{ … }`."
    elif last == "KEY":
        message, hint = f"“{_key(before)}” has no value", f"Write the value after the colon: `{_key(before)}: …`."
    elif last == "PLUS":
        message, hint = f"“+” is followed by {shown}", "Write a text or a name on both sides of “+”."
    elif {"COMMA", "RSQUARE"} & expected and "KEY" not in expected:
        message = f"{shown} is not expected in a list"
        hint = "Separate the values of a list by commas: `[a, b]`."
    elif last in {"FOR", "IN"} or (expected <= {"IN", "LBRACE"} and "IN" in expected):
        message, hint = f"{shown} is not expected in a loop", "Write `for row in SOURCE { … }`."
    elif "LBRACE" in expected and not {"KEY", "RBRACE"} & expected:
        message, hint = f"{shown} is not expected before the block", "Write a block in braces: `{ … }`."
    elif last == "ASSIGNMENT":
        message, hint = f"{shown} is not expected after “=”", "Write `rows = data: SOURCE`."
    elif token.type == "COMMA":
        message = "this comma separates nothing"
        hint = "Remove it; commas stand between the values of a list or a map."
    else:
        message = f"{shown} is not expected here"
        hint = "Write entries as `name: value` and elements as `name { … }`."
    return message, hint


def _shown(token: Token) -> str:
    text = str(token).strip()
    return f"“{text[:40]}{'…' if len(text) > 40 else ''}”"


def _character(source: Source, at: int) -> FlowError:
    sign = source.text[at]
    message, hint = f"“{sign}” is not expected here", 'Put texts in double quotes: "…".'
    if sign in _QUOTES:
        message = f"“{sign}” does not begin a text"
    elif sign == ";":
        hint = "Remove it: an entry ends where the next one begins."
    elif sign == ":" and (keys := _TWO_KEYS.search(source.text, max(0, at - 200), at)):
        name = keys[1]
        hint = f"Write the value after the colon: `{name}: …`."
        return FlowError(source.place(keys.start(1), keys.end(1)), f"“{name}” has no value", hint)
    elif sign == ":":
        hint = "Write one name before the colon: `name: value`."
    elif sign in "()":
        hint = "Expressions have names, texts, numbers and “+”; there are no calls and no parentheses."
    elif sign.isdigit() or sign == "-":
        message = "this number is followed by letters"
        hint = 'Write a space before a unit, as in `5 minutes`, or put a text in double quotes: "…".'
    elif sign == "/":
        hint = 'Put paths in double quotes: "/…".'
    return FlowError(source.place(at, at + 1), message, hint)
