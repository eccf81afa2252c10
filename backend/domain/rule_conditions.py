"""Rule evaluation: conditions on an activity, matches within a time span, cool-down. Pure.

Times are milliseconds since 1970. Conditions compare values of the same JSON type only: a text never equals a number,
``true`` is not 1. A missing or ``null`` value satisfies only ``ne`` and ``exists: false``.
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from flashflow.backend.core.clock import DAY_MS, MINUTE_MS
from flashflow.backend.schemas.rules import ORDERED, QUOTED_KEY, OnIn, WhereIn

LATE_MS = DAY_MS
"""An activity received later than this after its time counts as a match, but does not make a rule fire."""

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


class Terms(NamedTuple):
    """Firing terms of a rule: ``times`` matches within ``within_ms``, at most once in ``cooldown_ms``."""

    times: int
    within_ms: int
    cooldown_ms: int


class RuleState(NamedTuple):
    """A rule's state for one user: times of the newest matches since the last firing (oldest first), and the time of
    the last firing."""

    times: tuple[int, ...] = ()
    fired_at: int | None = None


NONE_YET = RuleState()


def conditions_of(where: Sequence[WhereIn]) -> tuple[Condition, ...]:
    """Prepare the conditions."""
    return tuple(Condition(_path(one.field), one.op, one.value) for one in where)


def terms_of(on: OnIn, cooldown_minutes: int) -> Terms:
    """Prepare the firing terms."""
    return Terms(on.times, (on.within_minutes or 0) * MINUTE_MS, cooldown_minutes * MINUTE_MS)


def match(terms: Terms, state: RuleState, at_ms: int, now_ms: int) -> tuple[bool, RuleState]:
    """Evaluate a match of time ``at_ms`` at ``now_ms``. Return whether the rule fires, and its state if no notification
    is sent (after one it is ``after_firing(now_ms)``).

    With ``times`` 1 any match fires. Otherwise the match must be one of the ``times`` newest since the last firing, and
    these must lie within ``within_ms``. A firing resets the count. Matches count during the cool-down too.
    """
    cooling = state.fired_at is not None and abs(now_ms - state.fired_at) < terms.cooldown_ms
    may_fire = not cooling and now_ms - at_ms <= LATE_MS
    if terms.times == 1:
        return may_fire, state
    times = list(state.times)
    insort(times, at_ms)
    kept = [time for time in times if time >= times[-1] - terms.within_ms][-terms.times :]
    fires = may_fire and len(kept) == terms.times and at_ms >= kept[0]
    return fires, RuleState(tuple(kept), state.fired_at)


def after_firing(now_ms: int) -> RuleState:
    """Return the state after a firing that sent a notification."""
    return RuleState((), now_ms)


def useful_until(terms: Terms, state: RuleState) -> int:
    """Return the time until which ``state`` can affect an evaluation, late activities included."""
    counts = state.times[-1] + terms.within_ms + LATE_MS if state.times else 0
    cools = state.fired_at + terms.cooldown_ms if state.fired_at is not None else 0
    return max(counts, cools)


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
