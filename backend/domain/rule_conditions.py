"""Conditions of a rule on an activity. Pure.

Conditions compare values of the same JSON type only: a text never equals a number, ``true`` is not 1. A missing or
``null`` value satisfies only ``ne`` and ``exists: false``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.rules import ORDERED, QUOTED_KEY, WhereIn

_QUOTED = re.compile(rf"(?P<key>{QUOTED_KEY})(\.|\Z)")
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class ActivityFacts(msgspec.Struct, dict=True):
    """Activity as input of rules; ``metadata_json`` is decoded at first use."""

    seq: int
    id: str
    user_id: str
    activity_type: str
    session_id: str
    app: str
    at_ms: int
    received_ms: int
    metadata_json: str | None
    page_url: str | None
    referrer: str | None
    user_agent: str | None

    @cached_property
    def metadata(self) -> dict[str, Any]:
        return _decode_object(self.metadata_json) if self.metadata_json else {}

    def value(self, path: Path) -> Any:
        """Return the value at ``path``; None where there is none."""
        if path.name != "metadata":
            return getattr(self, path.name)
        found = _inside(self.metadata, path.keys)
        return _at(self.metadata, path.quoted) if found is None and path.quoted else found


class Path(NamedTuple):
    """Path of a condition's field: ``name``, and in the metadata ``keys``, several of which may form one dotted key.

    ``quoted`` holds the exact keys where the field quotes any.
    """

    name: str
    keys: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()


class Condition(NamedTuple):
    """Prepared WhereIn."""

    path: Path
    op: str
    value: Any

    def holds(self, activity: ActivityFacts) -> bool:
        found = activity.value(self.path)
        if self.op == "exists":
            return (found is not None) is (self.value is not False)
        if found is None:
            return self.op == "ne"
        return _HOLDS[self.op](found, self.value)


def conditions_of(where: Sequence[WhereIn]) -> tuple[Condition, ...]:
    """Prepare the conditions."""
    return tuple(Condition(_path(one.field), one.op, one.value) for one in where)


def _path(field: str) -> Path:
    name, _, rest = field.partition(".")
    if not rest:
        return Path(name)
    parts: list[str] = []
    left, quotes = rest, False
    while left:
        match = _QUOTED.match(left)
        quotes |= match is not None
        key, left = (match["key"], left[match.end() :]) if match else (left.partition(".")[0], left.partition(".")[2])
        parts.append(msgspec.json.decode(key, type=str) if match else key)
    return Path(name, tuple(rest.split(".")), tuple(parts) if quotes else ())


def _inside(found: Any, keys: Sequence[str]) -> Any:
    """Return the value at ``keys``; several of them may form one dotted key, the longest with a value wins."""
    if not keys:
        return found
    if isinstance(found, dict):
        for end in range(len(keys), 0, -1):
            if (key := ".".join(keys[:end])) in found and (value := _inside(found[key], keys[end:])) is not None:
                return value
    return None


def _at(found: Any, keys: Sequence[str]) -> Any:
    """Return the value at exactly these ``keys``."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _same(found: Any, value: Any) -> bool:
    return _kind(found) == _kind(value) and bool(found == value)


def _kind(value: Any) -> str:
    """Return the JSON kind of a value; a bool is an int in Python, not in JSON."""
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(found: Any, value: Any) -> bool:
        kind = _kind(found)
        return kind in {"number", "text"} and kind == _kind(value) and compare(found, value)

    return holds


def _contains(found: Any, value: Any) -> bool:
    if isinstance(found, str):
        return isinstance(value, str) and value in found
    return isinstance(found, list) and any(_same(one, value) for one in found)


_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": _same,
    "ne": lambda found, value: not _same(found, value),
    "in": lambda found, value: any(_same(found, one) for one in value),
    "contains": _contains,
    "lt": _ordered(lambda found, value: found < value),
    "lte": _ordered(lambda found, value: found <= value),
    "gt": _ordered(lambda found, value: found > value),
    "gte": _ordered(lambda found, value: found >= value),
}
assert _HOLDS.keys() > ORDERED
