"""Fields of models: every type accepts its values and refuses others, and texts of inputs become typed values."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.flow.language.declarations import FieldType
from flashflow.backend.flow.model_fields import check_fields, check_value, from_text
from tests.support.flow_parts import field, model

GOOD: dict[str, list[Any]] = {
    "integer": [0, -5, 2**63 - 1],
    "decimal": [0, 1.5, -2],
    "boolean": [True, False],
    "string": ["", "a", "ä" * 1000],
    "text": ["a\nb", "x" * 100_000],
    "timestamp": ["2026-11-22T10:15:30Z", "2026-11-22T10:15:30.5+02:00"],
    "datetime": ["2026-11-22T10:15:30Z"],
    "date": ["2026-11-22"],
    "time": ["10:15", "10:15:30"],
    "email": ["ada@example.org"],
    "url": ["https://example.org/a?b=c"],
    "uuid": ["0190b0a0-0000-7000-8000-000000000000"],
    "json": [1, "a", [1], {"a": None}],
    "object": [{}, {"a": 1}],
    "array": [[], [1, "a"]],
    "reference": [7, "ada"],
}
BAD: dict[str, list[Any]] = {
    "integer": [1.0, True, "1", 2**63, [1]],
    "decimal": ["1.5", True, math.inf, math.nan, {}],
    "boolean": [0, "true"],
    "string": [1, "a\0", "x" * 1001, ["a"], "a\nb", "a\rb"],
    "text": [1, "x" * 100_001],
    "timestamp": ["2026-11-22T10:15:30", "2026-11-22", "now", 0, "2026-13-01T00:00:00Z", "2026-W01-1T00:00Z"],
    "datetime": ["yesterday", "0001-01-01"],
    "date": ["2026-02-30", "22.11.2026", 20261122, "20261122", "2026-W01-1"],
    "time": ["25:00", "noon", 10, "10", "10:15+02:00"],
    "email": ["ada", "a b@example.org", "@example.org", "a@b\n", 5],
    "url": ["javascript:alert(1)", "ftp://example.org", "https://", "https://a b", 1],
    "uuid": ["0190b0a0", 1, "x" * 200],
    "json": [math.nan, {"a": [math.inf]}],
    "object": [[], "{}", {"a": math.nan}],
    "array": [{}, "[]", [-math.inf]],
    "reference": [1.5, True, {"id": 1}, "x" * 256],
}


def test_every_type_is_tested() -> None:
    assert GOOD.keys() == BAD.keys() == set(get_args(FieldType))


@pytest.mark.parametrize(("type_", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_a_type_accepts_its_values(type_: Any, value: Any) -> None:
    check_value(field("f", type_), value, "f")


@pytest.mark.parametrize(("type_", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_type_refuses_other_values(type_: Any, value: Any) -> None:
    with pytest.raises(ValidationError, match="f: must be "):
        check_value(field("f", type_), value, "f")


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("integer", " 12 ", 12),
        ("integer", "1.5", "1.5"),
        ("integer", "1_000", "1_000"),
        ("integer", "٣", "٣"),
        ("integer", "9" * 5000, "9" * 5000),
        ("decimal", "2", 2),
        ("decimal", "2.50", 2.5),
        ("decimal", "1_0", "1_0"),
        ("boolean", "Yes", True),
        ("boolean", "off", False),
        ("boolean", "maybe", "maybe"),
        ("json", '{"a": [1]}', {"a": [1]}),
        ("json", "{", "{"),
        ("json", "[" * 100_000, "[" * 100_000),
        ("date", " 2026-11-22 ", "2026-11-22"),
        ("string", " padded ", " padded "),
        ("string", "", None),
        ("integer", "", None),
        ("integer", 7, 7),
    ],
)
def test_the_text_of_an_input_becomes_a_value_of_the_type(type_: Any, text: Any, value: Any) -> None:
    assert from_text(field("f", type_), text) == value


def test_a_row_has_bounds() -> None:
    notes = model("Note", *(field(f"f{number}", "json") for number in range(3)))
    with pytest.raises(ValidationError, match="longer than"):
        check_fields(notes, {f"f{number}": "x" * 100_000 for number in range(3)})
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ValidationError, match="levels deep"):
        check_fields(notes, {"f0": deep})
