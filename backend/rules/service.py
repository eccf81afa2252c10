"""Rules: create, change, dry-run and delete them. ``evaluator`` applies them to activities."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec

from flashflow.backend.activity.ingest import LOCAL_APP
from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.error_collector import ErrorCollector, inside
from flashflow.backend.core.errors import Conflict, NotFound, ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.metric_alerts import Metrics
from flashflow.backend.notifications.send import SendOrders
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.rules.dry_run import DryRun, try_activities, try_alert
from flashflow.backend.rules.evaluator import RuleEvaluator
from flashflow.backend.rules.messages import check_texts
from flashflow.backend.schemas.requests import SendIn, build
from flashflow.backend.schemas.rules import AlertIn, OnIn, RuleChangeIn, RuleDraftIn, RuleIn, check_rule, check_when
from flashflow.backend.store.activity.activities import ACTIVITY_SEQS
from flashflow.backend.store.engine.writer import Tx, Write, each_item
from flashflow.backend.store.notifications import rules
from flashflow.backend.store.notifications.rule_state import delete_expired_state
from flashflow.backend.store.notifications.rules import Body, Row, Rule, RulePage, body_of
from flashflow.backend.store.notifications.templates import read_template

MOST_RULES = 200


class RuleRef(NamedTuple):
    """A rule by name: of ``app`` only, or (None) of any app, the caller's first."""

    name: str
    app: str | None = None
    caller: str = LOCAL_APP


NewRule = tuple[RuleIn, str, str | None]
"""A checked rule to create, its app, and the only app whose activities and templates it uses (None: any)."""
RuleChange = tuple[RuleRef, RuleChangeIn, str | None]
"""A rule, its checked new fields, and the only app whose activities and templates the caller may use (None: any)."""


