"""Base class and fields of the Peewee models, which are the schema of both files.

Models are not bound to a database: ``schema`` creates the tables of a file from them, ``statement`` compiles queries
over them. Each domain's models stand in ``models`` of its store package; ``store.files`` lists them by file.

In ``Meta``, ``triggers`` and ``initial_rows`` are SQL statements that follow the creation of the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    CompositeKey,
    Default,
    Expression,
    Field,
    ForeignKeyField,
    Model,
    TextField,
)

from flashflow.backend.core.encoding import (
    decode_address,
    decode_id,
    decode_json,
    encode_address,
    encode_id,
    from_object,
    from_strings,
    to_json,
)

if TYPE_CHECKING:
    TextLikeField = Field[str]
    BytesLikeField = Field[bytes]
else:
    TextLikeField = BytesLikeField = Field  # generic only in its stubs


class IdField(TextLikeField):
    """An id as bytes: 16 for a UUID, UTF-8 for any other id of a caller (``encode_id``)."""

    field_type = "BLOB"

    def db_value(self, value: str | None) -> bytes | None:
        return None if value is None else encode_id(value)

    def python_value(self, value: bytes | None) -> str | None:
        return None if value is None else decode_id(value)


class AddressField(TextLikeField):
    """An IP address as 4 or 16 bytes, or other text as UTF-8 (``encode_address``)."""

    field_type = "BLOB"

    def db_value(self, value: str | None) -> bytes | None:
        return encode_address(value)

    def python_value(self, value: bytes | None) -> str | None:
        return decode_address(value)


class BytesField(BytesLikeField):
    """Bytes as they are."""

    field_type = "BLOB"


class MillisecondsField(BigIntegerField):
    """A time in milliseconds since 1970 (UTC)."""


class SequenceField(BigAutoField):
    """The order of arrival. AUTOINCREMENT: a number is never reused, so that positions in streams stay valid."""

    def __init__(self) -> None:
        super().__init__(constraints=[SQL("AUTOINCREMENT")])


class ObjectField(TextField):
    """A JSON object; NULL reads as an empty object."""

    def db_value(self, value: dict[str, Any] | None) -> str | None:
        return to_json(value) if value else None

    def python_value(self, value: str | None) -> dict[str, Any]:
        return from_object(value)


class StringsField(TextField):
    """A JSON list of strings."""

    def db_value(self, value: tuple[str, ...] | None) -> str | None:
        return None if value is None else to_json(value)

    def python_value(self, value: str | None) -> tuple[str, ...] | None:
        return None if value is None else from_strings(value)


class JsonField(TextField):
    """JSON of one type. NULL, which an empty value is stored as, and damaged JSON read as ``otherwise``."""

    def __init__(self, type_: Any, otherwise: Any, **options: Any) -> None:
        self._decode = msgspec.json.Decoder(type_).decode
        self._otherwise = otherwise
        super().__init__(**options)

    def db_value(self, value: Any) -> str | None:
        return None if self.null and not value else to_json(value)

    def python_value(self, value: str | None) -> Any:
        return decode_json(self._decode, value, self._otherwise)


def zero() -> BigIntegerField:
    """Make an integer column whose default in SQL is 0."""
    return BigIntegerField(constraints=[Default(0)])


def false() -> BooleanField:
    """Make a boolean column whose default in SQL is false."""
    return BooleanField(constraints=[Default(0)])


def is_false(field: BooleanField) -> Expression:
    """Build the condition that a boolean column is false, as a partial index over it has it."""
    return Expression(field, "=", False)


def parent(model: type[Model], column: str) -> ForeignKeyField:
    """Make the column that names a row of ``model``, which takes this row with it when it is deleted."""
    # Without an index of its own: those of a table are all named and listed below it.
    return ForeignKeyField(model, column_name=column, on_delete="CASCADE", backref="+", index=False, lazy_load=False)


class BaseModel(Model):
    """A table."""

    class Meta:
        legacy_table_names = False
        # Every table names its key. Otherwise Peewee copies an unused field for each one.
        primary_key = False


class HighestRevision(BaseModel):
    """One row in each file: the highest revision of a deleted row."""

    # Stream positions are revisions and must never be reused.
    revision = BigIntegerField()

    class Meta:
        table_name = "highest_revision"
        primary_key = False
        initial_rows: ClassVar = ("INSERT INTO highest_revision VALUES (0)",)


def keep_revision(table: str) -> str:
    """Build the trigger that stores the highest revision of ``table`` when its row is deleted."""
    return (
        f"CREATE TRIGGER {table}_revision_kept AFTER DELETE ON {table} "
        f"WHEN OLD.revision > COALESCE((SELECT MAX(revision) FROM {table}), 0) "
        "BEGIN UPDATE highest_revision SET revision = MAX(revision, OLD.revision); END"
    )


class IdempotencyKey(BaseModel):
    """The response stored for an Idempotency-Key; ``fingerprint`` is the request's SHA-256."""

    app = TextField()
    key = TextField()
    fingerprint = BytesField()
    status = BigIntegerField()
    body = BytesField()
    created_at = MillisecondsField()

    class Meta:
        table_name = "idempotency_keys"
        primary_key = CompositeKey("app", "key")
        without_rowid = True


IdempotencyKey.add_index(IdempotencyKey.created_at, name="idempotency_keys_age")


class DamagedRow(BaseModel):
    """A row whose text was not UTF-8. ``row`` is the rowid, 0 in a WITHOUT ROWID table, whose key may be a user id."""

    table_name = TextField()
    row = BigIntegerField()
    column_name = TextField()
    found_at = MillisecondsField()

    class Meta:
        table_name = "damaged_rows"
        primary_key = CompositeKey("table_name", "row", "column_name")
        without_rowid = True
