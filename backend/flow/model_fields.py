"""Check values against the fields of a model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any
from uuid import UUID

from flashflow.backend.activity.ingest import MODEL_KEY
from flashflow.backend.core.clock import to_ms
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.flow.language.declarations import Field, FieldType, Model
from flashflow.backend.schemas.values import metadata_json

LONGEST_STRING = 1_000
LONGEST_TEXT = 100_000
LONGEST_ROW = 256 * 1024
"""Characters of a row's JSON."""
_LARGEST = 2**63
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?")
_URL = re.compile(r"https?://[^\s\x00-\x1f\x7f]+")


def check_metadata(model: Model, metadata: Mapping[str, Any]) -> None:
    """Check an activity's metadata that names ``model``. Raises ValidationError for ``metadata.FIELD``."""
    is_field = model.field(MODEL_KEY) is not None
    check_fields(model, {name: value for name, value in metadata.items() if is_field or name != MODEL_KEY}, "metadata.")


def check_fields(model: Model, values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Check the values of one object: unknown and missing fields, types, choices. Return those that are not null.
    Raises ValidationError that names each wrong field, with ``path`` before it."""
    faults = ErrorCollector()
    known = {field.name for field in model.fields}
    for name in values.keys() - known:
        faults.add(f"{path}{name}", f"is no field of {model.name}")
    found: dict[str, Any] = {}
    for field in model.fields:
        value = values.get(field.name)
        if value is None:
            if field.required and not (field.auto or field.primary or field.default is not None):
                faults.add(f"{path}{field.name}", f"is required by {model.name}")
            continue
        with faults:
            check_value(field, value, f"{path}{field.name}")
            found[field.name] = value
    faults.done()
    if len(metadata_json(found, path.rstrip(".") or model.name) or "") > LONGEST_ROW:
        raise ValidationError.of(path.rstrip("."), f"is longer than {LONGEST_ROW:,} characters")
    return found


def check_value(field: Field, value: Any, name: str) -> None:
    """Check one value that is not null. Raises ValidationError."""
    expected, fits = _TYPES[field.type]
    if not fits(value):
        raise ValidationError.of(name, f"must be {expected}")
    if field.choices and str(value) not in field.choices:
        raise ValidationError.of(name, f"must be one of {', '.join(field.choices)}")


def from_text(field: Field, value: Any) -> Any:
    """Convert the text of an input to the field's type; a text that does not convert stays as it is. An empty one is
    null."""
    if not isinstance(value, str) or field.type in {"string", "text"}:
        return None if value == "" else value
    text = value.strip()
    if not text:
        return None
    convert = _FROM_TEXT.get(field.type)
    if convert is None:
        return text
    try:
        return convert(text)
    except (ValueError, RecursionError):
        return text


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "yes", "on", "1"}:
        return True
    if text.lower() in {"false", "no", "off", "0"}:
        return False
    raise ValueError(text)


def _integer(text: str) -> int:
    if len(text) > 20 or not _INTEGER.fullmatch(text):
        raise ValueError(text)
    return int(text)


_FROM_TEXT: Mapping[FieldType, Callable[[str], Any]] = {
    "integer": _integer,
    "decimal": lambda text: _integer(text) if _INTEGER.fullmatch(text) else float(text.replace("_", "x")),
    "boolean": _boolean,
    "json": json.loads,
    "object": json.loads,
    "array": json.loads,
}


def _is_text(most: int, without: str = "\0") -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= most and not any(one in value for one in without)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _matches(pattern: re.Pattern[str], most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= most and pattern.fullmatch(value) is not None


def _is_json(value: Any) -> bool:
    """Whether a value has a JSON form that is read back unchanged: NaN and the infinities have none."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _parses(parse: Callable[[str], object], most: int = 64) -> Callable[[Any], bool]:
    def parses(value: Any) -> bool:
        if not isinstance(value, str) or len(value) > most:
            return False
        try:
            parse(value)
        except (ValueError, OverflowError):
            return False
        return True

    return parses


def _date(text: str) -> date:
    """Parse one of the forms that ISO 8601 has, so that days can be compared and sorted as texts."""
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    return date.fromisoformat(text)


def _time(text: str) -> time:
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return time.fromisoformat(text)


def _timestamp(text: str) -> int:
    _date(text[:10])
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(text)
    return to_ms(value)


_TIMESTAMP = ("an RFC 3339 time with an offset, like 2026-11-22T10:15:30Z", _parses(_timestamp))
_TYPES: Mapping[FieldType, tuple[str, Callable[[Any], bool]]] = {
    "integer": ("a whole number", _is_integer),
    "decimal": ("a number", _is_number),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "string": (f"a text of one line, of {LONGEST_STRING:,} characters at most", _is_text(LONGEST_STRING, "\0\n\r")),
    "text": (f"a text of {LONGEST_TEXT:,} characters at most", _is_text(LONGEST_TEXT)),
    "timestamp": _TIMESTAMP,
    "datetime": _TIMESTAMP,
    "date": ("a date, like 2026-11-22", _parses(_date)),
    "time": ("a time of day, like 10:15", _parses(_time)),
    "email": ("an e-mail address", _matches(_EMAIL, 254)),
    "url": ("an http or https address", _matches(_URL, 2_048)),
    "uuid": ("a UUID", _parses(UUID)),
    "json": ("JSON", _is_json),
    "object": ("an object", lambda value: isinstance(value, dict) and _is_json(value)),
    "array": ("a list", lambda value: isinstance(value, list) and _is_json(value)),
    "reference": (
        "the id of a row: a text or a whole number", lambda value: _is_integer(value) or _is_text(255)(value),
    ),
}  # fmt: skip
