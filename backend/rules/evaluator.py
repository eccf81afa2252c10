"""Rules at work: what arrived is judged exactly once, and figures are looked at when their time has come.

Judging an activity, telling whom it concerns, remembering it and moving the mark on are one transaction in
``notifications.db``; so a crash at any moment neither loses a firing nor repeats one.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from flashflow.backend.core.clock import MINUTE_MS
from flashflow.backend.core.errors import Erased, FlashFlowError, ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.domain.metric_alerts import Metrics, Reading, is_breached, is_due, may_notify, read
from flashflow.backend.domain.rule_conditions import (
    ActivityFacts,
    Condition,
    RuleState,
    Terms,
    conditions_of,
    match,
    terms_of,
    told,
    useful_until,
)
from flashflow.backend.notifications.send import Order
from flashflow.backend.rules.messages import activity_data, alert_data, request, wanted_by
from flashflow.backend.schemas.records import Sent
from flashflow.backend.schemas.requests import SendIn
from flashflow.backend.schemas.rules import WEEK_MINUTES
from flashflow.backend.store.activity import rule_queries
from flashflow.backend.store.activity.activities import last_seq
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.errors import is_storage_fault
from flashflow.backend.store.engine.writer import TryCarefully, Tx, Write
from flashflow.backend.store.notifications import rule_state
from flashflow.backend.store.notifications import rules as table
from flashflow.backend.store.notifications.rules import Row

log = logging.getLogger(__name__)

BATCH = 256
"""Activities that are judged in one transaction."""
MOST_TOLD = 500
"""Notifications after which a transaction ends early: other writes wait for it."""
FAR = 10_000
"""Activities of no rule's concern after which the mark is moved all the same, so that a start need not look at them."""
FAULT = "It could not be sent, by a fault of FlashFlow's own; its log says more."

Ordering = Callable[[SendIn, str, str | None], Order]
"""A checked order from a request, the app that sends it, and the only app whose templates may be filled in (None:
any). Raises ValidationError."""
Sending = Callable[[Tx, Sequence[Order]], Sequence[tuple[Sent, ...] | FlashFlowError]]


class WatchedRule(NamedTuple):
    """A rule over activities, made ready."""

    row: Row
    conditions: tuple[Condition, ...]
    terms: Terms

    def meets(self, happening: ActivityFacts) -> bool:
        row = self.row
        return (
            happening.seq > row.after_seq
            and row.owner in {None, happening.app}
            and all(condition.holds(happening) for condition in self.conditions)
        )


class RuleBook(NamedTuple):
    """Every rule that is switched on, as of ``revision``; ``after``: up to there no activity concerns any of them."""

    revision: int
    by_type: Mapping[str, Sequence[WatchedRule]]
    has_alerts: bool
    after: int

    def matching(self, happenings: Sequence[ActivityFacts]) -> list[Matched]:
        found = [(one, [rule for rule in self.by_type[one.activity_type] if rule.meets(one)]) for one in happenings]
        return [(one, rules) for one, rules in found if rules]


Matched = tuple[ActivityFacts, list[WatchedRule]]


class Step(NamedTuple):
    """What is judged at once: the matches among what arrived after ``after`` up to ``reached``."""

    revision: int
    after: int
    reached: int
    matched: list[Matched]


class Evaluated(NamedTuple):
    """How far a step came, and how often a rule told somebody."""

    reached: int
    fired: int


