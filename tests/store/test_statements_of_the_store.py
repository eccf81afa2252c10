"""The contract of every statement: it runs on an empty and on a filled file, and its rows name its columns."""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from peewee import Value

import flashflow.backend.store
from flashflow.backend import NotificationService, UserActivityService
from flashflow.backend.store.analytics import verify
from flashflow.backend.store.engine import database
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.models import AddressField, IdField, JsonField, ObjectField, StringsField
from flashflow.backend.store.engine.statement import STATEMENTS, VARIANTS, Statement, variants
from flashflow.backend.store.privacy import rollup_erasure
from flashflow.backend.store.rollups import aggregate
from flashflow.backend.store.rollups.models import UserKey
from tests.support.filled_files import fill

STORE = Path(flashflow.backend.store.__path__[0])

for module in pkgutil.walk_packages(flashflow.backend.store.__path__, "flashflow.backend.store."):
    importlib.import_module(module.name)
for function in VARIANTS:
    function.all()

OF_THE_STORE = tuple(statement for statement in STATEMENTS if statement.place.startswith("flashflow."))
TEMPORARY = {
    "flashflow_probe": database.PROBE,
    "temp.batch": aggregate.BATCH,
    "temp.new_days": aggregate.NEW_DAYS,
    "erasing": rollup_erasure.ERASING,
    "checking": verify.CHECKING,
    **{f"temp.{table.name}": verify.create_like(table, table.name) for table in verify.LOCAL_TABLES},
    **{f"temp.{verify.expected(table)}": verify.create_like(table, verify.expected(table)) for table in verify.TABLES},
}
"""Temporary tables that statements read, as they name them, and the SQL that creates them."""
SLOTS = re.compile(r"'(?:[^']|'')*'|(?<![:\w]):([a-z_]\w*)")
SAMPLES: dict[type, Any] = {IdField: "an-id", AddressField: "10.0.0.7", StringsField: ("a",), ObjectField: {"a": 1}}
numbers = itertools.count(1_000_000)


@pytest.fixture(scope="module", params=["empty", "filled"])
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        activities = stack.enter_context(UserActivityService(folder / "user_activities.db"))
        notifications = stack.enter_context(NotificationService(folder / "notifications.db"))
        if request.param == "filled":
            fill(activities, notifications)
        yield activities.store, notifications.store


def sample(convert: Any) -> Any:
    """A value that ``convert`` encodes; a number of its own where nothing is encoded."""
    if convert is None:
        return next(numbers)
    field = getattr(convert, "__self__", None)
    if field is None:  # a list
        return [1]
    return () if isinstance(field, JsonField) else SAMPLES.get(type(field), 1)


def run(conn: sqlite3.Connection, statement: Any) -> list[str] | None:
    """Run ``statement`` once; return the names of its columns, None where a constraint refused the values."""
    compiled = statement.compiled
    if "{rows:" in compiled.sql:
        names = re.search(r"\{rows:([^}]*)\}", compiled.sql)[1].split(",")  # type: ignore[index]
        statement.many(conn, [[sample(compiled.slots.get(name.strip())) for name in names]])
        return []
    values = {name: sample(compiled.slots.get(name)) for name in SLOTS.findall(compiled.sql) if name}
    if "MATCH :query" in compiled.sql:
        values["query"] = '"abc"'  # one trigram: the index holds no phrases
    try:
        cursor = statement.run(conn, **values)
        found = [name for name, *_ in cursor.description or ()]
        cursor.close()
        for row in statement.all(conn, **values):
            assert statement.row is None or [getattr(row, name) for name in statement.row._fields] == list(row)
    except sqlite3.IntegrityError:
        return None
    return found


@pytest.mark.parametrize("statement", OF_THE_STORE, ids=lambda statement: statement.place.removeprefix("flashflow."))
def test_a_statement_runs_and_its_rows_name_its_columns(statement: Any, stores: tuple[Store, Store]) -> None:
    def trial(conn: sqlite3.Connection) -> list[str] | None:
        conn.execute("SAVEPOINT trial")
        try:
            conn.create_function("other_hour", 1, lambda timestamp: timestamp // 3_600_000)
            for name, table in TEMPORARY.items():
                if re.search(rf"\b{name}\b", statement.compiled.sql):
                    conn.execute(table)
            return run(conn, statement)
        finally:
            conn.execute("ROLLBACK TO trial")
            conn.execute("RELEASE trial")

    ran = False
    for store in stores:
        try:
            found = store.read(trial)
        except Exception as error:
            # The notifications' file has neither the tables nor the functions of the rollups.
            if not str(error.__cause__).startswith(("no such table", "no such function")):
                raise
            continue
        ran = True
        if statement.row is not None:
            assert found in (None, list(statement.row._fields))
        elif found is not None:
            assert len(found) <= 1, f"{found} need a row with names"
    assert ran, f"{statement.place} reads tables of neither file"


def test_no_two_statements_stand_at_one_place() -> None:
    places = [statement.place for statement in OF_THE_STORE]
    assert len(places) == len(set(places))


def test_a_function_that_builds_statements_builds_each_of_its_choices_once_and_no_other() -> None:
    @variants((1, 2), ("a",))
    def build(number: int, name: str) -> Statement[tuple[Any, ...]]:
        return Statement(UserKey.select(Value(number).alias(name)))

    assert len(set(build.all())) == 2
    assert build(2, "a") is build(2, "a") is build.all()[1]
    with pytest.raises(ValueError, match="choices"):
        build(3, "a")
    VARIANTS.remove(build)


def test_a_function_that_builds_a_statement_lists_its_choices() -> None:
    for path in sorted(STORE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and calls(node, "Statement", "TextStatement"):
                assert calls(ast.Module(node.decorator_list, []), "variants"), f"{path}:{node.lineno} {node.name}"


def calls(tree: ast.AST, *names: str) -> list[int]:
    """The lines of ``tree`` that call a function or a method with one of these ``names``."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node.lineno for node in found if getattr(node.func, "id", getattr(node.func, "attr", "")) in names]
