"""Recurring notifications: store them with their recurrence rule and send them when due.

``next_at`` in the file decides when a schedule is due; sending and advancing it are one transaction. A crash, a clock
set back or a suspended computer neither loses nor repeats a notification: of several missed times only the latest is
sent.
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
from flashflow.backend.notifications.orders import Order
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
FAULT = "It could not be sent because of an internal error; see FlashFlow's log."

BuildOrder = Callable[[SendIn, str, str | None], Order]
"""Check a request into an order; the other arguments are the sending app and the only app whose templates may be used
(None: any). Raises ValidationError."""
DryRun = Callable[[sqlite3.Connection, Order, int], object]
"""Compute the result of sending at a time (milliseconds since 1970) without storing it. Raises ValidationError."""
SendOrders = Callable[[Tx, Sequence[Order]], Sequence[tuple[Sent, ...] | FlashFlowError]]

ScheduleRef = tuple[str, str | None]
"""A schedule's id, and the only app whose schedules are visible (None: any)."""


class ScheduleIn(Input, frozen=True, kw_only=True):
    """The body of ``/api/notifications/send`` without ``scheduled_at`` and ``expires_at``, and its recurrence rule."""

    name: Name
    notification: SendIn
    rule: Recurrence


class ScheduleRun(NamedTuple):
    """A schedule that was run on request, and the notifications it sent."""

    schedule: Schedule
    sent: tuple[Sent, ...]


class Plan(NamedTuple):
    """A checked ScheduleIn."""

    name: str
    request: Request
    rule: Recurrence
    order: Order


