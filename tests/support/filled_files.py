"""Rows in every table of both files: activities and notifications as users make them, one made-up row elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from peewee import AutoField, Field, ForeignKeyField, TextField

from flashflow.backend import NotificationService, UserActivityService
from flashflow.backend.core.clock import SystemClock, to_datetime
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.models import (
    AddressField,
    BytesField,
    IdField,
    JsonField,
    ObjectField,
    StringsField,
)
from flashflow.backend.store.engine.schema import FileSchema
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.files import ACTIVITY_SCHEMA, NOTIFICATION_SCHEMA


def fill(activities: UserActivityService, notifications: NotificationService) -> None:
    """Put rows into every table of two new files."""
    now = to_datetime(SystemClock().now_ms())
    for user in ("ada", "bob", "cy"):
        for number in range(30):
            activities.track_activity(
                user,
                ("page_view", "export", "search")[number % 3],
                timestamp=now - timedelta(hours=5 * number),
                page_url=f"/page/{number % 4}",
                metadata={"feature": f"feature {number % 5}"},
                user_agent="Tests/1.0",
                ip_address="192.0.2.7",
            )
        sent = [notifications.send_notification(user, f"Title {n}", "Message", "builds") for n in range(5)]
        notifications.mark_notification_as_read(sent[0].notification_id)
        notifications.send_notification(user, "Later", "Message", scheduled_at=now + timedelta(days=1))
        notifications.update_notification_preference(user, "builds", "email", False)
        notifications.register_device_token(user, f"token-of-{user}", "android")
    notifications.create_notification_template("build", "{name}", "{name} is done.")
    activities.rollups.aggregate_pending()
    for store, schema in ((activities.store, ACTIVITY_SCHEMA), (notifications.store, NOTIFICATION_SCHEMA)):
        fill_empty_tables(store, schema)


def fill_empty_tables(store: Store, schema: FileSchema) -> None:
    """Put one made-up row into each table that has none."""

    def insert(tx: Tx, items: Any) -> list[None]:
        for model in schema.models:
            table = model._meta.table_name
            if tx.conn.execute(f"SELECT 1 FROM {table}").fetchone() is None:
                values = {field.column_name: made_up(field) for field in model._meta.sorted_fields}
                places = ", ".join("?" * len(values))
                tx.conn.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", list(values.values()))
        return [None] * len(items)

    store.run(Write(insert, None))


def made_up(field: Field[Any]) -> Any:
    """A value as ``field`` stores it."""
    if isinstance(field, JsonField | StringsField):
        return "[]"
    if isinstance(field, ObjectField):
        return '{"a":1}'
    if isinstance(field, IdField | AddressField):
        return field.db_value("made-up")
    if isinstance(field, BytesField):
        return b"made up"
    if isinstance(field, TextField):
        return "made up"
    return 1 if isinstance(field, AutoField | ForeignKeyField) or not field.null else None
