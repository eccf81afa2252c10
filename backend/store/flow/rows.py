"""Rows of models: insert with unique fields and references checked, list, look up."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from peewee import Value, fn

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.errors import Conflict
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.statement import Statement, columns, slot, slots, variants
from flashflow.backend.store.engine.write_command import Tx
from flashflow.backend.store.flow.models import FlowRow, FlowUniqueValue

MOST_ROWS = 100_000
"""Rows of one model. A table sorted by a field reads all of them."""

USER_MODEL = "User"
"""Model whose rows name users: a row with a user's id has the ``name`` and the ``role``."""


class Row(NamedTuple):
    """A stored row; ``created_at`` in milliseconds since 1970."""

    seq: int
    model: str
    key: str
    body: dict[str, Any]
    created_by: str | None
    created_at: int


def insert_row(
    tx: Tx, model: str, key: Any, body: Mapping[str, Any], unique: Mapping[str, Any], created_by: str | None
) -> int:
    """Insert a row; return its ``seq``. ``unique``: the values of unique fields. Raises Conflict that names the field
    whose value another row has, before anything is written."""
    conn = tx.conn
    if _KEYED.value(conn, model=model, key=to_json(key)):
        raise Conflict(f"There is a {model} {to_json(key)} already.")
    values = {field: to_json(value) for field, value in unique.items() if value is not None}
    for field, value in values.items():
        if _TAKEN.value(conn, model=model, field=field, value=value):
            raise Conflict(f"{field}: another {model} has {value}; it must be unique.")
    if _COUNT.value(conn, model=model) >= MOST_ROWS:
        raise Conflict(f"{model} has {MOST_ROWS:,} rows, which is the most.")
    seq: int = _INSERT.value(
        conn, model=model, key=to_json(key), body=dict(body), created_by=created_by, created_at=tx.now_ms
    )
    _INSERT_UNIQUE.many(conn, [(model, field, value, seq) for field, value in values.items()])
    return seq


def next_integer(conn: sqlite3.Connection, model: str) -> int:
    """Return the key after the highest integer key of a model."""
    return int(_NEXT.value(conn, model=model))


def has_value(conn: sqlite3.Connection, model: str, field: str, value: Any) -> bool:
    """Whether a row of the model has this value in the field."""
    return bool(_HAS_VALUE.value(conn, model=model, field=field, value=to_json(value)))


def newest_rows(conn: sqlite3.Connection, model: str, before: int, limit: int) -> tuple[list[Row], bool]:
    """Return rows of a model, newest first, below ``before``, and whether more follow."""
    return _NEWEST.page(conn, limit, model=model, before=before)


def sorted_rows(
    conn: sqlite3.Connection, model: str, field: str, descending: bool, limit: int, offset: int
) -> tuple[list[Row], bool]:
    """Return rows of a model in the order of a field, from ``offset`` on, and whether more follow."""
    return _sorted(descending).page(conn, limit, model=model, field=field, offset=offset)


def find_row(conn: sqlite3.Connection, model: str, key: Any) -> Row | None:
    """Return the row with that key."""
    return _BY_KEY.one(conn, model=model, key=to_json(key))


def keys_where(conn: sqlite3.Connection, model: str, field: str, value: Any) -> list[str]:
    """Return the keys, as JSON, of the rows with this value in the field."""
    return [key for (key,) in _KEYS_WHERE.each(conn, model=model, field=field, value=to_json(value))]


def keys_of(conn: sqlite3.Connection, model: str) -> list[str]:
    """Return every key of a model, as JSON."""
    return [key for (key,) in _KEYS.each(conn, model=model)]


