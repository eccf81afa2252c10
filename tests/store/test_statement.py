"""Statements: compiled once, bound by name, rows with names; and every statement of the product runs."""

from __future__ import annotations

import sqlite3
import timeit
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from peewee import EXCLUDED, BooleanField, Query, TextField

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.models import (
    BaseModel,
    IdField,
    MillisecondsField,
    ObjectField,
    SequenceField,
    StringsField,
)
from flashflow.backend.store.engine.numbers import Numbers, last_seq, next_number
from flashflow.backend.store.engine.schema import FileSchema, create
from flashflow.backend.store.engine.statement import (
    Statement,
    TextStatement,
    among,
    columns,
    differs,
    same,
    slot,
    slots,
)

UUID = "0197a1b2-0000-7000-8000-000000000001"


class Letter(BaseModel):
    """A table of this test."""

    seq = SequenceField()
    id = IdField()
    reader = TextField(null=True)
    tags = StringsField()
    data = ObjectField(null=True)
    read = BooleanField()
    at = MillisecondsField()

    class Meta:
        table_name = "letters"


Letter.add_index(Letter.id, name="letters_id", unique=True)
Letter.add_index(Letter.at, name="letters_unread", where=Letter.reader == "ada")


class Row(NamedTuple):
    id: str
    tags: tuple[str, ...]
    data: dict[str, Any]
    read: bool


INSERT = Statement(Letter.insert(slots(Letter.id, Letter.reader, Letter.tags, Letter.data, Letter.read, Letter.at)))
READ = Statement(Letter.select(*columns(Letter, Row)).where(Letter.id == slot("id", Letter.id)), Row)


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        create(conn, FileSchema((Letter,)))
        yield conn


def write(conn: sqlite3.Connection, id_: str, reader: str | None = "ada", at: int = 1) -> None:
    INSERT.run(conn, id=id_, reader=reader, tags=("a", "b"), data={"n": 1}, read=True, at=at)


def test_values_are_encoded_and_rows_are_decoded_as_their_fields_say(conn: sqlite3.Connection) -> None:
    write(conn, UUID)
    assert conn.execute("SELECT id, tags, data, read FROM letters").fetchone() == (
        bytes.fromhex(UUID.replace("-", "")),
        '["a","b"]',
        '{"n":1}',
        1,
    )
    row = READ.one(conn, id=UUID)
    assert row == Row(UUID, ("a", "b"), {"n": 1}, True)
    assert isinstance(row, Row)
    assert row.read is True
    assert READ.all(conn, id=UUID) == list(READ.each(conn, id=UUID)) == [row]
    assert READ.value(conn, id=UUID) == UUID
    assert READ.one(conn, id="none") is READ.value(conn, id="none") is None
    assert READ.all(conn, id="none") == []


class Early(NamedTuple):
    early: bool
    unread: bool


@pytest.mark.parametrize(
    "statement",
    [
        Statement(Letter.select((Letter.at < 5).alias("early"), (~Letter.read).alias("unread")), Early),
        TextStatement("SELECT at < 5 AS early, NOT read AS unread FROM letters", Early, reason="a test"),
    ],
)
def test_a_condition_that_a_row_declares_as_a_boolean_is_one(
    conn: sqlite3.Connection, statement: Statement[Early]
) -> None:
    write(conn, UUID)
    assert [type(value) for value in statement.one(conn) or ()] == [bool, bool]
    assert statement.one(conn) == (True, False)


def test_a_row_that_does_not_name_the_columns_is_refused() -> None:
    class Other(NamedTuple):
        id: str
        reader: str

    with pytest.raises(TypeError, match=r"selects \['id', 'at'\], its row has \['id', 'reader'\]"):
        _ = Statement(Letter.select(Letter.id, Letter.at), Other).compiled
    with pytest.raises(TypeError, match="test_statement"):
        _ = Statement(Letter.select(Letter.id), Other).compiled


def test_a_query_is_built_once_at_its_first_use(conn: sqlite3.Connection) -> None:
    built: list[Query] = []

    def build() -> Query:
        built.append(Letter.select(Letter.at))
        return built[-1]

    statement = Statement(build)
    assert built == []
    write(conn, UUID)
    assert statement.all(conn) == statement.all(conn) == [(1,)]
    assert len(built) == 1


def test_a_missing_value_is_an_error(conn: sqlite3.Connection) -> None:
    with pytest.raises((KeyError, sqlite3.ProgrammingError)):
        READ.one(conn)


def test_constants_stand_in_the_sql_so_that_partial_indexes_are_used(conn: sqlite3.Connection) -> None:
    query = Statement(Letter.select(Letter.at).where(Letter.reader == "ada", Letter.at < slot("until")))
    plan = conn.execute(f"EXPLAIN QUERY PLAN {query.compiled.sql}", {"until": 5}).fetchall()
    assert "letters_unread" in plan[0][3]


