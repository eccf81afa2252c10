"""Statements over the models, compiled once; values are bound by name at each call, and rows have names.

``Statement`` is a Peewee query, ``TextStatement`` SQL that Peewee cannot express. Both are constants of the module that
uses them, or the variants of one (``variants``). ``STATEMENTS`` and ``VARIANTS`` list them, so that a test can run each
one.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, Generic, ParamSpec, TypeVar, overload

from peewee import (
    SQL,
    Alias,
    BooleanField,
    ColumnBase,
    Context,
    Expression,
    Field,
    ForeignKeyField,
    Model,
    NodeList,
    Query,
    Select,
    SqliteDatabase,
)

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.sql import execute_rows, take

Row = TypeVar("Row")
P = ParamSpec("P")
S = TypeVar("S")
Convert = Callable[[Any], Any]

_ROWS = re.compile(r"\{rows:([^}]*)\}")
_VALUES = re.compile(r"VALUES \(((?::\w+(?:, )?)+)\)")


# --- parts of queries -------------------------------------------------------------------------------------------------


class Slot(ColumnBase):
    """The place of a value in a query; see ``slot``."""

    def __init__(self, name: str, convert: Convert | None) -> None:
        self.name = name
        self.convert = convert

    def __sql__(self, ctx: Context) -> Context:
        if self.convert is not None:
            # Read back by ``_compile``, as Peewee walks the query.
            ctx.state.slots[self.name] = self.convert
        return ctx.literal(f":{self.name}")


def slot(name: str, field: Field[Any] | None = None) -> Slot:
    """Make the place of the value ``name``, which is encoded as ``field`` stores it (None: bound as it is)."""
    return Slot(name, None if field is None or not _encodes(field) else field.db_value)


def slots(*fields: Field[Any]) -> dict[Field[Any], Slot]:
    """Make one slot for each field, with its name, for an INSERT or UPDATE."""
    return {field: slot(field.name, field) for field in fields}


def as_stored(field: Field[Any]) -> Field[Any]:
    """Select ``field`` as it is stored, for example an id or JSON that is only copied."""
    selected: Field[Any] = field.converter(_unchanged)
    return selected


def columns(model: type[Model], row: type[tuple[Any, ...]], *, stored: Collection[str] = ()) -> list[Field[Any]]:
    """Return the fields of ``model`` that a row of the type ``row`` (a NamedTuple) has, in its order. ``stored``
    names the fields that are selected ``as_stored``."""
    fields = [getattr(model, name) for name in getattr(row, "_fields", ())]
    return [as_stored(field) if field.name in stored else field for field in fields]


def among(column: ColumnBase, name: str) -> Expression:
    """Build the condition that ``column`` is one of the list ``name``, which the call gives as a sequence."""
    return Expression(column, "IN", NodeList((SQL("(SELECT value FROM json_each("), Slot(name, to_json), SQL("))"))))


def listed(name: str) -> Any:
    """Build a table of the list ``name``, which the call gives as a sequence: its column ``value``, in its order."""
    values = NodeList((SQL("json_each("), Slot(name, to_json), SQL(")")), glue="")
    return Select([values], [SQL("value")]).alias(name)


def upsert(key: Sequence[Field[Any]], values: Sequence[Field[Any]]) -> Query:
    """Build the INSERT with a slot for each field that replaces the ``values`` of the row with that ``key``."""
    query: Query = key[0].model.insert(slots(*key, *values)).on_conflict(conflict_target=key, preserve=values)
    return query


def by_index(model: type[Model], index: str | None) -> NodeList:
    """Build the source of a query of ``model`` by the ``index``; None: by the primary key alone. For ``from_``."""
    return NodeList((model, SQL("NOT INDEXED" if index is None else f"INDEXED BY {index}")))


def any_or_same(field: Field[Any]) -> Expression:
    """Build the condition that the value named as ``field`` is None or equals it: an optional filter."""
    condition: Expression = slot(field.name, field).is_null() | (field == slot(field.name, field))
    return condition


def same(column: ColumnBase, value: Any) -> Expression:
    """Build the condition that two values are equal or both NULL."""
    return Expression(column, "IS", value)


def differs(column: ColumnBase, value: Any) -> Expression:
    """Build the condition that two values are different, NULL being a value of its own."""
    return Expression(column, "IS NOT", value)


# --- statements -------------------------------------------------------------------------------------------------------


class Compiled(NamedTuple):
    """A statement as SQLite gets it."""

    sql: str
    slots: Mapping[str, Convert]
    """The values that are encoded before they are bound."""
    columns: Sequence[tuple[str | None, Convert | None]]
    """The names of the returned columns as far as known, and how their values are decoded."""


class _Statement(Generic[Row]):
    def __init__(self, row: type[Row] | None) -> None:
        self.row = row
        caller = sys._getframe(2)
        # The line itself takes a walk through the module's code: 11 of 960 million instructions of a start.
        self._code, self._module, self._at = caller.f_code, caller.f_globals["__name__"], caller.f_lasti
        made = self._module, self._code.co_qualname, self._at
        self._number = _MADE[made] = _MADE.get(made, 0) + 1
        self._compiled: Compiled | None = None
        self._encoders: Sequence[tuple[str, Convert]]
        self._make: Callable[[Iterable[Any]], Row]
        self._decode_first: Convert | None
        self._bulk: _Bulk | None = None
        STATEMENTS.append(self)

    @property
    def place(self) -> str:
        """Module and line, for messages and tests; numbered where a loop makes several statements."""
        line = next(line for start, end, line in self._code.co_lines() if start <= self._at < end)
        return f"{self._module}:{line}" if self._number == 1 else f"{self._module}:{line}#{self._number}"

    def _compile(self) -> Compiled:
        raise NotImplementedError

    @property
    def compiled(self) -> Compiled:
        """The SQL with its slots and columns, compiled at first use."""
        if self._compiled is None:
            compiled = self._compile()
            self._encoders = tuple(compiled.slots.items())
            self._make = self._row_maker(compiled)
            self._decode_first = compiled.columns[0][1] if compiled.columns else None
            self._compiled = compiled
        return self._compiled

    def _row_maker(self, compiled: Compiled) -> Callable[[Iterable[Any]], Row]:
        fields: Sequence[str] = getattr(self.row, "_fields", ())
        names = [name for name, _ in compiled.columns]
        if fields and names:
            known = [field if name is None else name for name, field in zip(names, fields, strict=False)]
            if len(names) != len(fields) or known != list(fields):
                raise TypeError(f"{self.place}: the statement selects {names}, its row has {list(fields)}")
        row: Any = self.row or tuple
        make = partial(tuple.__new__, row)  # half the time of ``_make``
        decoders = [convert for _, convert in compiled.columns]
        for place, field in enumerate(fields[: len(decoders)]):
            # SQLite has no booleans: a condition is 0 or 1.
            if decoders[place] is None and row.__annotations__[field] in (bool, "bool"):
                decoders[place] = bool
        converters = [(place, convert) for place, convert in enumerate(decoders) if convert is not None]
        if not converters:
            return make

        def converted(values: Iterable[Any]) -> Row:
            changed = list(values)
            for place, convert in converters:
                changed[place] = convert(changed[place])
            made: Row = make(changed)
            return made

        return converted

    def _execute(self, conn: sqlite3.Connection, values: dict[str, Any]) -> sqlite3.Cursor:
        compiled = self._compiled or self.compiled
        for name, encode in self._encoders:
            values[name] = encode(values[name])
        return conn.execute(compiled.sql, values)

    def run(self, conn: sqlite3.Connection, /, **values: Any) -> sqlite3.Cursor:
        """Run the statement; return its cursor, for example for ``rowcount``."""
        return self._execute(conn, values)

    def all(self, conn: sqlite3.Connection, /, **values: Any) -> list[Row]:
        """Return every row."""
        cursor = self._execute(conn, values)
        return list(map(self._make, cursor))

    def each(self, conn: sqlite3.Connection, /, **values: Any) -> Iterator[Row]:
        """Iterate over the rows without loading all of them."""
        cursor = self._execute(conn, values)
        return map(self._make, cursor)

    def page(self, conn: sqlite3.Connection, most: int, /, **values: Any) -> tuple[list[Row], bool]:
        """Return the first ``most`` rows, fewer once they have PAGE_BYTES, and whether more follow (``take``)."""
        rows, more = take(self._execute(conn, values), most)
        return list(map(self._make, rows)), more

    def one(self, conn: sqlite3.Connection, /, **values: Any) -> Row | None:
        """Return the first row, if any."""
        found = self._execute(conn, values).fetchone()
        return None if found is None else self._make(found)

    def value(self, conn: sqlite3.Connection, /, **values: Any) -> Any:
        """Return the first column of the first row; None without a row."""
        found = self._execute(conn, values).fetchone()
        if found is None or self._decode_first is None:
            return None if found is None else found[0]
        return self._decode_first(found[0])

    def many(self, conn: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Run an INSERT, or SQL with ``{rows:…}``, over all ``rows``, each with its values in the order of the slots
        (``execute_rows``)."""
        if not rows:
            return
        if self._bulk is None:
            self._bulk = _Bulk.of(self.compiled, self.place, getattr(rows[0], "_fields", None))
        sql, encoders = self._bulk
        if encoders:
            rows = [[value if e is None else e(value) for e, value in zip(encoders, row, strict=True)] for row in rows]
        execute_rows(conn, sql, rows)