def index_unique(tx: Tx, model: str, fields: Sequence[str]) -> None:
    """Index the stored values of unique ``fields``, and of no other. Raises Conflict for a value in two rows."""
    known = {field for (field,) in _INDEXED.each(tx.conn, model=model)}
    for field in known - set(fields):
        _DELETE_INDEX.run(tx.conn, model=model, field=field)
    added = [field for field in fields if field not in known]
    if not added:
        return
    values: dict[tuple[str, str], int] = {}
    for row in _ROWS_OF.each(tx.conn, model=model):
        for field in added:
            value = row.body.get(field)
            if value is not None and values.setdefault((field, to_json(value)), row.seq) != row.seq:
                raise Conflict(f"{model}.{field} cannot become unique: two rows have {to_json(value)}.")
    _INSERT_UNIQUE.many(tx.conn, [(model, field, value, seq) for (field, value), seq in values.items()])


def rows_of_user(conn: sqlite3.Connection, user_id: str, after: int, limit: int) -> tuple[list[Row], bool]:
    """Return the rows that a user created, and the row of the model User with their id, in the order of creation after
    ``after``, and whether more follow."""
    key = to_json(user_id)
    number = user_id if user_id.isdecimal() else key
    return _OF_USER.page(conn, limit, user=user_id, model=USER_MODEL, key=key, number=number, after=after)


_R, _U = FlowRow, FlowUniqueValue
_ROWS = _R.select(*columns(_R, Row))
_OF_MODEL = _R.model == slot("model")
_VALUE = fn.JSON_EXTRACT(_R.body, Value('$."').concat(slot("field")).concat('"'))
_SAME_VALUE = fn.JSON_EXTRACT(slot("value"), "$") == _VALUE
_KEYED = Statement(lambda: _R.select(_R.seq).where(_OF_MODEL, _R.key == slot("key")))
_BY_KEY = Statement(lambda: _ROWS.where(_OF_MODEL, _R.key == slot("key")), Row)
_TAKEN = Statement(
    lambda: _U.select(_U.row_seq).where(_U.model == slot("model"), _U.field == slot("field"), _U.value == slot("value"))
)
_COUNT = Statement(lambda: _R.select(fn.COUNT(_R.seq)).where(_OF_MODEL))
_INSERT = Statement(lambda: _R.insert(slots(_R.model, _R.key, _R.body, _R.created_by, _R.created_at)).returning(_R.seq))
_INSERT_UNIQUE = Statement(lambda: _U.insert(slots(_U.model, _U.field, _U.value, _U.row_seq)))
_NEXT = Statement(lambda: _R.select(fn.COALESCE(fn.MAX(_R.key.cast("INTEGER")), 0) + 1).where(_OF_MODEL))
_HAS_VALUE = Statement(lambda: _R.select(_R.seq).where(_OF_MODEL, _SAME_VALUE).limit(1))
_NEWEST = Statement(lambda: _ROWS.where(_OF_MODEL, _R.seq < slot("before")).order_by(_R.seq.desc()), Row)
_ROWS_OF = Statement(lambda: _ROWS.where(_OF_MODEL), Row)
_IS_USER = _OF_MODEL & ((_R.key == slot("key")) | (_R.key == slot("number")))
_OF_USER = Statement(
    lambda: _ROWS.where((_R.created_by == slot("user")) | _IS_USER, _R.seq > slot("after")).order_by(_R.seq), Row
)
_KEYS = Statement(lambda: _R.select(_R.key).where(_OF_MODEL).order_by(_R.seq))
_KEYS_WHERE = Statement(lambda: _R.select(_R.key).where(_OF_MODEL, _SAME_VALUE).order_by(_R.seq))
_INDEXED = Statement(lambda: _U.select(_U.field.distinct()).where(_U.model == slot("model")))
_DELETE_INDEX = Statement(lambda: _U.delete().where(_U.model == slot("model"), _U.field == slot("field")))


@variants((False, True))
def _sorted(descending: bool) -> Statement[Row]:
    """Build the statement that lists rows in the order of a field; rows with an equal value by age."""
    order = _VALUE.desc() if descending else _VALUE.asc()
    return Statement(_ROWS.where(_OF_MODEL).order_by(order, _R.seq.desc()).limit(-1).offset(slot("offset")), Row)
