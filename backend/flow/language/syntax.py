"""Syntax tree of a ``.flow`` file. ``start`` and ``end`` are offsets into the text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """Word, dotted or not: a name, a keyword, ``true``."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Quoted:
    """Text in double quotes, as written, with them."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Number:
    """Number, as written."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Comparison, or a modifier ``enum:…`` or ``default:…``, as written."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Items:
    """List in brackets."""

    items: tuple[Value, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts joined with ``+``."""

    parts: tuple[Value, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Block:
    """Statements in braces."""

    statements: tuple[Statement, ...]
    start: int
    end: int


Value = Word | Quoted | Number | Mark | Items | Joined | Block


@dataclass(frozen=True, slots=True)
class Entry:
    """``key: value``; ``start`` and ``end`` are those of the key. Only some entries may have several values."""

    key: str
    values: tuple[Value, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """``name="value"`` of an element."""

    name: str
    value: Quoted
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Element:
    """``keyword name "label" attribute="…" { … }``; everything but the keyword may be absent."""

    keyword: Word
    name: Word | None
    label: Value | None
    attributes: tuple[Attribute, ...]
    block: Block | None

    @property
    def start(self) -> int:
        return self.keyword.start

    @property
    def end(self) -> int:
        return self.keyword.end


@dataclass(frozen=True, slots=True)
class Loop:
    """``for variable in source {arguments} { … }``; ``start`` and ``end`` span ``for variable in source``."""

    variable: Word
    source: Word
    arguments: Block | None
    block: Block
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """``variable = key: value``; ``entry`` is None for another value."""

    variable: str
    entry: Entry | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Query:
    """SQL statement to the end of its line, with ``variable = query:`` where the file has it."""

    text: str
    start: int
    end: int


Statement = Entry | Element | Loop | Assignment | Query


@dataclass(frozen=True, slots=True)
class Declared:
    """Declaration at the top of a file: its keyword, the words up to its block, and the block."""

    keyword: Word
    heads: tuple[Word | Quoted | Number, ...]
    block: Block

    @property
    def start(self) -> int:
        return self.keyword.start

    @property
    def end(self) -> int:
        return self.keyword.end


Node = Value | Entry | Attribute | Element | Loop | Assignment | Query | Declared
