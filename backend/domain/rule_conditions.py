"""Whether an activity makes a rule fire: its conditions, its count within a time, its cool-down. Pure; times are
milliseconds since 1970.

Conditions compare like with like: a text is never a number, true is not 1. What is missing or ``null`` meets no
condition but ``ne`` and ``exists: false``.
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from flashflow.backend.core.clock import DAY_MS, MINUTE_MS
from flashflow.backend.schemas.rules import ORDERED, QUOTED_KEY, OnIn, WhereIn

LATE_MS = DAY_MS
"""What arrives later than this after it happened counts, but nobody is told of it any more."""

_QUOTED = re.compile(rf"(?P<key>{QUOTED_KEY})(\.|\Z)")
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class ActivityFacts:
    """An activity as rules see it; its metadata is read when the first condition asks for it."""

    __slots__ = ("_metadata", "_text", "activity_type", "app", "at_ms", "id", "page_url", "received_ms", "referrer",
                 "seq", "session_id", "user_agent", "user_id")  # fmt: skip

    def __init__(
        self,
        seq: int,
        id: str,
        user_id: str,
        activity_type: str,
        session_id: str,
        app: str,
        at_ms: int,
        received_ms: int,
        metadata: str | None,
        page_url: str | None,
        referrer: str | None,
        user_agent: str | None,
    ) -> None:
        """``metadata`` is JSON text."""
        self.seq = seq
        self.id = id
        self.user_id = user_id
        self.activity_type = activity_type
        self.session_id = session_id
        self.app = app
        self.at_ms = at_ms
        self.received_ms = received_ms
        self.page_url = page_url
        self.referrer = referrer
        self.user_agent = user_agent
        self._text = metadata
        self._metadata: dict[str, Any] | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        if self._metadata is None:
            self._metadata = _decode_object(self._text) if self._text else {}
        return self._metadata

    def value(self, path: Path) -> Any:
        """What stands at ``path``; None where nothing does."""
        if path.name != "metadata":
            return getattr(self, path.name)
        found = _inside(self.metadata, path.keys)
        return _at(self.metadata, path.quoted) if found is None and path.quoted else found


class Path(NamedTuple):
    """Where a value stands: in ``name``, and in the metadata at ``keys``, each of which may be part of a key with dots.
    ``quoted``: the keys alone, where the field quotes any."""

    name: str
    keys: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()


class Condition(NamedTuple):
    """A WhereIn made ready."""

    path: Path
    op: str
    value: Any

    def holds(self, happening: ActivityFacts) -> bool:
        found = happening.value(self.path)
        if self.op == "exists":
            return (found is not None) is (self.value is not False)
        if found is None:
            return self.op == "ne"
        return _HOLDS[self.op](found, self.value)


class Terms(NamedTuple):
    """When a rule fires: so many matches within ``within_ms``, at most once in ``cooldown_ms``."""

    times: int
    within_ms: int
    cooldown_ms: int


class RuleState(NamedTuple):
    """What is remembered of one user: when the newest matches since the last firing happened, oldest first, and when
    the rule last fired."""

    times: tuple[int, ...] = ()
    fired_at: int | None = None


NONE_YET = RuleState()


def conditions_of(where: Sequence[WhereIn]) -> tuple[Condition, ...]:
    """The conditions made ready."""
    return tuple(Condition(_path(one.field), one.op, one.value) for one in where)


def terms_of(on: OnIn, cooldown_minutes: int) -> Terms:
    """How often it must happen, and how often it is told."""
    return Terms(on.times, (on.within_minutes or 0) * MINUTE_MS, cooldown_minutes * MINUTE_MS)


def match(terms: Terms, uses: RuleState, at_ms: int, now_ms: int) -> tuple[bool, RuleState]:
    """Whether the rule fires with one more match, which happened at ``at_ms`` and is judged at ``now_ms``; and what is
    remembered of it if nobody is told (else ``told(now_ms)``).

    With ``times`` 1 every match will do; else the match must be one of the ``times`` newest since the last firing, and
    these must lie within ``within_ms``. A firing begins the count anew. While the rule cools down matches go on
    counting.
    """
    cooling = uses.fired_at is not None and abs(now_ms - uses.fired_at) < terms.cooldown_ms
    may_fire = not cooling and now_ms - at_ms <= LATE_MS
    if terms.times == 1:
        return may_fire, uses
    times = list(uses.times)
    insort(times, at_ms)
    kept = [time for time in times if time >= times[-1] - terms.within_ms][-terms.times :]
    fires = may_fire and len(kept) == terms.times and at_ms >= kept[0]
    return fires, RuleState(tuple(kept), uses.fired_at)


def told(now_ms: int) -> RuleState:
    """What is remembered once somebody was told."""
    return RuleState((), now_ms)


def useful_until(terms: Terms, uses: RuleState) -> int:
    """Until when ``uses`` can make a difference: matches still count with one that arrives late."""
    counts = uses.times[-1] + terms.within_ms + LATE_MS if uses.times else 0
    cools = uses.fired_at + terms.cooldown_ms if uses.fired_at is not None else 0
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
    """The value at ``keys``, of which several may be one key with dots: the longest that leads to a value."""
    if not keys:
        return found
    if isinstance(found, dict):
        for end in range(len(keys), 0, -1):
            if (key := ".".join(keys[:end])) in found and (value := _inside(found[key], keys[end:])) is not None:
                return value
    return None


def _at(found: Any, keys: Sequence[str]) -> Any:
    """The value at exactly these ``keys``."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _same(found: Any, value: Any) -> bool:
    return _kind(found) == _kind(value) and bool(found == value)


def _kind(value: Any) -> str:
    """A bool is an int to Python, and neither to a person."""
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
