"""Tables of erasure, consent and pruning."""

from __future__ import annotations

from typing import ClassVar

from peewee import BooleanField, TextField

from flashflow.backend.store.engine.models import BaseModel, BytesField, MillisecondsField, is_false


class Tombstone(BaseModel):
    """The salted hash of an erased user id, in both files.

    ``left_to_do`` and ``user_id`` are set only during an erasure, so that the next start can finish it.
    """

    user_hash = BytesField(primary_key=True)
    erased_at = MillisecondsField()
    left_to_do = TextField(null=True)
    user_id = TextField(null=True)

    class Meta:
        table_name = "tombstones"
        without_rowid = True


class TombstoneSalt(BaseModel):
    """One row in each file: its salt."""

    salt = BytesField()

    class Meta:
        table_name = "tombstone_salt"
        primary_key = False
        initial_rows: ClassVar = ("INSERT INTO tombstone_salt VALUES (randomblob(32))",)


class Consent(BaseModel):
    """Whether a user's activities may be stored."""

    user_id = TextField(primary_key=True)
    tracking = BooleanField()
    updated_at = MillisecondsField()

    class Meta:
        table_name = "consents"
        without_rowid = True


Consent.add_index(Consent.user_id, name="consents_refused", where=is_false(Consent.tracking))


class Pruned(BaseModel):
    """One row: activities before this time (0: nothing was pruned) may be missing.

    Nothing may be recalculated from them.
    """

    before = MillisecondsField()

    class Meta:
        table_name = "pruned"
        primary_key = False
        initial_rows: ClassVar = ("INSERT INTO pruned VALUES (0)",)
