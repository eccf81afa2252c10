"""Malformed files: one for each rule of the grammar and of its checks, with the whole message and its place.

``malformed.txt`` has a case as ``=== name``, the file, and for each error ``--- line:column+length``, message, hint.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from flashflow.backend.flow.language.loader import load
from flashflow.backend.flow.language.parser import grammar_rules
from flashflow.backend.flow.language.vocabulary import CONSTRUCTS
from flashflow.backend.flow.routes import built_in_routes


class Case(NamedTuple):
    """File with errors, and each error as ``(line:column+length, message, hint)``."""

    name: str
    text: str
    errors: list[tuple[str, str, str]]


def cases() -> list[Case]:
    found = []
    for part in (Path(__file__).parent / "malformed.txt").read_text("utf-8").split("=== ")[1:]:
        file, *errors = part.split("--- ")
        name, _, text = file.partition("\n")
        rows = [error.rstrip("\n").split("\n") for error in errors]
        found.append(Case(name, text, [(place, message, hint) for place, message, hint in rows]))
    return found


CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_malformed_file_is_refused_at_its_place_with_the_way_out(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "a.flow"
    path.write_text(case.text, "utf-8")
    _, errors = load([path], built_in_routes)
    assert [
        (
            f"{error.place.line}:{error.place.column}+{error.place.length}",
            error.message.replace(f"{tmp_path}/", ""),
            error.hint,
        )
        for error in errors
    ] == case.errors
    assert [error.source_line for error in errors] == [case.text.split("\n")[error.place.line - 1] for error in errors]


def test_there_are_over_a_hundred_cases_and_each_has_a_name_of_its_own() -> None:
    assert len(CASES) > 100
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(hint.endswith((".", "?")) or "`" in hint for case in CASES for _, _, hint in case.errors)


RULES = {
    "start": "a word outside of a declaration",
    "declaration": "a declaration without a block",
    "head": "an entry before the block",
    "block": "a block that is not closed",
    "entry": "an entry without a value",
    "value": "a path without quotes",
    "join": "a plus without a value",
    "items": "a list without commas",
    "element": "a stray value",
    "label": "a call",
    "attribute": "an unknown attribute",
    "loop": "a loop without in",
    "assignment": "an assignment without a value",
    "query": "SQL in a job",
}
"""Rule of grammar.lark → a file that breaks it."""


def test_each_construct_and_rule_of_the_grammar_has_a_malformed_file() -> None:
    texts = " ".join(case.text for case in CASES)
    alike = {f"h{level}" for level in range(2, 7)} | {"p", "row", "column", "header"}
    assert [name for name in CONSTRUCTS if name not in texts and name not in alike] == []
    assert RULES.keys() == {rule for rule in grammar_rules() if not rule.startswith("_")}
    assert set(RULES.values()) <= {case.name for case in CASES}
