"""Checks of request values that msgspec types cannot express."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flashflow.backend.core.clock import to_ms
from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import ValidationError

LATEST_MS = 7_258_118_400_000
"""Year 2200; later times (and times before 1970) are refused as errors."""

DEEPEST = 100
"""Nesting levels of a caller's object. Python's recursion limit depends on the call stack, so without a fixed limit one
function could store an object that another could not read."""

MOST_DATA = 32 * 1024 * 1024
"""Characters of ``data`` that one request may store over all its users: 1 MiB for each of 1,000 users would block other
writes for ten seconds."""


def timestamp_ms(field: str, value: datetime) -> int:
    """Convert an aware time to milliseconds since 1970. Raises ValidationError before 1970 and after 2200."""
    if value.tzinfo is None:
        raise ValidationError.of(field, "needs a time with an offset, like 2026-11-22T10:15:30Z")
    ms = to_ms(value)
    if not 0 <= ms <= LATEST_MS:
        raise ValidationError.of(field, "must be between 1970 and 2200")
    return ms


def time_range(since: datetime | None, until: datetime | None) -> tuple[int | None, int | None]:
    """Return both ends in ms since 1970. Raises ValidationError, naming every end out of range."""
    ends: list[int | None] = [None, None]
    faults = ErrorCollector()
    for index, (field, time) in enumerate((("since", since), ("until", until))):
        with faults:
            if time is not None:
                ends[index] = timestamp_ms(field, time)
    faults.done()
    return ends[0], ends[1]


def metadata_json(value: dict[str, Any] | None, field: str = "metadata") -> str | None:
    """Encode a caller's object as JSON. Raises ValidationError for values without a JSON form and too deep nesting."""
    if not value:
        return None
    try:
        text = to_json(value)
        if text.count("{") + text.count("[") > DEEPEST and depth(value) > DEEPEST:
            raise ValidationError.of(field, f"is nested more than {DEEPEST} levels deep")
        return text
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError.of(field, f"is not plain JSON: {error}") from None


def data_json(value: dict[str, Any] | None, users: int) -> str | None:
    """Encode a notification's ``data``, which is stored once per user. Raises ValidationError."""
    text = metadata_json(value, "data")
    if text is not None and len(text) * users > MOST_DATA:
        raise ValidationError.of("data", f"is too long for {users} users: {MOST_DATA // users} characters at most")
    return text


def depth(value: object) -> int:
    """Return the nesting depth of objects and lists."""
    levels = 0
    level: list[Any] = [value]
    while level := [inner for inner in level if isinstance(inner, dict | list | tuple)]:
        levels += 1
        level = [part for inner in level for part in (inner.values() if isinstance(inner, dict) else inner)]
    return levels