class _Bulk(NamedTuple):
    """A statement over many rows: SQL with ``{rows}``, and the encoders of a row's values (empty: none has one)."""

    sql: str
    encoders: Sequence[Convert | None]

    @classmethod
    def of(cls, compiled: Compiled, place: str, fields: Sequence[str] | None) -> _Bulk:
        found = _ROWS.search(compiled.sql) or _VALUES.search(compiled.sql)
        if found is None:
            raise TypeError(f"{place}: the statement has neither VALUES of slots alone nor {{rows:…}}")
        names = [name.strip().removeprefix(":") for name in found[1].split(",")]
        if fields is not None and list(fields) != names:
            raise TypeError(f"{place}: the statement stores {names}, its rows have {list(fields)}")
        encoders = [compiled.slots.get(name) for name in names]
        start, end = found.span()
        head = "VALUES " if found.re is _VALUES else ""
        return cls(compiled.sql[:start] + head + "{rows}" + compiled.sql[end:], encoders if any(encoders) else ())


class Statement(_Statement[Row]):
    """A Peewee query, or a function that builds it at the first use: an import builds no queries. ``row``: a NamedTuple
    with the selected columns in their order.

    Selected fields are decoded (ids, addresses, JSON, booleans), those of subqueries are not; a column that the row
    declares as bool is a bool. Constants stand in the SQL, because SQLite uses a partial index only for a constant.
    """

    @overload
    def __init__(self: Statement[tuple[Any, ...]], query: Query | Callable[[], Query]) -> None: ...
    @overload
    def __init__(self, query: Query | Callable[[], Query], row: type[Row]) -> None: ...
    def __init__(self, query: Query | Callable[[], Query], row: type[Row] | None = None) -> None:
        super().__init__(row)
        self._query = query

    def _compile(self) -> Compiled:
        query = self._query if isinstance(self._query, Query) else self._query()
        slots: dict[str, Convert] = {}
        context = SqliteDatabase(None).get_sql_context(value_literals=True, slots=slots)
        sql, left = context.sql(query).query()  # type: ignore[no-untyped-call]
        assert not left, f"{self.place}: {left} is not in the SQL"
        columns = [_column(node) for node in getattr(query, "_returning", None) or ()]
        return Compiled(sys.intern(sql), slots, columns)


