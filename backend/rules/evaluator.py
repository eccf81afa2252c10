"""Evaluate rules: each new activity exactly once, each metric alert when it is due.

Matching an activity, storing its notifications, the rule state and the position are one transaction in
``notifications.db``, so a crash neither loses nor repeats a firing.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.clock import MINUTE_MS
from flashflow.backend.core.errors import Erased, FlashFlowError, ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.metric_alerts import Metrics, Reading, is_breached, is_due, read
from flashflow.backend.domain.rule_conditions import ActivityFacts, Condition, conditions_of
from flashflow.backend.domain.rule_firing import (
    RuleState,
    Terms,
    after_firing,
    match,
    may_notify,
    terms_of,
    useful_until,
)
from flashflow.backend.notifications.send import SendOrders
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.rules.messages import activity_data, alert_data, request, used_variables
from flashflow.backend.schemas.requests import WEEK_MINUTES
from flashflow.backend.store.activity import rule_queries
from flashflow.backend.store.activity.activities import ACTIVITY_SEQS
from flashflow.backend.store.engine.errors import is_storage_fault
from flashflow.backend.store.engine.writer import TryCarefully, Tx
from flashflow.backend.store.notifications import rule_state, rules
from flashflow.backend.store.notifications.rules import Row

log = logging.getLogger(__name__)

BATCH = 256
"""Activities evaluated in one transaction."""
MOST_RECIPIENTS = 500
"""Notifications after which a transaction ends early: other writes wait for it."""
SAVE_POSITION_AFTER = 10_000
"""Activities without a match after which the position is saved, so that a start need not read them again."""
FAULT = "An internal error prevented sending; the log has the details."


class WatchedRule(NamedTuple):
    """A rule over activities with its conditions compiled."""

    row: Row
    conditions: tuple[Condition, ...]
    terms: Terms

    def matches(self, activity: ActivityFacts) -> bool:
        row = self.row
        return (
            activity.seq > row.after_seq
            and row.owner in {None, activity.app}
            and all(condition.holds(activity) for condition in self.conditions)
        )


class EnabledRules(NamedTuple):
    """Enabled rules as of ``revision``. No rule applies to activities up to ``seq`` ``after``."""

    revision: int
    by_type: Mapping[str, Sequence[WatchedRule]]
    has_alerts: bool
    after: int

    def matching(self, activities: Sequence[ActivityFacts]) -> list[Matched]:
        found = [(one, [rule for rule in self.by_type[one.activity_type] if rule.matches(one)]) for one in activities]
        return [(one, matching) for one, matching in found if matching]


Matched = tuple[ActivityFacts, list[WatchedRule]]


class Step(NamedTuple):
    """Matches evaluated in one transaction, among the activities with ``seq`` in (``after``, ``reached``]."""

    revision: int
    after: int
    reached: int
    matched: list[Matched]


class Evaluated(NamedTuple):
    """The last ``seq`` of a step, and the number of firings."""

    reached: int
    fired: int


class RuleEvaluator:
    """Evaluates the activities of one store against the rules of another."""

    def __init__(
        self,
        activity: UserActivityService,
        notifications: NotificationService,
        *,
        send: SendOrders,
        metrics: Metrics,
    ) -> None:
        self._store = notifications.store
        self._activities = activity.store
        self._order = notifications.order
        self._analytics = activity.analytics
        self._send = send
        self._metrics = metrics
        self._lock = threading.Lock()
        self._enabled: EnabledRules | None = None
        self._stale = True
        self._stopping = False
        self._position = -1
        self._saved = 0

    @property
    def is_watching(self) -> bool:
        """Whether there is, or may be, a rule over activities."""
        enabled = self._enabled
        return self._stale or enabled is None or bool(enabled.by_type)

    def invalidate(self) -> None:
        """Read the rules again before the next activity: one may have changed."""
        self._stale = True

    def stop(self) -> None:
        """Stop after the current step; the next start continues there."""
        self._stopping = True

    # --- activities -----------------------------------------------------------------------------------------------

    def evaluate_new(self) -> int:
        """Evaluate all activities stored so far; return the number of firings. Raises StorageError."""
        fired = 0
        with self._lock:
            until = self._activities.read(ACTIVITY_SEQS.last)
            while not self._stopping and (step := self._next(until)) is not None:
                done = Evaluated(step.reached, 0)
                if step.matched:
                    answer = self._store.write(partial(self._evaluate, step=step))
                    if answer is None:  # a rule changed since the step was prepared
                        continue
                    done, self._saved = answer, answer.reached
                self._position = done.reached
                fired += done.fired
            if self._position - self._saved > SAVE_POSITION_AFTER:
                self._save_position()
        return fired

    def save_position(self) -> None:
        """Let the next start continue where this one ended."""
        with self._lock:
            if self._position > self._saved:
                self._save_position()

    def _save_position(self) -> None:
        self._store.write(lambda tx: rule_state.move_mark(tx, self._position))
        self._saved = self._position

    def _next(self, until: int) -> Step | None:
        enabled = self._load_rules()
        if not enabled.by_type:
            return None
        after = max(self._position, enabled.after)
        if until <= after:
            return None
        since = self._store.clock.now_ms() - WEEK_MINUTES * MINUTE_MS
        types = list(enabled.by_type)
        found = self._activities.read(
            lambda conn: rule_queries.activities_since(conn, after, until, since, types, BATCH)
        )  # fmt: skip
        return Step(enabled.revision, after, found.reached, enabled.matching(found.activities))

    def _load_rules(self) -> EnabledRules:
        """Return the current rules. Requires the lock."""
        # ``until`` was read before: a rule made after this read begins after ``until`` too.
        if self._position < 0:
            self._start()
        self._stale = False
        mark, self._enabled = self._store.read(lambda conn: _enabled_rules(conn, self._enabled))
        self._position = max(self._position, mark.evaluated_to)
        return self._enabled

    def _start(self) -> None:
        """Continue at the saved position, or earlier if ``user_activities.db`` was restored from a backup."""
        last = self._activities.read(ACTIVITY_SEQS.last)
        if self._store.read(rule_state.latest_known) > last:
            self._store.write(lambda tx: rule_state.step_back(tx, last))
        self._position = self._saved = self._store.read(rule_state.mark).evaluated_to

    # --- alerts ---------------------------------------------------------------------------------------------------

    def check_alerts(self) -> int:
        """Check every due alert; return the number of firings. A failing alert does not stop the others; its error is
        raised at the end."""
        known = self._enabled
        if known is not None and not self._stale and not known.has_alerts:
            return 0
        fired, fault = 0, None
        for row in self._store.read(rules.enabled):
            try:
                fired += self._check(row)
            except FlashFlowError as error:
                fault = error
            except Exception:
                log.exception("the alert %r could not be checked", row.name)
        if fault is not None:
            raise fault
        return fired

    def _check(self, row: Row) -> bool:
        alert, now = row.body.alert, self._store.clock.now_ms()
        if alert is None or not is_due(alert, row.checked_at, now, self._analytics.zone):
            return False
        found = read(alert, self._metrics, now, self._analytics.zone, row.owner)
        return self._store.write(lambda tx: self._note_reading(tx, row, found))

    # --- transactions ---------------------------------------------------------------------------------------------

    def _evaluate(self, tx: Tx, step: Step) -> Evaluated | None:
        mark = rule_state.mark(tx.conn)
        if mark.revision != step.revision or mark.evaluated_to > step.after:
            return None
        evaluation = _Evaluation(tx, self._fire)
        reached = step.reached
        for activity, matching in step.matched:
            for rule in matching:
                evaluation.evaluate(rule, activity)
            if evaluation.recipients >= MOST_RECIPIENTS:
                reached = activity.seq
                break
        evaluation.save()
        rule_state.move_mark(tx, reached)
        return Evaluated(reached, evaluation.fired)

    def _note_reading(self, tx: Tx, row: Row, found: Reading) -> bool:
        current = rules.by_seq(tx.conn, row.seq)
        alert = row.body.alert
        # It may have been changed, disabled or checked since the reading.
        if current is None or alert is None or current != row:
            return False
        rules.note_check(tx, row.seq)
        zone, cooldown = self._analytics.zone, row.body.cooldown_minutes
        if not is_breached(alert, found) or not may_notify(row.last_fired_at, cooldown, tx.now_ms, zone):
            return False
        error = self._fire(tx, row, _recipients(row, None), alert_data(row.name, alert, found))
        rules.note(tx, row.seq, error is None, error)
        tx.events.append(Event("rule", row.name, "", row.app))
        return error is None

    def _fire(self, tx: Tx, row: Row, users: Sequence[str], data: dict[str, Any]) -> str | None:
        """Send to ``users``; return None, or the reason why nothing was written.

        An internal error is retried once, alone, and then counts as a refusal, so that it stops no other rule.
        """
        events = len(tx.events)
        if tx.careful:
            tx.conn.execute("SAVEPOINT firing")  # the transaction's end ends it
        try:
            order = self._order(request(row.body.send, users, data), row.app, row.owner)
            answer = self._send(tx, [msgspec.structs.replace(order, fallback=row.name)])[0]
            if isinstance(answer, Erased):  # its words name the user
                return "All recipients were erased."
            return str(answer) if isinstance(answer, FlashFlowError) else None
        except ValidationError as refusal:
            return str(refusal)
        except Exception as error:
            if _is_transient(error):
                raise
            if not tx.careful:
                raise TryCarefully from error
            log.exception("the rule %r could not send", row.name)
            tx.conn.execute("ROLLBACK TO firing")
            del tx.events[events:]
            return FAULT


class _Evaluation:
    """One transaction's evaluations: each rule state is read once and written once."""

    def __init__(self, tx: Tx, fire: Callable[[Tx, Row, Sequence[str], dict[str, Any]], str | None]) -> None:
        self._tx = tx
        self._fire = fire
        self._states: dict[tuple[int, str], tuple[WatchedRule, RuleState]] = {}
        self._outcomes: dict[int, tuple[Row, int, str | None]] = {}
        self._variables: dict[int, Sequence[str]] = {}
        self.recipients = 0
        self.fired = 0

    def evaluate(self, rule: WatchedRule, activity: ActivityFacts) -> None:
        tx, key = self._tx, (rule.row.seq, activity.user_id)
        state = self._states[key][1] if key in self._states else rule_state.uses_of(tx.conn, *key)
        fires, after = match(rule.terms, state, activity.at_ms, tx.now_ms)
        if fires and self._send(rule, activity):
            after = after_firing(tx.now_ms)
        if after != state:
            self._states[key] = (rule, after)

    def _send(self, rule: WatchedRule, activity: ActivityFacts) -> bool:
        row = rule.row
        users = _recipients(row, activity)
        if row.seq not in self._variables:
            self._variables[row.seq] = used_variables(self._tx.conn, row.body.send)
        data = activity_data(row.name, rule.terms.times, activity, self._variables[row.seq])
        error = self._fire(self._tx, row, users, data)
        _, fired, before = self._outcomes.get(row.seq, (row, 0, None))
        self._outcomes[row.seq] = (row, fired + (error is None), error or before)
        self.fired += error is None
        self.recipients += len(users)
        return error is None

    def save(self) -> None:
        """Write the rule states and the outcome of each rule."""
        tx = self._tx
        for (seq, user_id), (rule, state) in self._states.items():
            if (until := useful_until(rule.terms, state)) > tx.now_ms:
                rule_state.remember(tx, seq, user_id, state, until)
            else:
                rule_state.delete_state(tx, seq, user_id)
        for seq, (row, fired, error) in self._outcomes.items():
            rules.note(tx, seq, fired, error)
            tx.events.append(Event("rule", row.name, "", row.app))