class Rules:
    """The rules of one ``notifications.db`` over the activities of one ``user_activities.db``."""

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
        self._analytics = activity.analytics
        self._new_id = notifications.new_id
        self._order = notifications.order
        self._metrics = metrics
        self.evaluator = RuleEvaluator(activity, notifications, send=send, metrics=metrics)

    # --- API ------------------------------------------------------------------------------------------------------

    def get(self, ref: RuleRef) -> Rule:
        """Return one rule. Raises NotFound, also for another app's rule, and Conflict if several apps have that
        name."""
        return self._store.read(lambda conn: _find(conn, ref)).rule()

    def page(self, app: str | None = None, limit: int = 50, cursor: str | None = None) -> RulePage:
        """Return rules, newest first. Raises ValidationError for an invalid cursor."""
        return self._store.read(lambda conn: rules.list_rules(conn, app, limit, cursor))

    def create(self, name: str, app: str = LOCAL_APP, **fields: Any) -> Rule:
        """Create a rule over every app's activities from the fields of RuleIn. Raises ValidationError and Conflict."""
        return self._store.run(self.create_write(build(RuleIn, name=name, **fields), app, None))

    def create_write(self, draft: RuleIn, app: str, owner: str | None) -> Write[NewRule, Rule]:
        """Build the write of ``create``. ``owner``: the only app whose activities and templates it uses (None: any)."""
        self.check(draft, app, owner)
        return Write(self._create, (draft, app, owner))

    def change_write(self, ref: RuleRef, draft: RuleChangeIn, owner: str | None) -> Write[RuleChange, Rule]:
        """Build the write that replaces a rule. A change of ``on`` or ``alert`` resets its state."""
        self.check(draft, ref.caller, owner)
        return Write(self._change, (ref, draft, owner))

    def dismiss_error_write(self, ref: RuleRef) -> Write[RuleRef, Rule]:
        """Build the write that clears a rule's last error."""
        return Write(_dismiss_error, ref)

    def delete_write(self, ref: RuleRef) -> Write[RuleRef, Rule]:
        """Build the write that deletes a rule and its state."""
        return Write(_delete, ref)

    def enable_write(self, ref: RuleRef, enabled: bool) -> Write[tuple[RuleRef, bool], Rule]:
        """Build the write that enables a rule, for activities from then on, or disables it."""
        return Write(self._enable, (ref, enabled))

    def dry_run(self, draft: RuleDraftIn | Mapping[str, Any], app: str | None = None) -> DryRun:
        """Dry-run a draft over one app's activities or all. Raises ValidationError."""
        rule = build(RuleDraftIn, **draft) if isinstance(draft, Mapping) else draft
        check_when(rule.on, rule.alert)
        return self._dry_run(rule.on, rule.alert, rule.cooldown_minutes, app)

    def dry_run_of(self, ref: RuleRef) -> DryRun:
        """Dry-run a stored rule. Raises NotFound and Conflict."""
        row = self._store.read(lambda conn: _find(conn, ref))
        return self._dry_run(row.body.on, row.body.alert, row.body.cooldown_minutes, row.owner)

    def delete_expired_state(self) -> int:
        """Delete rule states that cannot matter any more; return the number of rows."""
        return self._store.write(delete_expired_state)

    # --- checking -------------------------------------------------------------------------------------------------

    def _dry_run(self, on: OnIn | None, alert: AlertIn | None, cooldown_minutes: int, app: str | None) -> DryRun:
        now_ms = self._store.clock.now_ms()
        if alert is not None:
            return try_alert(alert, cooldown_minutes, now_ms, app, self._metrics, self._analytics.zone)
        assert on is not None, "check_when"
        return self._activities.read(lambda conn: try_activities(conn, on, cooldown_minutes, now_ms, app))

    def check(self, draft: RuleChangeIn, app: str, owner: str | None) -> None:
        """Check everything that is known before the rule fires. Raises ValidationError with every wrong field."""
        faults = ErrorCollector()
        with faults:
            check_rule(draft)
        with faults:
            check_texts(draft)
        users = draft.to if isinstance(draft.to, list) else [app]
        sample = SendIn(user_ids=users, **msgspec.structs.asdict(draft.send))
        with faults, inside("send"):
            self._order(sample, app, owner)
        faults.done()

    # --- write handlers -------------------------------------------------------------------------------------------

    @each_item
    def _create(self, tx: Tx, new: NewRule) -> Rule:
        draft, app, owner = new
        if rules.named(tx.conn, draft.name, app):
            raise _taken(draft.name)
        if rules.count_of(tx.conn, app) >= MOST_RULES:
            raise Conflict(f"This app has {MOST_RULES} rules, which is the most.")
        body = body_of(draft)
        _check_template(tx, body, owner)
        seq = rules.insert(
            tx, self._new_id(), draft.name, app, owner, body, switched_on=draft.enabled, after_seq=self._last()
        )
        return _publish(tx, seq)

    @each_item
    def _change(self, tx: Tx, change: RuleChange) -> Rule:
        ref, draft, owner = change
        row = _find(tx.conn, ref)
        name, body = draft.name or row.name, body_of(draft)
        # A change by an admin keeps the rule's owner; a change by an app limits the rule to that app.
        owner = row.owner if owner is None else owner
        if name != row.name and rules.named(tx.conn, name, row.app):
            raise _taken(name)
        _check_template(tx, body, owner)
        rules.update(tx, row, name, owner, body, switched_on=draft.enabled)
        before, after = (row.body.on, row.body.alert, row.owner), (body.on, body.alert, owner)
        if before != after or (draft.enabled and not row.enabled):
            rules.reset_state(tx, row.seq, self._last())
        return _publish(tx, row.seq)

    @each_item
    def _enable(self, tx: Tx, item: tuple[RuleRef, bool]) -> Rule:
        ref, enabled = item
        row = _find(tx.conn, ref)
        if enabled != row.enabled:
            rules.update(tx, row, row.name, row.owner, row.body, switched_on=enabled)
            if enabled:
                rules.reset_state(tx, row.seq, self._last())
        return _publish(tx, row.seq)

    def _last(self) -> int:
        return self._activities.read(ACTIVITY_SEQS.last)


def _find(conn: sqlite3.Connection, ref: RuleRef) -> Row:
    """Return the row of ``ref``. Raises NotFound and Conflict."""
    rows = rules.named(conn, ref.name, ref.app)
    own = [row for row in rows if row.app == ref.caller]
    if not rows:
        raise NotFound(f"There is no rule “{ref.name}”.")
    if own or len(rows) == 1:
        return (own or rows)[0]
    apps = ", ".join(sorted(row.app for row in rows))
    raise Conflict(f"Several apps have a rule “{ref.name}” ({apps}): say which with app.")


@each_item
def _dismiss_error(tx: Tx, ref: RuleRef) -> Rule:
    row = _find(tx.conn, ref)
    rules.dismiss_error(tx, row.seq)
    return _publish(tx, row.seq)


@each_item
def _delete(tx: Tx, ref: RuleRef) -> Rule:
    row = _find(tx.conn, ref)
    rules.delete(tx, row.seq)
    tx.events.append(Event("rule", row.name, "", row.app))
    return row.rule()


def _check_template(tx: Tx, body: Body, owner: str | None) -> None:
    """Raise ValidationError where the rule's template does not exist."""
    send = body.send
    if send.template is not None and read_template(tx.conn, send.template, send.locale or "", owner) is None:
        raise ValidationError.of("send.template", f"there is no template “{send.template}”")


def _publish(tx: Tx, seq: int) -> Rule:
    """Add the rule's event to the transaction; return the rule."""
    row = rules.by_seq(tx.conn, seq)
    assert row is not None
    tx.events.append(Event("rule", row.name, "", row.app))
    return row.rule()


def _taken(name: str) -> Conflict:
    return Conflict(f"This app has a rule “{name}” already; PUT changes it.")
