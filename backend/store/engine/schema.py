"""The schema of a file: create it from the models, and compare an open file with it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

from peewee import SchemaManager, SqliteDatabase
from peewee import Table as Source

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.models import BaseModel
from flashflow.backend.store.engine.statement import Statement, TextStatement

Kind = Literal["table", "column", "index", "trigger", "view"]
_TOKEN = re.compile(r"'[^']*'|\w+|[^\w\s\"()]+")
"""A string, a word or an operator; no quotes of names and no parentheses."""


class Step(NamedTuple):
    """A frozen step from schema ``source`` to schema ``target``. ``run`` reports its current work to its second
    argument."""

    source: int
    target: int
    run: Callable[[sqlite3.Connection, Callable[[str], None]], None]


class FileSchema(NamedTuple):
    """Everything in one file: its tables in the order of their creation, and its views as SQL.

    Tables and triggers whose names begin with one of ``optional`` may exist or not. ``version`` is the file's
    ``user_version``; ``steps`` bring older files to it.
    """

    models: tuple[type[BaseModel], ...]
    views: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    version: int = 1
    steps: tuple[Step, ...] = ()


class Difference(NamedTuple):
    """One difference of a file from its schema."""

    kind: Kind
    name: str
    """A column as ``table.column``."""
    state: Literal["missing", "additional", "different"]
    detail: str = ""

    def __str__(self) -> str:
        return f"The {self.kind} {self.name} is {self.state}{self.detail}."

    @property
    def holds_data(self) -> bool:
        """Whether it concerns a table or column; indexes, triggers and views can be created again."""
        return self.kind in {"table", "column"}


class _Recorder(SqliteDatabase):
    """A database that records statements instead of running them."""

    def __init__(self) -> None:
        super().__init__(None)
        self.statements: list[str] = []

    def execute_sql(self, sql: str, *_: Any) -> None:
        self.statements.append(sql)


def statements(schema: FileSchema) -> Iterator[str]:
    """Yield the statements that create an empty file of ``schema``, with its first rows."""
    recorder = _Recorder()
    for model in schema.models:
        recorder.statements.clear()
        manager = SchemaManager(model, recorder)
        manager.create_table(safe=False)
        manager.create_indexes(safe=False)
        yield from recorder.statements
        for addition in ("triggers", "initial_rows"):
            yield from getattr(model._meta, addition, ())
    yield from schema.views


def create(conn: sqlite3.Connection, schema: FileSchema) -> None:
    """Create every table, index, trigger and view, in the caller's transaction."""
    for statement in statements(schema):
        conn.execute(statement)


def statement_of(schema: FileSchema, difference: Difference) -> str:
    """Return the statement that creates an index, trigger or view of ``schema``."""
    begin = re.compile(rf'CREATE (UNIQUE )?{difference.kind} "?{difference.name}\b', re.IGNORECASE)
    return next(statement for statement in statements(schema) if begin.match(statement))


class Table(NamedTuple):
    """A table as SQLite reports it."""

    columns: Mapping[str, str]
    """Type, NOT NULL, default and place in the primary key of each column, in the order of the columns."""
    options: tuple[str, ...]
    """``AUTOINCREMENT``, ``STRICT``, ``WITHOUT ROWID``, CHECK constraints, columns that must be unique, references."""


class Contents(NamedTuple):
    """The schema that a file has. Indexes, triggers and views: their SQL as ``_plain`` returns it."""

    tables: Mapping[str, Table]
    indexes: Mapping[str, str]
    triggers: Mapping[str, str]
    views: Mapping[str, str]


class Entry(NamedTuple):
    """A table, index, trigger or view; no SQL for the index of a constraint."""

    type: Kind
    name: str
    sql: str | None


class Column(NamedTuple):
    """A column; ``default`` is SQL."""

    name: str
    type: str
    required: bool
    default: str | None
    place: int
    """The place in the primary key, from 1; 0 outside it."""


class _Reference(NamedTuple):
    """A foreign key, with the names of its columns here and there."""

    table: str
    here: str
    there: str
    on_update: str
    on_delete: str
    match: str


_MASTER = Source("sqlite_master")
_ENTRIES = Statement(lambda: _MASTER.select(*(getattr(_MASTER.c, name) for name in Entry._fields)), Entry)
_COLUMNS = TextStatement(
    'SELECT name, type, "notnull" AS required, dflt_value AS "default", pk AS place FROM pragma_table_xinfo(:table)',
    Column,
    reason="a PRAGMA",
)
_UNIQUE = TextStatement(
    "SELECT name FROM pragma_index_list(:table) WHERE \"unique\" AND origin = 'u'", reason="a PRAGMA"
)
_INDEXED = TextStatement("SELECT name FROM pragma_index_info(:index)", reason="a PRAGMA")
_REFERENCES = TextStatement(
    'SELECT "table", "from" AS here, "to" AS there, on_update, on_delete, match FROM pragma_foreign_key_list(:table)',
    _Reference,
    reason="a PRAGMA",
)


