"""Rendering of errors: the caret stands below its place, and control characters stay out of the terminal."""

from __future__ import annotations

import pytest

from flashflow.backend.flow.language.errors import FlowError, Place, render_all


@pytest.mark.parametrize(
    ("line", "column", "length", "shown"),
    [
        ("  title: Home", 10, 4, ["  7 |   title: Home", "    |          ^^^^"]),
        ("\ttitle:\tHome", 9, 4, ["  7 |     title:    Home", "    |               ^^^^"]),
        ('h1 "通知" x', 8, 1, ['  7 | h1 "通知" x', "    |          ^"]),
        ('h1 "通知"', 5, 2, ['  7 | h1 "通知"', "    |     ^^^^"]),
        ("e\u0301 x", 4, 1, ["  7 | e\u0301 x", "    |   ^"]),
        ("a \x1b[31m\u202e b", 1, 1, ["  7 | a \N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER} b", "    | ^"]),
        ("x" * 500 + "!", 501, 1, [f"  7 | {'x' * 80}!", f"    | {' ' * 80}^"]),
        ("y: 1", 5, 1, ["  7 | y: 1", "    |     ^"]),
    ],
    ids=["plain", "tabs", "after wide", "wide", "combining", "controls", "long", "line end"],
)
def test_the_caret_stands_below_its_place(line: str, column: int, length: int, shown: list[str]) -> None:
    error = FlowError(Place("a.flow", 7, column, length), "it is wrong", "Mend it.", line)
    assert error.render().split("\n") == [f"a.flow:7:{column}: it is wrong", *shown, "  Mend it."]


def test_an_error_without_a_line_has_its_message_and_hint() -> None:
    errors = [
        FlowError(Place("a.flow", 1, 1), "it is wrong", "Mend it."),
        FlowError(Place("b.flow", 2, 3), "so is it", ""),
    ]
    assert render_all(errors) == "a.flow:1:1: it is wrong\n  Mend it.\n\nb.flow:2:3: so is it"


def test_an_error_is_an_object_for_editors() -> None:
    assert FlowError(Place("a.flow", 7, 3, 5), "it is wrong", "Mend it.", "x").to_json() == {
        "file": "a.flow", "line": 7, "column": 3, "length": 5, "message": "it is wrong", "hint": "Mend it.",
    }  # fmt: skip