class Schedules:
    """The schedules of one ``notifications.db``. ``zone`` names the default time zone of rules."""

    def __init__(
        self,
        store: Store,
        new_id: Callable[[], str],
        *,
        order: BuildOrder,
        rehearse: DryRun,
        send: SendOrders,
        zone: Callable[[], str],
    ) -> None:
        self._store = store
        self._new_id = new_id
        self._order = order
        self._rehearse = rehearse
        self._send = send
        self._zone = zone

    # --- queries and writes ---------------------------------------------------------------------------------------

    def get(self, schedule_id: str, app: str | None = None) -> Schedule:
        """One schedule. Raises NotFound, also for another app's."""
        row = self._store.read(lambda conn: table.find(conn, schedule_id, app))
        if row is None:
            raise _missing(schedule_id)
        return row.schedule()

    def page(self, app: str | None = None, limit: int = 50, cursor: str | None = None) -> SchedulePage:
        """List schedules, newest first. Raises ValidationError for an invalid cursor."""
        return self._store.read(lambda conn: table.list_schedules(conn, app, limit, cursor))

    def create(self, name: str, notification: Mapping[str, Any], rule: Mapping[str, Any], app: str) -> Schedule:
        """Create a schedule. Raises ValidationError, and Conflict where the app has one of that name."""
        body = build(ScheduleIn, name=name, notification=dict(notification), rule=dict(rule))
        return self._store.run(self.create_write(body, app, None))

    def create_write(self, body: ScheduleIn, app: str, owner: str | None) -> Write[Plan, Schedule]:
        """Build the write of ``create``. ``owner``: the only app whose templates may be used (None: any)."""
        plan = self._plan(body, app, owner)
        return Write(self._create, plan, len(plan.order.users))

    def change_write(
        self, schedule_id: str, body: ScheduleIn, owner: str | None
    ) -> Write[tuple[ScheduleRef, Plan], Schedule]:
        """Build the write that replaces a schedule; an unchanged rule leaves ``next_at`` as it is."""
        plan = self._plan(body, "", owner)
        return Write(self._change, ((schedule_id, owner), plan), len(plan.order.users))

    def remove_write(self, schedule_id: str, owner: str | None) -> Write[ScheduleRef, Schedule]:
        """Build the write that deletes a schedule."""
        return Write(self._remove, (schedule_id, owner))

    def run_write(self, schedule: Schedule, owner: str | None) -> Write[ScheduleRef, ScheduleRun]:
        """Build the write that sends it once now, independent of its rule."""
        users = schedule.notification.get("user_ids") or [schedule.notification.get("user_id")]
        return Write(self._run_now, (schedule.id, owner), len(users))

    # --- periodic job ---------------------------------------------------------------------------------------------

    def run_due(self) -> int:
        """Send every due schedule, each in its own transaction; return how many were sent.

        A failing schedule does not stop the others. Raises StorageError after all have been tried.
        """
        sent, fault = 0, None
        while fault is None and (seqs := self._store.read(self._due)):
            for seq in seqs:
                try:
                    sent += self._run_one(seq)
                except FlashFlowError as error:  # it stays due and the next call retries it
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

    # --- validation -----------------------------------------------------------------------------------------------

    def check(self, body: ScheduleIn, app: str, owner: str | None) -> tuple[Order, Recurrence]:
        """Check a request into its order and complete rule. Raises ValidationError naming every wrong field."""
        faults = ErrorCollector()
        order = rule = None
        for field in ("scheduled_at", "expires_at"):
            if getattr(body.notification, field) is not None:
                faults.add(f"notification.{field}", "has no place in a notification that recurs")
        with faults, _inside("notification"):
            order = self._order(body.notification, app, owner)
        with faults, _inside("rule"):
            rule = self._complete(body.rule)
        faults.done()
        assert order is not None
        assert rule is not None
        return order, rule

    def _plan(self, body: ScheduleIn, app: str, owner: str | None) -> Plan:
        order, rule = self.check(body, app, owner)
        notification = from_object(to_json(msgspec.structs.replace(body.notification, app=None)))
        return Plan(body.name, Request(notification=notification, owner=owner), rule, order)

    def _complete(self, rule: Recurrence) -> Recurrence:
        """The rule to store: with its zone, times in UTC, days in the order of the week."""
        check(rule)
        if rule.timezone is not None and not is_zone(rule.timezone):
            raise ValidationError.of("timezone", UNKNOWN_ZONE)
        times = {
            field: None if (value := getattr(rule, field)) is None else to_datetime(timestamp_ms(field, value))
            for field in ("starts_at", "ends_at")
        }
        return Recurrence(
            every_minutes=rule.every_minutes,
            at=rule.at,
            days=None if rule.days is None else [day for day in DAYS if day in rule.days],
            day_of_month=rule.day_of_month,
            timezone=rule.timezone or (None if rule.at is None else self._zone()),
            **times,
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

    def _change(self, tx: Tx, items: Sequence[tuple[ScheduleRef, Plan]]) -> list[Schedule | FlashFlowError]:
        return [self._changed(tx, ref, plan) for ref, plan in items]

    def _changed(self, tx: Tx, ref: ScheduleRef, plan: Plan) -> Schedule | FlashFlowError:
        row = table.find(tx.conn, *ref)
        if row is None:
            return _missing(ref[0])
        if plan.order.app not in {"", row.app}:
            return ValidationError.of("notification.app", "cannot be changed: a schedule stays with its app")
        if table.named(tx.conn, row.app, plan.name) not in {None, row.id}:
            return _taken(plan.name)
        next_at = row.next_at  # unchanged: correcting a text must not skip a time that is due
        if plan.rule != row.rule and (next_at := self._next(plan.rule, tx, row.created_at)) is None:
            return _never()
        if (refusal := self._refusal(tx, msgspec.structs.replace(plan.order, app=row.app))) is not None:
            return refusal
        table.update(tx, row.seq, plan.name, plan.request, plan.rule, next_at)
        return _stored(tx, row.id)

    def _remove(self, tx: Tx, items: Sequence[ScheduleRef]) -> list[Schedule | FlashFlowError]:
        answers: list[Schedule | FlashFlowError] = []
        for ref in items:
            row = table.find(tx.conn, *ref)
            if row is not None:
                table.delete(tx, row.seq)
            answers.append(_missing(ref[0]) if row is None else row.schedule())
        return answers

    def _run_now(self, tx: Tx, items: Sequence[ScheduleRef]) -> list[ScheduleRun | FlashFlowError]:
        answers: list[ScheduleRun | FlashFlowError] = []
        for ref in items:
            row = table.find(tx.conn, *ref)
            if row is None:
                answers.append(_missing(ref[0]))
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
        # Read inside this transaction: it may have been deleted, changed or sent since it was found due.
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
        except ValidationError as unknown_zone:  # the machine's time zone list changed since it was created
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