def read_entries(conn: sqlite3.Connection) -> list[Entry]:
    """Return every entry of a file's schema, in the order of creation. Raises sqlite3.Error if it cannot be read."""
    return _ENTRIES.all(conn)


def read_columns(conn: sqlite3.Connection, table: str) -> list[Column]:
    """Return the columns of a table in their order."""
    return _COLUMNS.all(conn, table=table)


def read_contents(conn: sqlite3.Connection) -> Contents:
    """Read the schema of a file."""
    found: dict[str, dict[str, str]] = {"table": {}, "index": {}, "trigger": {}, "view": {}}
    for entry in read_entries(conn):
        if entry.sql is not None and not entry.name.startswith("sqlite_"):
            found[entry.type][entry.name] = entry.sql
    tables = {
        name: Table({}, ()) if sql.upper().startswith("CREATE VIRTUAL") else _read_table(conn, name, sql)
        for name, sql in found["table"].items()
    }
    indexes, triggers, views = (
        {name: _plain(sql) for name, sql in found[kind].items()} for kind in ("index", "trigger", "view")
    )
    return Contents(tables, indexes, triggers, views)


def _read_table(conn: sqlite3.Connection, name: str, sql: str) -> Table:
    columns = {}
    for column in read_columns(conn, name):
        words = [
            column.type,
            # A primary key is never NULL in our tables: it is the rowid, or the table has none.
            "NOT NULL" if column.required or column.place else "",
            f"DEFAULT {column.default}" if column.default is not None else "",
            f"KEY {column.place}" if column.place else "",
        ]
        columns[column.name] = " ".join(filter(None, words))
    plain = re.sub(r'["\s]+', " ", sql).upper()
    options = [word for word in ("AUTOINCREMENT", "STRICT", "WITHOUT ROWID") if word in plain]
    options += re.findall(r"CHECK \(.*?\)", plain)
    for (index,) in _UNIQUE.all(conn, table=name):
        options.append(f"UNIQUE {[column for (column,) in _INDEXED.each(conn, index=index)]}")
    options += [f"REFERENCES {tuple(row)}" for row in _REFERENCES.each(conn, table=name)]
    return Table(columns, tuple(options))


def _plain(sql: str) -> str:
    """Return ``sql`` without quotes of names, spaces, parentheses and letter case, in which equal SQL may differ."""
    return " ".join(_TOKEN.findall(sql.lower()))


def describe_differences(conn: sqlite3.Connection, schema: FileSchema) -> list[Difference]:
    """Compare the schema of an open file with ``schema``."""
    made = tuple(statements(schema))
    if _is_made_by(conn, made, schema.optional):
        return []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for statement in made:
            model.execute(statement)
        expected = read_contents(model)
    found = read_contents(conn)
    differences: list[Difference] = []
    for name, table in expected.tables.items():
        if name in found.tables:
            differences += _compare_tables(name, found.tables[name], table)
    differences += _compare_names("table", found.tables, expected.tables, schema.optional)
    others: tuple[tuple[Kind, Mapping[str, str], Mapping[str, str]], ...] = (
        ("index", found.indexes, expected.indexes),
        ("trigger", found.triggers, expected.triggers),
        ("view", found.views, expected.views),
    )
    for kind, there, wanted in others:
        differences += _compare_names(kind, there, wanted, schema.optional)
        differences += [
            Difference(kind, name, "different") for name in wanted if name in there and there[name] != wanted[name]
        ]
    return differences


def _is_made_by(conn: sqlite3.Connection, made: Sequence[str], optional: Sequence[str]) -> bool:
    """Whether the file has the very statements ``made``, as one has that was created from these models: 2 ms instead of
    5 for every start."""
    found = {entry.sql: entry.name for entry in read_entries(conn) if entry.sql is not None}
    wanted = {statement for statement in made if statement.startswith("CREATE")}
    return wanted <= found.keys() and all(
        sql in wanted or name.startswith(("sqlite_", *optional)) for sql, name in found.items()
    )


def _compare_names(
    kind: Kind,
    found: Mapping[str, object],
    expected: Mapping[str, object],
    optional: Sequence[str],
) -> Iterator[Difference]:
    for name in expected:
        if name not in found:
            yield Difference(kind, name, "missing")
    for name in found:
        if name not in expected and not name.startswith(tuple(optional)):
            yield Difference(kind, name, "additional")


def _compare_tables(name: str, found: Table, expected: Table) -> Iterator[Difference]:
    def places(columns: Mapping[str, str]) -> dict[str, str]:
        return {f"{name}.{column}": text for column, text in columns.items()}

    there, wanted = places(found.columns), places(expected.columns)
    yield from _compare_names("column", there, wanted, ())
    for column, text in wanted.items():
        if column in there and there[column] != text:
            yield Difference("column", column, "different", f": {there[column]} instead of {text}")
    if found.options != expected.options:
        yield Difference("table", name, "different", f": {found.options} instead of {expected.options}")
