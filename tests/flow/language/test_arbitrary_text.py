"""Arbitrary text is refused with errors and nothing else; a printed declaration is read back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flashflow.backend.flow.language.checker import check
from flashflow.backend.flow.language.declarations import Constant, Model, SendNotification
from flashflow.backend.flow.language.errors import FlowError, render_all
from flashflow.backend.flow.language.read_actions import is_constant
from flashflow.backend.flow.language.read_file import read_file
from flashflow.backend.flow.language.reader import as_plain
from flashflow.backend.flow.language.source import Source, decode_source
from flashflow.backend.flow.language.vocabulary import CONSTRUCTS, FIELD_TYPES, MODIFIERS

MALFORMED = (Path(__file__).parent / "malformed.txt").read_text("utf-8")
WORDS = [
    *CONSTRUCTS, *FIELD_TYPES, *MODIFIERS, *(rule.name for one in CONSTRUCTS.values() for rule in one.entries),
    "{", "}", "[", "]", ":", ",", "+", "=", "==", '"', '"x"', "#", "\n", "5", "-1", "1.5e3", "Product",
    "current_user.id", "all_products", "trend", "enum:a,b", "default:1", "activity", "minutes", "at", "in", "desc",
    "query: SELECT x FROM y",
]  # fmt: skip


def read(text: str) -> tuple[list[Any], list[FlowError]]:
    """Declarations and errors of a file."""
    errors: list[FlowError] = []
    source = Source("a.flow", text)
    declarations = read_file(source, errors)
    _, between = check(["a.flow"], declarations, None, complete=not errors)
    for error in (*errors, *between):
        line = source.line(error.place.line)
        assert 1 <= error.place.column <= len(line) + 1
        assert error.message
        assert error.hint
    render_all(errors)
    return declarations, [*errors, *between]


@given(st.text(max_size=300))
def test_any_text_has_declarations_or_errors(text: str) -> None:
    read(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_source_or_an_error(raw: bytes) -> None:
    assert isinstance(decode_source(raw, "a.flow"), Source | FlowError)


@given(st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join))
def test_any_order_of_words_has_declarations_or_errors(text: str) -> None:
    read(text)
    read(f"page Home {{ {text} }}")
    read(f"job Report {{ every: 1 day task: {{ {text} }} }}")


@given(st.integers(0, len(MALFORMED)), st.integers(0, 400), st.sampled_from(WORDS))
def test_any_part_of_a_file_with_a_word_in_it_has_declarations_or_errors(start: int, length: int, word: str) -> None:
    part = MALFORMED[start : start + length]
    read(part[: length // 2] + word + part[length // 2 :])


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True).filter(lambda name: name not in {"enum", "default"})
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


def printed(value: Any) -> str:
    """A JSON value as an expression."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {printed(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(printed, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_a_printed_value_is_read_back(value: dict[str, Any]) -> None:
    text = f'every 1 day {{ send_notification: {{ to: "u" title: "a" message: "b" data: {printed(value)} }} }}'
    (job,), errors = read(text)
    assert errors == []
    (action,) = job.actions
    assert isinstance(action, SendNotification)
    assert action.to == Constant("u", action.to.place)  # type: ignore[union-attr]
    data = dict(action.fields)["data"]
    assert is_constant(data)
    assert as_plain(data) == value


PLAIN_TYPES = sorted(set(FIELD_TYPES) - {"reference"})


@st.composite
def fields(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """The text of a field, and its attributes."""
    name, kind = draw(NAMES), draw(st.sampled_from(PLAIN_TYPES))
    flags = draw(st.permutations(draw(st.lists(st.sampled_from(["required", "unique"]), unique=True))))
    choices = draw(st.lists(NAMES, unique=True, max_size=3)) if kind in {"string", "text"} else []
    words = [*flags, *([f"enum:{','.join(choices)}"] if choices else [])]
    separator = draw(st.sampled_from([" ", "  ", "\t"]))
    attributes = {
        "name": name, "type": kind, "required": "required" in flags, "unique": "unique" in flags,
        "choices": tuple(choices),
    }  # fmt: skip
    return f"{name}:{separator}{separator.join([kind, *words])}", attributes


@given(
    st.lists(fields(), min_size=1, max_size=6, unique_by=lambda field: field[1]["name"]),
    st.sampled_from(["\n", " ", "\r\n"]),
)
def test_a_printed_model_is_read_back(rows: list[tuple[str, dict[str, Any]]], separator: str) -> None:
    (model,), errors = read(f"model Thing {{{separator}{separator.join(text for text, _ in rows)}{separator}}}")
    assert errors == []
    assert isinstance(model, Model)
    found = [
        {name: getattr(field, name) for name in attributes}
        for field, (_, attributes) in zip(model.fields, rows, strict=True)
    ]
    assert found == [attributes for _, attributes in rows]