class RuleEvaluator:
    """Judges the activities of one store by the rules of another."""

    def __init__(
        self,
        store: Store,
        activities: Store,
        *,
        order: Ordering,
        send: Sending,
        zone: Callable[[], ZoneInfo],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._activities = activities
        self._order = order
        self._send = send
        self._zone = zone
        self._metrics = metrics
        self._one = threading.Lock()
        self._book: RuleBook | None = None
        self._stale = True
        self._ending = False
        self._place = -1
        self._written = 0

    @property
    def watches(self) -> bool:
        """Whether there is, or may be, a rule over activities."""
        book = self._book
        return self._stale or book is None or bool(book.by_type)

    def look_again(self) -> None:
        """A rule may have changed."""
        self._stale = True

    def end(self) -> None:
        """Judge no further than the step that is under way; the next start goes on there."""
        self._ending = True

    # --- activities -----------------------------------------------------------------------------------------------

    def judge_new(self) -> int:
        """Judge what has arrived by now; returns how often a rule told somebody. Raises StorageError."""
        fired = 0
        with self._one:
            until = self._activities.read(last_seq)
            while not self._ending and (step := self._next(until)) is not None:
                judged = Evaluated(step.reached, 0)
                if step.matched:
                    answer = self._store.run(Write(self._judge, step))
                    if answer is None:  # a rule was changed meanwhile
                        continue
                    judged, self._written = answer, answer.reached
                self._place = judged.reached
                fired += judged.fired
            if self._place - self._written > FAR:
                self._keep_place()
        return fired

    def keep_place(self) -> None:
        """Have the next start begin where this one ends."""
        with self._one:
            if self._place > self._written:
                self._keep_place()

    def _keep_place(self) -> None:
        self._store.run(Write(_move, self._place))
        self._written = self._place

    def _next(self, until: int) -> Step | None:
        book = self._current()
        if not book.by_type:
            return None
        after = max(self._place, book.after)
        if until <= after:
            return None
        since = self._store.clock.now_ms() - WEEK_MINUTES * MINUTE_MS
        types = list(book.by_type)
        found = self._activities.read(
            lambda conn: rule_queries.arrived(conn, after, until, since, types, BATCH)
        )  # fmt: skip
        return Step(book.revision, after, found.reached, book.matching(found.happenings))

    def _current(self) -> RuleBook:
        """The rules as they are now; only with the lock. What is to be judged must be known before: a rule that comes
        after this look begins after it, too."""
        if self._place < 0:
            self._begin()
        self._stale = False
        mark, self._book = self._store.read(lambda conn: _look(conn, self._book))
        self._place = max(self._place, mark.judged)
        return self._book

    def _begin(self) -> None:
        """Start where the last process ended, or earlier where the activities' file has gone back to a backup."""
        last = self._activities.read(last_seq)
        if self._store.read(rule_state.latest_known) > last:
            self._store.run(Write(_step_back, last))
        self._place = self._written = self._store.read(rule_state.mark).judged

    # --- figures --------------------------------------------------------------------------------------------------

    def check_alerts(self) -> int:
        """Look at every figure whose time has come; returns how many alerts told somebody. What goes wrong with one
        keeps no other from being looked at, and is raised at the end."""
        book = self._book
        if book is not None and not self._stale and not book.has_alerts:
            return 0
        fired, fault = 0, None
        for row in self._store.read(table.enabled):
            try:
                fired += self._check(row)
            except FlashFlowError as error:
                fault = error
            except Exception:
                log.exception("the alert %r could not be looked at", row.name)
        if fault is not None:
            raise fault
        return fired

    def _check(self, row: Row) -> bool:
        alert, now = row.body.alert, self._store.clock.now_ms()
        if alert is None or not is_due(alert, row.checked_at, now, self._zone()):
            return False
        found = read(alert, self._metrics, now, self._zone(), row.owner)
        return self._store.run(Write(self._note_reading, (row, found)))

    # --- handlers for the writer ----------------------------------------------------------------------------------

    def _judge(self, tx: Tx, items: Sequence[Step]) -> list[Evaluated | None]:
        return [self._judged(tx, step) for step in items]

    def _judged(self, tx: Tx, step: Step) -> Evaluated | None:
        mark = rule_state.mark(tx.conn)
        if mark.revision != step.revision or mark.judged > step.after:
            return None
        sitting = _Sitting(tx, self._fire)
        reached = step.reached
        for happening, rules in step.matched:
            for rule in rules:
                sitting.judge(rule, happening)
            if sitting.told >= MOST_TOLD:
                reached = happening.seq
                break
        sitting.close()
        rule_state.move_mark(tx, reached)
        return Evaluated(reached, sitting.fired)

    def _note_reading(self, tx: Tx, items: Sequence[tuple[Row, Reading]]) -> list[bool]:
        return [self._noted(tx, row, found) for row, found in items]

    def _noted(self, tx: Tx, row: Row, found: Reading) -> bool:
        current = table.by_seq(tx.conn, row.seq)
        alert = row.body.alert
        # It may have been changed, switched off or looked at since.
        if current is None or alert is None or current != row:
            return False
        table.note_check(tx, row.seq)
        cooldown = row.body.cooldown_minutes
        if not is_breached(alert, found) or not may_notify(row.last_fired_at, cooldown, tx.now_ms, self._zone()):
            return False
        error = self._fire(tx, row, _recipients(row, None), alert_data(row.name, alert, found))
        table.note(tx, row.seq, error is None, error)
        tx.events.append(Event("rule", row.name, "", row.app))
        return error is None

    def _fire(self, tx: Tx, row: Row, users: Sequence[str], data: dict[str, Any]) -> str | None:
        """Tell ``users``; None, or why not, and then nothing was written. A fault of our own is tried a second time,
        alone, and then counts as a refusal, so that it stops no other rule."""
        events = len(tx.events)
        if tx.careful:
            tx.conn.execute("SAVEPOINT firing")  # the transaction's end ends it
        try:
            order = self._order(request(row.body.send, users, data), row.app, row.owner)
            answer = self._send(tx, [msgspec.structs.replace(order, fallback=row.name)])[0]
            if isinstance(answer, Erased):  # its words name the user
                return "Everyone whom it tells was erased."
            return str(answer) if isinstance(answer, FlashFlowError) else None
        except ValidationError as refusal:
            return str(refusal)
        except Exception as error:
            if _is_from_outside(error):
                raise
            if not tx.careful:
                raise TryCarefully from error
            log.exception("the rule %r could not tell", row.name)
            tx.conn.execute("ROLLBACK TO firing")
            del tx.events[events:]
            return FAULT


class _Sitting:
    """One transaction's judgements: what is remembered is read once and written once."""

    def __init__(self, tx: Tx, fire: Callable[[Tx, Row, Sequence[str], dict[str, Any]], str | None]) -> None:
        self._tx = tx
        self._fire = fire
        self._uses: dict[tuple[int, str], tuple[WatchedRule, RuleState]] = {}
        self._outcomes: dict[int, tuple[Row, int, str | None]] = {}
        self._wanted: dict[int, Sequence[str]] = {}
        self.told = 0
        self.fired = 0

    def judge(self, rule: WatchedRule, happening: ActivityFacts) -> None:
        tx, key = self._tx, (rule.row.seq, happening.user_id)
        uses = self._uses[key][1] if key in self._uses else rule_state.uses_of(tx.conn, *key)
        fires, after = match(rule.terms, uses, happening.at_ms, tx.now_ms)
        if fires and self._tell(rule, happening):
            after = told(tx.now_ms)
        if after != uses:
            self._uses[key] = (rule, after)

    def _tell(self, rule: WatchedRule, happening: ActivityFacts) -> bool:
        row = rule.row
        users = _recipients(row, happening)
        if row.seq not in self._wanted:
            self._wanted[row.seq] = wanted_by(self._tx.conn, row.body.send)
        data = activity_data(row.name, rule.terms.times, happening, self._wanted[row.seq])
        error = self._fire(self._tx, row, users, data)
        _, fired, before = self._outcomes.get(row.seq, (row, 0, None))
        self._outcomes[row.seq] = (row, fired + (error is None), error or before)
        self.fired += error is None
        self.told += len(users)
        return error is None

    def close(self) -> None:
        tx = self._tx
        for (seq, user_id), (rule, uses) in self._uses.items():
            if (until := useful_until(rule.terms, uses)) > tx.now_ms:
                rule_state.remember(tx, seq, user_id, uses, until)
            else:
                rule_state.delete_state(tx, seq, user_id)
        for seq, (row, fired, error) in self._outcomes.items():
            table.note(tx, seq, fired, error)
            tx.events.append(Event("rule", row.name, "", row.app))


def _is_from_outside(error: Exception) -> bool:
    """Whether ``error`` is the storage's own, which trying again later may mend; what we gave it wrongly is not."""
    ours = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)
    return isinstance(error, FlashFlowError) or (is_storage_fault(error) and not isinstance(error, ours))