def _is_transient(error: Exception) -> bool:
    """Whether ``error`` is a storage fault that a later retry may pass; errors in our own SQL or values are not."""
    ours = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)
    return isinstance(error, FlashFlowError) or (is_storage_fault(error) and not isinstance(error, ours))


def _recipients(row: Row, activity: ActivityFacts | None) -> list[str]:
    if isinstance(row.body.to, list):
        return row.body.to
    assert activity is not None, "an alert names its recipients"
    return [activity.user_id]


def _enabled_rules(conn: sqlite3.Connection, known: EnabledRules | None) -> tuple[rule_state.Mark, EnabledRules]:
    """Return ``known`` while it is current, else read the enabled rules."""
    mark = rule_state.mark(conn)
    if known is not None and known.revision == mark.revision:
        return mark, known
    rows = rules.enabled(conn)
    by_type: dict[str, list[WatchedRule]] = {}
    for row in rows:
        if (on := row.body.on) is not None:
            watched = WatchedRule(row, conditions_of(on.where), terms_of(on, row.body.cooldown_minutes))
            by_type.setdefault(on.activity_type, []).append(watched)
    after = min((one.row.after_seq for some in by_type.values() for one in some), default=0)
    return mark, EnabledRules(mark.revision, by_type, any(row.body.alert is not None for row in rows), after)
