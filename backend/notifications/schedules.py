"""Recurring notifications: kept with their rule, and sent when their time has come.

That a time has come is decided by the ``next_at`` in the file, and sending and moving it on are one transaction. So
nothing is lost or repeated by a crash, a clock that is set back or a computer that slept: of the times it missed the
latest is made up for, the others are not.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import from_object, to_json
from flashflow.backend.core.error_collector import ErrorCollector, within
from flashflow.backend.core.errors import Conflict, FlashFlowError, NotFound, ValidationError
from flashflow.backend.domain.quiet_hours import is_zone
from flashflow.backend.domain.recurrence import DAYS, UNKNOWN_ZONE, Recurrence, check, next_after, zone_named
from flashflow.backend.notifications.send import Order
from flashflow.backend.schemas.records import Sent
from flashflow.backend.schemas.requests import Input, Name, SendIn, build
from flashflow.backend.schemas.validation import convert
from flashflow.backend.schemas.values import timestamp_ms
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications import schedules as table
from flashflow.backend.store.notifications.schedules import Request, Row, Schedule, SchedulePage
from flashflow.backend.store.privacy import tombstones

log = logging.getLogger(__name__)

DUE_AT_ONCE = 100
FAULT = "It could not be sent, by a fault of FlashFlow's own; its log says more."

Ordering = Callable[[SendIn, str, str | None], Order]
"""A checked order from a request, the app that sends it, and the only app whose templates may be filled in (None:
any). Raises ValidationError."""
Rehearsing = Callable[[sqlite3.Connection, Order, int], object]
"""What sending would do now (ms), without doing it. Raises ValidationError as sending would refuse it."""
Sending = Callable[[Tx, Sequence[Order]], Sequence[tuple[Sent, ...] | FlashFlowError]]

Seen = tuple[str, str | None]
"""A schedule's id, and the only app whose schedules may be seen (None: any)."""


class ScheduleIn(Input, frozen=True, kw_only=True):
    """What is sent, as ``/api/notifications/send`` takes it but without ``scheduled_at``, ``expires_at``, and when."""

    name: Name
    notification: SendIn
    rule: Recurrence


class ScheduleRun(NamedTuple):
    """A schedule that was sent out of turn, and what became of it."""

    schedule: Schedule
    sent: tuple[Sent, ...]


class Plan(NamedTuple):
    """A ScheduleIn whose every field was checked."""

    name: str
    request: Request
    rule: Recurrence
    order: Order


