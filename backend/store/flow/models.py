"""Tables of ``.flow`` projects in ``notifications.db``."""

from __future__ import annotations

from peewee import CompositeKey, TextField

from flashflow.backend.store.engine.models import BaseModel, MillisecondsField, ObjectField, SequenceField, parent


class FlowRow(BaseModel):
    """A row of a model. ``key`` is the JSON of its primary field, ``body`` has all fields. Removing the model's
    declaration keeps its rows."""

    seq = SequenceField()
    model = TextField()
    key = TextField()
    body = ObjectField(null=True)
    created_by = TextField(null=True)
    created_at = MillisecondsField()

    class Meta:
        table_name = "flow_rows"


FlowRow.add_index(FlowRow.model, FlowRow.key, name="flow_rows_key", unique=True)
FlowRow.add_index(FlowRow.model, name="flow_rows_model")
FlowRow.add_index(FlowRow.created_by, name="flow_rows_created_by", where=FlowRow.created_by.is_null(False))


class FlowUniqueValue(BaseModel):
    """The value, as JSON, of a unique field in a row."""

    model = TextField()
    field = TextField()
    value = TextField()
    row_seq = parent(FlowRow, "row_seq")

    class Meta:
        table_name = "flow_unique_values"
        primary_key = CompositeKey("model", "field", "value")
        without_rowid = True


FlowUniqueValue.add_index(FlowUniqueValue.row_seq, name="flow_unique_values_row")


class FlowJob(BaseModel):
    """A job's schedule, and when it ran last. ``since`` is when this schedule was declared."""

    name = TextField(primary_key=True)
    schedule = TextField()
    since = MillisecondsField()
    last_at = MillisecondsField(null=True)
    last_error = TextField(null=True)

    class Meta:
        table_name = "flow_jobs"
        without_rowid = True


class FlowDeclaration(BaseModel):
    """A notification type, template or rule that a project declared, so that it can be removed with its declaration."""

    kind = TextField()
    name = TextField()

    class Meta:
        table_name = "flow_declarations"
        primary_key = CompositeKey("kind", "name")
        without_rowid = True
