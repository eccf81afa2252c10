"""Response types of endpoints, for the OpenAPI document: made from the records that handlers return."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from flashflow.backend.rules.dry_run import ActivityExample, AlertExample
from flashflow.backend.schemas import records
from flashflow.backend.schemas.requests import Timestamp
from flashflow.backend.store.notifications.rules import Rule
from flashflow.backend.store.notifications.schedules import Schedule

SCHEMAS = "#/components/schemas/"
_NAMES: Mapping[type, str] = {Rule: "RuleState", Schedule: "ScheduleState"}
"""Schema names of records whose own names belong to request types."""
_CHANGED: Mapping[tuple[type, str], Any] = {(records.Decided, "status"): records.DeliveryStatus}
"""(record, field) → its type in responses, for fields that are ``str`` in the record and an enum in the API."""


class ResponseType:
    """Object type of a response. Its struct is built for the OpenAPI document alone, because building all of them would
    be a tenth of the start."""

    def __init__(self, name: str, fields: Callable[[], Mapping[str, Any]], doc: str | None = None) -> None:
        self.name = name
        self._fields = fields
        self._doc = doc

    @cached_property
    def struct(self) -> type[msgspec.Struct]:
        return _struct(self.name, self._fields(), self._doc)


def response_type(name: str, kind: type[msgspec.Struct] | None = None, /, **fields: Any) -> ResponseType:
    """Return a response type: ``success``, the fields of the record ``kind``, and others; an optional one is
    ``… | UnsetType``."""
    return ResponseType(name, lambda: {"success": Literal[True], **_fields(kind), **fields})


def page_type(name: str, field: str, kind: type[msgspec.Struct], **more: Any) -> ResponseType:
    """Return the response type of one page of ``kind``."""
    return response_type(name, **{field: list[kind]}, **more, next_cursor=str | None)  # type: ignore[valid-type]


def part(
    name: str, kind: type[msgspec.Struct] | None = None, /, *, doc: str | None = None, **fields: Any
) -> ResponseType:
    """Return an object type nested in a response: the fields of the record ``kind``, and others."""
    return ResponseType(name, lambda: {**_fields(kind), **fields}, doc)


@cache
def written(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return ``kind`` with every field required, as responses write it; nested records too."""
    return _struct(_NAMES.get(kind, kind.__name__), _fields(kind), kind.__doc__)


def _struct(name: str, fields: Mapping[str, Any], doc: str | None) -> type[msgspec.Struct]:
    made: list[Any] = []
    for field, hint in fields.items():
        made.append((field, _written(hint), UNSET) if UnsetType in get_args(hint) else (field, _written(hint)))
    return msgspec.defstruct(name, made, kw_only=True, namespace={"__doc__": doc})


def _fields(kind: type[msgspec.Struct] | None) -> dict[str, Any]:
    if kind is None:
        return {}
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.encode_name: _CHANGED.get((kind, field.name), hints[field.name]) for field in msgspec.structs.fields(kind)
    }


def _written(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, ResponseType):
        return hint.struct
    if isinstance(hint, type) and issubclass(hint, records.Record):
        return written(hint)
    if origin in {Union, types.UnionType}:
        return Union[tuple(map(_written, arguments))]  # noqa: UP007 built at run time
    if origin is tuple:
        return list[_written(arguments[0])]  # type: ignore[misc]
    if origin in {list, dict}:
        return origin[tuple(map(_written, arguments))]
    return Timestamp if hint is datetime else hint


EXAMPLE_KINDS = (ActivityExample, AlertExample)
EXAMPLES: Any = Annotated[
    list[Any],
    Meta(extra_json_schema={"items": {"anyOf": [{"$ref": SCHEMAS + kind.__name__} for kind in EXAMPLE_KINDS]}}),
]
"""Examples of a dry run, all of one kind: msgspec has no union of two lists."""
DECIDED: Any = list[records.Decided]
DETAIL: Any = part("NotificationDetail", records.Notification, deliveries=list[records.Delivery])
SENT: Any = part("SentToUser", notification_id=str, user_id=str, status=records.NotificationStatus, deliveries=DECIDED)
BATCH = response_type(
    "BatchAnswer", accepted=int, duplicates=int,
    rejected=list[part("RejectedActivity", index=int, errors=list[part("FieldFault", field=str, message=str)])],  # type: ignore[misc]
)  # fmt: skip
SUCCESS = response_type("SuccessAnswer")