class Schedules:
    """The schedules of one ``notifications.db``. ``zone`` names the time zone of rules that name none."""

    def __init__(
        self,
        store: Store,
        new_id: Callable[[], str],
        *,
        order: Ordering,
        rehearse: Rehearsing,
        send: Sending,
        zone: Callable[[], str],
    ) -> None:
        self._store = store
        self._new_id = new_id
        self._order = order
        self._rehearse = rehearse
        self._send = send
        self._zone = zone

    # --- what a caller asks ---------------------------------------------------------------------------------------

    def get(self, schedule_id: str, app: str | None = None) -> Schedule:
        """One schedule. Raises NotFound, for another app's too."""
        row = self._store.read(lambda conn: table.find(conn, schedule_id, app))
        if row is None:
            raise _missing(schedule_id)
        return row.schedule()

    def page(self, app: str | None = None, limit: int = 50, cursor: str | None = None) -> SchedulePage:
        """Schedules, newest first. Raises ValidationError for a cursor that is none."""
        return self._store.read(lambda conn: table.list_schedules(conn, app, limit, cursor))

    def create(self, name: str, notification: Mapping[str, Any], rule: Mapping[str, Any], app: str) -> Schedule:
        """A new schedule. Raises ValidationError, and Conflict when the app has one of that name."""
        asked = build(ScheduleIn, name=name, notification=dict(notification), rule=dict(rule))
        return self._store.run(self.creating(asked, app, None))

    def creating(self, asked: ScheduleIn, app: str, owner: str | None) -> Write[Plan, Schedule]:
        """The write behind ``create``. ``owner``: the only app whose templates may be used (None: any)."""
        plan = self._plan(asked, app, owner)
        return Write(self._create, plan, len(plan.order.users))

    def changing(self, schedule_id: str, asked: ScheduleIn, owner: str | None) -> Write[tuple[Seen, Plan], Schedule]:
        """The write that replaces a schedule. While its rule stays the same, so does its next time."""
        plan = self._plan(asked, "", owner)
        return Write(self._change, ((schedule_id, owner), plan), len(plan.order.users))

    def removing(self, schedule_id: str, owner: str | None) -> Write[Seen, Schedule]:
        """The write that ends and forgets a schedule."""
        return Write(self._remove, (schedule_id, owner))

    def running(self, schedule: Schedule, owner: str | None) -> Write[Seen, ScheduleRun]:
        """The write that sends it once now, whenever it is due."""
        users = schedule.notification.get("user_ids") or [schedule.notification.get("user_id")]
        return Write(self._run_now, (schedule.id, owner), len(users))

    # --- what happens by itself -----------------------------------------------------------------------------------

    def run_due(self) -> int:
        """Send what is due, each schedule in a transaction of its own; returns how many were sent.

        What keeps one from being sent keeps no other; a fault of the storage is raised when all have been tried.
        """
        sent, fault = 0, None
        while fault is None and (seqs := self._store.read(self._due)):
            for seq in seqs:
                try:
                    sent += self._run_one(seq)
                except FlashFlowError as error:  # it stays due, and is tried again with the next call
                    fault = error
        if fault is not None:
            raise fault
        return sent

    def _due(self, conn: sqlite3.Connection) -> list[int]:
        return table.due(conn, self._store.clock.now_ms(), DUE_AT_ONCE)

    def _run_one(self, seq: int) -> bool:
        try:
            return self._store.run(Write(self._run, seq))
        except FlashFlowError:
            raise
        except Exception:
            log.exception("a recurring notification failed; it goes on with its next time")
            return self._store.run(Write(self._skip, seq))

    # --- checking -------------------------------------------------------------------------------------------------

    def check(self, asked: ScheduleIn, app: str, owner: str | None) -> tuple[Order, Recurrence]:
        """The order and the rule as they are stored. Raises ValidationError for every field that is wrong."""
        faults = ErrorCollector()
        order = rule = None
        for field in ("scheduled_at", "expires_at"):
            if getattr(asked.notification, field) is not None:
                faults.add(f"notification.{field}", "has no place in a notification that recurs")
        with faults, _inside("notification"):
            order = self._order(asked.notification, app, owner)
        with faults, _inside("rule"):
            rule = self._complete(asked.rule)
        faults.done()
        assert order is not None
        assert rule is not None
        return order, rule

    def _plan(self, asked: ScheduleIn, app: str, owner: str | None) -> Plan:
        order, rule = self.check(asked, app, owner)
        notification = from_object(to_json(msgspec.structs.replace(asked.notification, app=None)))
        return Plan(asked.name, Request(notification=notification, owner=owner), rule, order)

    def _complete(self, rule: Recurrence) -> Recurrence:
        """The rule as it is stored: with its zone, times in UTC, the days in their order."""
        check(rule)
        if rule.timezone is not None and not is_zone(rule.timezone):
            raise ValidationError.of("timezone", UNKNOWN_ZONE)
        moments = {
            field: None if (moment := getattr(rule, field)) is None else to_datetime(timestamp_ms(field, moment))
            for field in ("starts_at", "ends_at")
        }
        return Recurrence(
            every_minutes=rule.every_minutes,
            at=rule.at,
            days=None if rule.days is None else [day for day in DAYS if day in rule.days],
            day_of_month=rule.day_of_month,
            timezone=rule.timezone or (None if rule.at is None else self._zone()),
            **moments,
        )

    def _refusal(self, tx: Tx, order: Order) -> FlashFlowError | None:
        for user in sorted(tombstones.erased_among(tx.conn, order.users)):
            return tombstones.refusal(user)
        try:
            self._rehearse(tx.conn, order, tx.now_ms)
        except ValidationError as refusal:
            return within("notification", refusal)
        return None

    def _next(self, rule: Recurrence, tx: Tx, since_ms: int) -> int | None:
        return next_after(rule, tx.now_ms, zone_named(self._zone()), since_ms)

    # --- handlers for the writer ----------------------------------------------------------------------------------

    def _create(self, tx: Tx, items: Sequence[Plan]) -> list[Schedule | FlashFlowError]:
        return [self._created(tx, plan) for plan in items]

    def _created(self, tx: Tx, plan: Plan) -> Schedule | FlashFlowError:
        app = plan.order.app
        if table.named(tx.conn, app, plan.name) is not None:
            return _taken(plan.name)
        next_at = self._next(plan.rule, tx, tx.now_ms)
        if next_at is None:
            return _never()
        if (refusal := self._refusal(tx, plan.order)) is not None:
            return refusal
        schedule_id = self._new_id()
        table.insert(tx, schedule_id, plan.name, app, plan.request, plan.rule, next_at)
        return _stored(tx, schedule_id)

    def _change(self, tx: Tx, items: Sequence[tuple[Seen, Plan]]) -> list[Schedule | FlashFlowError]:
        return [self._changed(tx, seen, plan) for seen, plan in items]

    def _changed(self, tx: Tx, seen: Seen, plan: Plan) -> Schedule | FlashFlowError:
        row = table.find(tx.conn, *seen)
        if row is None:
            return _missing(seen[0])
        if plan.order.app not in {"", row.app}:
            return ValidationError.of("notification.app", "cannot be changed: a schedule stays with its app")
        if table.named(tx.conn, row.app, plan.name) not in {None, row.id}:
            return _taken(plan.name)
        next_at = row.next_at  # it may be due at this very moment: whoever corrects a text must not undo that
        if plan.rule != row.rule and (next_at := self._next(plan.rule, tx, row.created_at)) is None:
            return _never()
        if (refusal := self._refusal(tx, msgspec.structs.replace(plan.order, app=row.app))) is not None:
            return refusal
        table.update(tx, row.seq, plan.name, plan.request, plan.rule, next_at)
        return _stored(tx, row.id)

    def _remove(self, tx: Tx, items: Sequence[Seen]) -> list[Schedule | FlashFlowError]:
        answers: list[Schedule | FlashFlowError] = []
        for seen in items:
            row = table.find(tx.conn, *seen)
            if row is not None:
                table.delete(tx, row.seq)
            answers.append(_missing(seen[0]) if row is None else row.schedule())
        return answers

    def _run_now(self, tx: Tx, items: Sequence[Seen]) -> list[ScheduleRun | FlashFlowError]:
        answers: list[ScheduleRun | FlashFlowError] = []
        for seen in items:
            row = table.find(tx.conn, *seen)
            if row is None:
                answers.append(_missing(seen[0]))
                continue
            sent = self._sent(tx, row)
            if isinstance(sent, FlashFlowError):
                answers.append(within("notification", sent) if isinstance(sent, ValidationError) else sent)
                continue
            table.move_on(tx, row, row.next_at, tx.now_ms, None)
            answers.append(ScheduleRun(_stored(tx, row.id), sent))
        return answers

    def _run(self, tx: Tx, items: Sequence[int]) -> list[bool]:
        return [self._ran(tx, seq) for seq in items]

    def _ran(self, tx: Tx, seq: int) -> bool:
        # Looked at now and not before: it may have been deleted, changed or sent since it was found due, by this very
        # transaction too.
        row = table.find_due(tx.conn, seq, tx.now_ms)
        if row is None:
            return False
        sent = self._sent(tx, row)
        refused = isinstance(sent, FlashFlowError)
        self._move_on(tx, row, row.last_at if refused else tx.now_ms, str(sent) if refused else None)
        return not refused

    def _skip(self, tx: Tx, items: Sequence[int]) -> list[bool]:
        for seq in items:
            if (row := table.find_due(tx.conn, seq, tx.now_ms)) is not None:
                self._move_on(tx, row, row.last_at, FAULT)
        return [False] * len(items)

    def _move_on(self, tx: Tx, row: Row, last_at: int | None, error: str | None) -> None:
        try:
            next_at = self._next(row.rule, tx, row.created_at)
        except ValidationError as unknown_zone:  # known when it was made: the machine's list has changed
            next_at, error = None, str(unknown_zone)
        table.move_on(tx, row, next_at, last_at, error)

    def _sent(self, tx: Tx, row: Row) -> tuple[Sent, ...] | FlashFlowError:
        try:
            request = convert(row.request.notification, SendIn)
            order = self._order(request, row.app, row.request.owner)
        except ValidationError as refusal:
            return refusal
        return self._send(tx, [order])[0]


@contextmanager
def _inside(field: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as refusal:
        raise within(field, refusal) from None


def _stored(tx: Tx, schedule_id: str) -> Schedule:
    row = table.find(tx.conn, schedule_id, None)
    assert row is not None
    return row.schedule()


def _missing(schedule_id: str) -> NotFound:
    return NotFound(f"There is no schedule {schedule_id!r}.")


def _taken(name: str) -> Conflict:
    return Conflict(f"This app has a schedule “{name}” already; PUT changes it.")


def _never() -> ValidationError:
    return ValidationError.of("rule.ends_at", "leaves no time at which this would happen")
