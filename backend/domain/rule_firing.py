"""When a rule fires: matches within a time span, cool-down. Pure; times are milliseconds since 1970."""

from __future__ import annotations

from bisect import insort
from zoneinfo import ZoneInfo

from flashflow.backend.core.clock import DAY_MS, MINUTE_MS
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import local_time
from flashflow.backend.schemas.rules import OnIn

LATE_MS = DAY_MS
"""An activity received later than this after its time counts as a match, but does not make a rule fire."""


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


def may_notify(fired_ms: int | None, cooldown_minutes: int, now_ms: int, zone: ZoneInfo) -> bool:
    """Whether an alert may send a notification: at most one a day, and one per cool-down."""
    if fired_ms is None:
        return True
    same_day = local_time(fired_ms, zone).date() == local_time(now_ms, zone).date()
    return not same_day and abs(now_ms - fired_ms) >= cooldown_minutes * MINUTE_MS
