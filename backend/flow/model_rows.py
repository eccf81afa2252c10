"""Save rows of models: defaults, values that FlashFlow fills in, unique fields, references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from flashflow.backend.core.clock import rfc3339
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import NotFound
from flashflow.backend.core.events import Event
from flashflow.backend.flow.language.declarations import Field, Model, Project
from flashflow.backend.flow.model_fields import check_fields, from_text
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.flow import rows as table
from flashflow.backend.store.privacy import tombstones

ID = "id"
"""Key of a row whose model declares no primary field."""


class Parts(Protocol):
    """The service whose file has the rows."""

    notifications: NotificationService


def save_row(
    parts: Parts, project: Project, model: Model, fields: Sequence[str], given: Mapping[str, Any], user_id: str
) -> dict[str, Any]:
    """Check and insert a row from the values of ``fields``; return it. Raises ValidationError that names each wrong
    field, Conflict for a value that another row has, and Erased for an erased user."""
    faults = ErrorCollector()
    for name in given.keys() - set(fields):
        faults.add(name, "is no field of this form")
    faults.done()
    values = {}
    for name in fields:
        field = model.field(name)
        if field is None:
            raise NotFound(f"{model.name} has no field “{name}”.")
        values[name] = from_text(field, given.get(name))
    checked = check_fields(model, values)
    return parts.notifications.store.write(
        lambda tx: _insert(tx, parts.notifications.new_id, project, model, checked, user_id)
    )


def _insert(
    tx: Tx, new_id: Callable[[], str], project: Project, model: Model, checked: Mapping[str, Any], user_id: str
) -> dict[str, Any]:
    if tombstones.find(tx.conn, user_id) is not None:
        raise tombstones.refusal(user_id)
    row = {field.name: checked.get(field.name, field.default) for field in model.fields}
    primary = next((field for field in model.fields if field.primary), None)
    for field in model.fields:
        if row[field.name] is None and (field.auto or field.primary):
            row[field.name] = _filled(tx, new_id, model, field)
    _check_references(tx, project, model, row)
    key = new_id() if primary is None else row[primary.name]
    if primary is None:
        row.setdefault(ID, key)
    unique = {field.name: row[field.name] for field in model.fields if field.unique and not field.primary}
    table.insert_row(tx, model.name, key, row, unique, user_id)
    tx.events.append(Event("flow", model.name, user_id))
    return row


def _filled(tx: Tx, new_id: Callable[[], str], model: Model, field: Field) -> Any:
    """Return the value that FlashFlow fills in: the next number, the time, or a new id."""
    match field.type:
        case "integer" | "reference" | "decimal":
            return table.next_integer(tx.conn, model.name) if field.primary else None
        case "timestamp" | "datetime":
            return rfc3339(tx.now_ms)
        case "date":
            return rfc3339(tx.now_ms)[:10]
        case "string" | "text" | "uuid":
            return new_id()
        case _:
            return None


def _check_references(tx: Tx, project: Project, model: Model, row: Mapping[str, Any]) -> None:
    faults = ErrorCollector()
    for field in model.fields:
        value, reference = row[field.name], field.references
        if value is None or reference is None:
            continue
        target = project.model(reference.model)
        if target is None or not _has_row(tx, target, reference.field, value):
            faults.add(field.name, f"there is no {reference.model} with {reference.field} {value}")
    faults.done()


def _has_row(tx: Tx, target: Model, field: str, value: Any) -> bool:
    declared = target.field(field)
    if declared is None or declared.primary:
        return table.find_row(tx.conn, target.name, value) is not None
    return table.has_value(tx.conn, target.name, field, value)
