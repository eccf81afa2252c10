"""Border values that msgspec's types cannot check alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flashflow.backend.core.clock import to_ms
from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.errors import ValidationError

LATEST_MS = 7_258_118_400_000
"""The year 2200: beyond it (and before 1970) a time is a mistake."""

DEEPEST = 100
"""Levels that a caller's object may have. Python gives up at about a thousand, less whatever called: without a limit of
our own, what one place could still store another could no longer read."""

MOST_DATA = 32 * 1024 * 1024
"""Characters of ``data`` that one request may have stored, all its users together: 1 MiB for each of a thousand would
hold up every other write for ten seconds."""


def timestamp_ms(field: str, moment: datetime) -> int:
    """An aware time in milliseconds, refused where it cannot be meant: before 1970 or after 2200."""
    if moment.tzinfo is None:
        raise ValidationError.of(field, "needs a time with an offset, like 2026-11-22T10:15:30Z")
    ms = to_ms(moment)
    if not 0 <= ms <= LATEST_MS:
        raise ValidationError.of(field, "must lie between 1970 and 2200")
    return ms


def metadata_json(value: dict[str, Any] | None, field: str = "metadata") -> str | None:
    """A caller's object as JSON text; refused where it is not JSON at heart (sets, NaN, …) or nested too deeply."""
    if not value:
        return None
    try:
        text = to_json(value)
        if text.count("{") + text.count("[") > DEEPEST and _depth(value) > DEEPEST:
            raise ValidationError.of(field, f"is nested more than {DEEPEST} levels deep")
        return text
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError.of(field, f"is not plain JSON: {error}") from None


def data_json(value: dict[str, Any] | None, users: int) -> str | None:
    """``metadata_json`` of a notification's ``data``, which is stored once for each of so many users."""
    text = metadata_json(value, "data")
    if text is not None and len(text) * users > MOST_DATA:
        raise ValidationError.of("data", f"is too long for {users} users: {MOST_DATA // users} characters at most")
    return text


def _depth(value: object) -> int:
    """How many objects and lists lie inside each other."""
    depth = 0
    level: list[Any] = [value]
    while level := [inner for inner in level if isinstance(inner, dict | list | tuple)]:
        depth += 1
        level = [part for inner in level for part in (inner.values() if isinstance(inner, dict) else inner)]
    return depth