def _recipients(row: Row, happening: ActivityFacts | None) -> list[str]:
    if isinstance(row.body.to, list):
        return row.body.to
    assert happening is not None, "an alert names its recipients"
    return [happening.user_id]


def _look(conn: sqlite3.Connection, known: RuleBook | None) -> tuple[rule_state.Mark, RuleBook]:
    mark = rule_state.mark(conn)
    if known is not None and known.revision == mark.revision:
        return mark, known
    rows = table.enabled(conn)
    by_type: dict[str, list[WatchedRule]] = {}
    for row in rows:
        if (on := row.body.on) is not None:
            watched = WatchedRule(row, conditions_of(on.where), terms_of(on, row.body.cooldown_minutes))
            by_type.setdefault(on.activity_type, []).append(watched)
    after = min((one.row.after_seq for some in by_type.values() for one in some), default=0)
    return mark, RuleBook(mark.revision, by_type, any(row.body.alert is not None for row in rows), after)


def _move(tx: Tx, items: Sequence[int]) -> list[None]:
    for judged in items:
        rule_state.move_mark(tx, judged)
    return [None] * len(items)


def _step_back(tx: Tx, items: Sequence[int]) -> list[None]:
    for last in items:
        rule_state.step_back(tx, last)
    return [None] * len(items)
