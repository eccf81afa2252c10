"""Recurring notifications: store them with their recurrence rule and send them when due.

``next_at`` in the file decides when a schedule is due; sending and advancing it are one transaction. A crash, a clock
set back or a suspended computer neither loses nor repeats a notification: of several missed times only the latest is
sent.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import from_object, to_json
from flashflow.backend.core.error_collector import ErrorCollector, inside
from flashflow.backend.core.errors import Conflict, Erased, FlashFlowError, NotFound, ValidationError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.recurrence import DAYS, Recurrence, check, next_after, zone_named
from flashflow.backend.notifications.orders import BuildOrder, Order
from flashflow.backend.notifications.send import DryRun, SendOrders
from flashflow.backend.schemas.records import Sent
from flashflow.backend.schemas.requests import Input, Name, SendIn, build
from flashflow.backend.schemas.validation import convert
from flashflow.backend.schemas.values import timestamp_ms
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write, each_item
from flashflow.backend.store.notifications import schedules as table
from flashflow.backend.store.notifications.schedules import Request, Row, Schedule, SchedulePage
from flashflow.backend.store.privacy import tombstones

log = logging.getLogger(__name__)

DUE_AT_ONCE = 100
FAULT = "It could not be sent because of an internal error; see FlashFlow's log."

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
        dry_run: DryRun,
        send: SendOrders,
        zone: Callable[[], str],
    ) -> None:
        self._store = store
        self._new_id = new_id
        self._order = order
        self._dry_run = dry_run
        self._send = send
        self._zone = zone

    # --- queries and writes ---------------------------------------------------------------------------------------

    def get(self, schedule_id: str, app: str | None = None) -> Schedule:
        """One schedule. Raises NotFound, also for another app's."""
        return self._store.read(lambda conn: _find(conn, (schedule_id, app))).schedule()

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
            return self._store.write(lambda tx: self._run(tx, seq))
        except FlashFlowError:
            raise
        except Exception:
            log.exception("a recurring notification failed; it goes on with its next time")
            self._store.write(lambda tx: self._skip(tx, seq))
            return False

    # --- validation -----------------------------------------------------------------------------------------------

    def check(self, body: ScheduleIn, app: str, owner: str | None) -> tuple[Order, Recurrence]:
        """Check a request into its order and complete rule. Raises ValidationError naming every wrong field."""
        faults = ErrorCollector()
        order = rule = None
        for field in ("scheduled_at", "expires_at"):
            if getattr(body.notification, field) is not None:
                faults.add(f"notification.{field}", "has no place in a notification that recurs")
        with faults, inside("notification"):
            order = self._order(body.notification, app, owner)
        with faults, inside("rule"):
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

    def _check_sending(self, tx: Tx, order: Order) -> None:
        """Raise Erased or ValidationError where ``order`` could not be sent now."""
        for user in sorted(tombstones.erased_among(tx.conn, order.users)):
            raise tombstones.refusal(user)
        with inside("notification"):
            self._dry_run(tx.conn, order, tx.now_ms)

    def _next(self, rule: Recurrence, tx: Tx, since_ms: int) -> int | None:
        return next_after(rule, tx.now_ms, zone_named(self._zone()), since_ms)

    def _first(self, rule: Recurrence, tx: Tx, since_ms: int) -> int:
        """Return the next time of a new rule. Raises ValidationError where there is none."""
        next_at = self._next(rule, tx, since_ms)
        if next_at is None:
            raise ValidationError.of("rule.ends_at", "leaves no time at which this would happen")
        return next_at

    # --- handlers for the writer ----------------------------------------------------------------------------------

    @each_item
    def _create(self, tx: Tx, plan: Plan) -> Schedule:
        app = plan.order.app
        if table.named(tx.conn, app, plan.name) is not None:
            raise _taken(plan.name)
        next_at = self._first(plan.rule, tx, tx.now_ms)
        self._check_sending(tx, plan.order)
        schedule_id = self._new_id()
        table.insert(tx, schedule_id, plan.name, app, plan.request, plan.rule, next_at)
        return _find(tx.conn, (schedule_id, None)).schedule()

    @each_item
    def _change(self, tx: Tx, item: tuple[ScheduleRef, Plan]) -> Schedule:
        ref, plan = item
        row = _find(tx.conn, ref)
        if plan.order.app not in {"", row.app}:
            raise ValidationError.of("notification.app", "cannot be changed: a schedule stays with its app")
        if table.named(tx.conn, row.app, plan.name) not in {None, row.id}:
            raise _taken(plan.name)
        next_at = row.next_at  # unchanged: correcting a text must not skip a time that is due
        if plan.rule != row.rule:
            next_at = self._first(plan.rule, tx, row.created_at)
        self._check_sending(tx, msgspec.structs.replace(plan.order, app=row.app))
        table.update(tx, row.seq, plan.name, plan.request, plan.rule, next_at)
        return _find(tx.conn, (row.id, None)).schedule()

    @each_item
    def _remove(self, tx: Tx, ref: ScheduleRef) -> Schedule:
        row = _find(tx.conn, ref)
        table.delete(tx, row.seq)
        return row.schedule()

    @each_item
    def _run_now(self, tx: Tx, ref: ScheduleRef) -> ScheduleRun:
        row = _find(tx.conn, ref)
        with inside("notification"):
            sent = self._sent(tx, row)
        table.move_on(tx, row, row.next_at, tx.now_ms, None)
        return ScheduleRun(_find(tx.conn, (row.id, None)).schedule(), sent)

    # --- transactions of the periodic job -------------------------------------------------------------------------

    def _run(self, tx: Tx, seq: int) -> bool:
        # Read inside this transaction: it may have been deleted, changed or sent since it was found due.
        row = table.find_due(tx.conn, seq, tx.now_ms)
        if row is None:
            return False
        try:
            self._sent(tx, row)
        except (ValidationError, Erased) as refusal:
            self._move_on(tx, row, row.last_at, str(refusal))
            return False
        self._move_on(tx, row, tx.now_ms, None)
        return True

    def _skip(self, tx: Tx, seq: int) -> None:
        if (row := table.find_due(tx.conn, seq, tx.now_ms)) is not None:
            self._move_on(tx, row, row.last_at, FAULT)

    def _move_on(self, tx: Tx, row: Row, last_at: int | None, error: str | None) -> None:
        try:
            next_at = self._next(row.rule, tx, row.created_at)
        except ValidationError as unknown_zone:  # the machine's time zone list changed since it was created
            next_at, error = None, str(unknown_zone)
        table.move_on(tx, row, next_at, last_at, error)

    def _sent(self, tx: Tx, row: Row) -> tuple[Sent, ...]:
        """Send the row's notification. Raises ValidationError and Erased, before anything is written."""
        order = self._order(convert(row.request.notification, SendIn), row.app, row.request.owner)
        (sent,) = self._send(tx, [order])
        if isinstance(sent, FlashFlowError):
            raise sent
        return sent


def _find(conn: sqlite3.Connection, ref: ScheduleRef) -> Row:
    row = table.find(conn, *ref)
    if row is None:
        raise NotFound(f"There is no schedule {ref[0]!r}.")
    return row


def _taken(name: str) -> Conflict:
    return Conflict(f"This app has a schedule “{name}” already; PUT changes it.")