class TextStatement(_Statement[Row]):
    """SQL that Peewee cannot express, for the ``reason``, with slots ``:name`` and ``{rows:name, name}`` for many rows.

    ``encode`` and ``decode``: the fields of slots and of columns that are encoded and decoded as the fields are.
    """

    @overload
    def __init__(
        self: TextStatement[tuple[Any, ...]],
        sql: str,
        *,
        reason: str,
        encode: Mapping[str, Field[Any]] = {},
    ) -> None: ...
    @overload
    def __init__(
        self,
        sql: str,
        row: type[Row],
        *,
        reason: str,
        encode: Mapping[str, Field[Any]] = {},
        decode: Mapping[str, Field[Any]] = {},
    ) -> None: ...
    def __init__(
        self,
        sql: str,
        row: type[Row] | None = None,
        *,
        reason: str,
        encode: Mapping[str, Field[Any]] = {},
        decode: Mapping[str, Field[Any]] = {},
    ) -> None:
        super().__init__(row)
        self.reason = reason
        self._text = sql
        self._encode = encode
        self._decode = decode

    def _compile(self) -> Compiled:
        slots = {name: field.db_value for name, field in self._encode.items()}
        fields: Sequence[str] = getattr(self.row, "_fields", ())
        columns = [(None, self._decode[name].python_value if name in self._decode else None) for name in fields]
        return Compiled(self._text, slots, columns)


