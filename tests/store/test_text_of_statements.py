"""SQL is compiled: text is run only where a statement cannot be, for a reason listed here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import flashflow.backend.store

STORE = Path(flashflow.backend.store.__path__[0])
RUNS_TEXT = {
    "engine/statement.py": "runs the compiled statements",
    "engine/sql.py:execute_rows": "runs the compiled statements",
    "engine/damaged_text.py:_scan_table": "reads tables of which only the file knows the columns",
    "engine/damaged_text.py:_replaced": "changes tables of which only the file knows the columns",
    "engine/schema.py:create": "schema",
    "engine/schema.py:describe_differences": "schema",
    "engine/upgrade.py:_repair": "schema",
    "engine/database.py:_probe": "schema",
    "rollups/aggregate.py:aggregate_batch": "schema of temporary tables",
    "rollups/four_week_blocks.py:keep_blocks": "schema",
    "privacy/rollup_erasure.py:_subtract_activities": "schema of temporary tables",
    "analytics/verify.py:_verify": "schema of temporary tables",
    "analytics/verify.py:fill_checking": "schema of temporary tables",
    "analytics/other_timezone.py:rollups_by": "schema of temporary tables",
    "notifications/search.py:prepare": "schema of FTS5",
}
NO_STATEMENT = re.compile("PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|CREATE|DROP|VACUUM")


def text_of(node: ast.expr) -> str:
    """The beginning of a string; empty where it is not in the code."""
    if isinstance(node, ast.JoinedStr):
        return text_of(node.values[0])
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def runs_text(call: ast.Call) -> bool:
    """Whether ``call`` runs SQL other than of the schema, a PRAGMA or a transaction."""
    method = getattr(call.func, "attr", "")
    if method == "execute":
        return not NO_STATEMENT.match(text_of(call.args[0]))
    return method in {"executemany", "executescript"}


def runs_of(tree: ast.AST, function: str = "") -> Iterator[str]:
    """The functions in ``tree`` that run text."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and runs_text(node):
            yield function
        yield from runs_of(node, node.name if isinstance(node, ast.FunctionDef) else function)


def test_no_text_is_run_but_where_a_statement_cannot_be() -> None:
    found = set()
    for path in STORE.rglob("*.py"):
        place = path.relative_to(STORE).as_posix()
        if not place.startswith("migrations/"):  # frozen
            runs = set(runs_of(ast.parse(path.read_text())))
            found |= {place if place in RUNS_TEXT else f"{place}:{function}" for function in runs}
    assert found == set(RUNS_TEXT)


def test_no_row_is_read_by_the_number_of_a_column() -> None:
    by_number = re.compile(r"\b(row|found|fetchone\(\))\[-?\d*:?-?\d*\]|rows\[-?\d+\]\[")
    for path in STORE.rglob("*.py"):
        if "migrations" not in path.parts and path.name != "statement.py":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                assert not by_number.search(line), f"{path}:{number} {line.strip()}"