def test_quotes_in_constants_are_escaped(conn: sqlite3.Connection) -> None:
    write(conn, "x", "o'hara")
    assert Statement(Letter.select(Letter.reader).where(Letter.reader == "o'hara")).value(conn) == "o'hara"


def test_many_rows_are_one_statement_with_encoded_values(conn: sqlite3.Connection) -> None:
    INSERT.many(conn, [(f"id-{n}", "ada", (), {}, n % 2, n) for n in range(300)])
    assert conn.execute("SELECT COUNT(*), SUM(read), MIN(tags) FROM letters").fetchone() == (300, 150, "[]")
    touch = TextStatement(
        "WITH v (seq, at) AS (VALUES {rows:seq, at}) UPDATE letters SET at = v.at FROM v WHERE letters.seq = v.seq",
        reason="UPDATE over rows of values",
    )
    touch.many(conn, [(1, 1000), (2, 1001)])
    assert conn.execute("SELECT at FROM letters WHERE seq <= 2").fetchall() == [(1000,), (1001,)]
    with pytest.raises(TypeError, match="neither VALUES"):
        READ.many(conn, [("x",)])


def test_lists_nulls_and_next_numbers(conn: sqlite3.Connection) -> None:
    for number, reader in enumerate(("ada", None, "bob"), 1):
        write(conn, f"id-{number}", reader, number)
    of = Statement(Letter.select(Letter.at).where(among(Letter.at, "times")).order_by(Letter.at))
    assert of.all(conn, times=[1, 3, 9]) == [(1,), (3,)]
    alike = Statement(Letter.select(Letter.at).where(same(Letter.reader, slot("reader"))))
    assert alike.all(conn, reader=None) == [(2,)]
    others = Statement(Letter.select(Letter.at).where(differs(Letter.reader, slot("reader"))).order_by(Letter.at))
    assert others.all(conn, reader="ada") == [(2,), (3,)]
    after = Statement(Letter.select(next_number(Letter.at).alias("number")))
    assert after.value(conn) == 4


def test_the_numbers_of_deleted_rows_are_not_given_again(conn: sqlite3.Connection) -> None:
    seqs = Numbers(Statement(last_seq(Letter)))
    assert (seqs.last(conn), next(seqs.following(conn))) == (0, 1)
    for number in range(3):
        write(conn, f"id-{number}")
    conn.execute("DELETE FROM letters")
    given = seqs.following(conn)
    assert (seqs.last(conn), next(given), next(given)) == (3, 4, 5)


def test_returned_rows_and_conflicts(conn: sqlite3.Connection) -> None:
    class Saved(NamedTuple):
        id: str
        at: int

    save = Statement(
        Letter.insert(slots(Letter.id, Letter.tags, Letter.read, Letter.at))
        .on_conflict(conflict_target=[Letter.id], update={Letter.at: EXCLUDED.at + Letter.at})
        .returning(Letter.id, Letter.at),
        Saved,
    )
    values = {"id": UUID, "tags": (), "read": False}
    assert save.one(conn, **values, at=1) == Saved(UUID, 1)
    assert save.one(conn, **values, at=5) == Saved(UUID, 6)
    remove = Statement(Letter.delete().where(Letter.id == slot("id", Letter.id)))
    assert [remove.run(conn, id=UUID).rowcount for _ in range(2)] == [1, 0]


def test_text_has_the_same_methods(conn: sqlite3.Connection) -> None:
    write(conn, UUID)
    read = TextStatement(
        "SELECT id, tags, data, read FROM letters NOT INDEXED WHERE id = :id",
        Row,
        reason="an index hint",
        encode={"id": Letter.id},
        decode={field.name: field for field in columns(Letter, Row)},
    )
    assert read.one(conn, id=UUID) == READ.one(conn, id=UUID)


@pytest.mark.serial
def test_a_call_costs_little_more_than_text(conn: sqlite3.Connection) -> None:
    class Few(NamedTuple):
        reader: str
        at: int

    INSERT.many(conn, [(f"id-{n}", "ada", (), {}, 1, n) for n in range(300)])
    text = "SELECT reader, at FROM letters WHERE seq >= ? LIMIT ?"
    query = Statement(
        Letter.select(Letter.reader, Letter.at).where(Letter.seq >= slot("seq")).limit(slot("limit")), Few
    )
    assert query.all(conn, seq=7, limit=5) == conn.execute(text, (7, 5)).fetchall()

    def microseconds(call: Any) -> float:
        return min(timeit.repeat(call, number=300, repeat=300)) / 300 * 1e6

    plain = microseconds(lambda: conn.execute(text, (7, 5)).fetchall())
    compiled = microseconds(lambda: query.all(conn, seq=7, limit=5))
    print(f"text {plain:.2f} µs, statement {compiled:.2f} µs")
    assert compiled < plain + 2  # measured: 0.4 to 1.1 µs more
