"""docs/flow.md: its tables are those of the language, its examples are valid, and it names every word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flashflow.backend.flow.language.errors import render_all
from flashflow.backend.flow.language.loader import load
from flashflow.backend.flow.language.vocabulary import CHANNELS, CONSTRUCTS, GROUPS, KINDS, SAME_MODIFIERS
from flashflow.backend.flow.routes import built_in_routes
from tests.support.flow_tables import DOCUMENT, renewed, tables

TEXT = DOCUMENT.read_text("utf-8")
EXAMPLES = re.findall(r"^```flow\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_tables_of_the_document_are_made_from_the_language() -> None:
    assert renewed(TEXT) == TEXT, "run python -m tests.support.flow_tables"
    assert set(re.findall(r"<!-- table (\S+) -->", TEXT)) == tables().keys()


def test_the_document_describes_every_word_of_the_language() -> None:
    words = {*CONSTRUCTS, *GROUPS, *KINDS, *CHANNELS, *SAME_MODIFIERS}
    assert [word for word in sorted(words) if not re.search(rf"\b{word}\b", TEXT)] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.partition(" {")[0])
def test_every_example_of_the_document_is_valid(example: str, tmp_path: Path) -> None:
    path = tmp_path / "example.flow"
    path.write_text(example, "utf-8")
    _, errors = load([path], built_in_routes)
    assert render_all(errors) == ""


def test_the_document_has_an_example_of_every_declaration() -> None:
    for keyword in ("model", "page", "endpoint", "job", "every", "notification_type", "template", "on"):
        assert any(re.search(rf"^{keyword} ", example, re.MULTILINE) for example in EXAMPLES), keyword
