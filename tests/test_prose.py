"""Docstrings, comments, messages and documents are plain technical English; docs/architecture.md has the glossary."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.server_process import ROOT

OPENINGS = re.compile(r"(?:\A|[.:;!?]\s+)(?:What|Whoever|Whatever|Those|Nobody|Somebody|Whose)\b")
HANGING = re.compile(r"(?:,|:|;| —) what \w+|\bwhat (?:became of|becomes of|is said|stands|there is)\b")
WORDS = re.compile(
    r"\b(?:anew|moments?|lies|told|nobody|somebody|whoever|bequeath\w*|clerks?|lanes?|withdrawals?|circumstances?|"
    r"reconsider\w*|call(?:ed|s|ing)? off|deeds?|figures?)\b",
    re.IGNORECASE,
)
SQL = re.compile(
    r"\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|WITH|DROP|ALTER|AND|OR|FROM|ON|WHERE|PRAGMA|UNION|GROUP|ORDER|SET)\b"
)
QUOTED = re.compile(r"``[^`]*``|`[^`]*`|\"[^\"]*\"|“[^”]*”|```.*?```", re.DOTALL)


def faults(text: str) -> list[str]:
    """Phrases of ``text`` that are no plain technical English; code and quotations are not looked at."""
    plain = QUOTED.sub("x", text)
    return [match.group().strip() for pattern in (OPENINGS, HANGING, WORDS) for match in pattern.finditer(plain)]


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Docstrings, and the strings below an attribute or a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def messages(tree: ast.AST) -> Iterator[ast.Constant]:
    """Literals of three words or more that are no SQL: errors, labels, help texts."""
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and len(text.split()) >= 3 and not SQL.match(text):
            yield node  # type: ignore[misc]


def comments(source: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(source.splitlines(), 1):
        if found := re.search(r"(?:^|\s)# (.*)$", line):
            yield number, found.group(1)


def prose(source: str) -> set[tuple[int, str]]:
    """Every docstring, message and comment of a module with its line."""
    tree = ast.parse(source)
    return {(node.lineno, str(node.value)) for node in (*docstrings(tree), *messages(tree))} | set(comments(source))


def folders() -> list[str]:
    modules = [path for top in ("backend", "views", "flashflow") for path in (ROOT / top).rglob("*.py")]
    return sorted({str(path.parent.relative_to(ROOT)) for path in modules})


@pytest.mark.parametrize("folder", folders())
def test_sources_are_written_in_plain_technical_english(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {fault!r}"
        for path in sorted((ROOT / folder).glob("*.py"))
        for line, text in sorted(prose(path.read_text("utf-8")))
        for fault in faults(text)
    ]
    assert wrong == []


@pytest.mark.parametrize("document", ["README.md", "TESTING.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"])
def test_documents_are_written_in_plain_technical_english(document: str) -> None:
    path = ROOT / document
    files = sorted(path.glob("*.md")) if path.is_dir() else [path]
    wrong = [f"{file.name}: {fault!r}" for file in files for fault in faults(file.read_text("utf-8"))]
    assert wrong == []