# --- variants ---------------------------------------------------------------------------------------------------------


class Variants(Generic[P, S]):
    """A function that builds one of several statements, each at its first use."""

    def __init__(self, build: Callable[P, S], choices: Sequence[Iterable[Any]]) -> None:
        self._build: Callable[..., S] = build
        self._choices = choices
        self._built: dict[tuple[Any, ...], S] = {}
        VARIANTS.append(self)

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> S:
        """Return the statement for the arguments, which are given by position. Raises ValueError for others than the
        choices: no test would have run their statement."""
        built = self._built.get(arguments)
        if built is None:
            if named or arguments not in set(product(*self._choices)):
                raise ValueError(f"{self._build.__qualname__}: {arguments} {named} is none of its choices")
            built = self._built[arguments] = self._build(*arguments)
        return built

    def all(self) -> list[S]:
        """Build every statement."""
        return [self(*arguments) for arguments in product(*self._choices)]  # type: ignore[call-arg]


def variants(*choices: Iterable[Any]) -> Callable[[Callable[P, S]], Variants[P, S]]:
    """Make a function that builds statements keep them; ``choices``: all values of each of its arguments."""
    values = [tuple(values) for values in choices]
    return lambda build: Variants(build, values)


def _column(node: Any) -> tuple[str | None, Convert | None]:
    """Return the name of a selected column, if it is known before a run, and how its values are decoded."""
    name = getattr(node, "_alias", None)
    plain = node.node if isinstance(node, Alias) else node
    convert = getattr(node, "_converter", None) or getattr(plain, "_converter", None)
    if isinstance(plain, Field):
        name = name or plain.column_name
        if convert is None and _encodes(plain):
            convert = plain.python_value
    return name, None if convert is _unchanged else convert


def _unchanged(value: Any) -> Any:
    return value


def _encodes(field: Field[Any]) -> bool:
    """Whether a field's values differ from those that are stored."""
    if isinstance(field, ForeignKeyField):
        return _encodes(field.rel_field)
    return isinstance(field, BooleanField) or type(field).db_value is not Field.db_value


_MADE: dict[tuple[str, str, int], int] = {}
STATEMENTS: list[_Statement[Any]] = []
"""Every statement of the modules imported so far."""
VARIANTS: list[Variants[Any, Any]] = []
"""Every function that builds statements, of the modules imported so far."""
