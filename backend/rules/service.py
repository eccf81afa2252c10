"""Rules: “when this happens, tell them”. Made, changed, tried and ended here; judged in ``rule_judging``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from flashflow.backend.core.error_collector import ErrorCollector, within
from flashflow.backend.core.errors import Conflict, FlashFlowError, NotFound, ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.domain.metric_alerts import Metrics
from flashflow.backend.rules.dry_run import DryRun, Scope, try_activities, try_alert
from flashflow.backend.rules.evaluator import Ordering, RuleEvaluator, Sending
from flashflow.backend.rules.messages import check_texts
from flashflow.backend.schemas.requests import SendIn, build
from flashflow.backend.schemas.rules import AlertIn, OnIn, RuleChangeIn, RuleDraftIn, RuleIn, check_rule, check_when
from flashflow.backend.store.activity.activities import last_seq
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications import rules as table
from flashflow.backend.store.notifications.rule_state import delete_expired_state
from flashflow.backend.store.notifications.rules import Body, Row, Rule, RulePage, body_of
from flashflow.backend.store.notifications.templates import read_template

MOST_RULES = 200
LOCAL_APP = "local"
"""The app of whatever is written without a key: by this process itself."""


class RuleRef(NamedTuple):
    """A rule by its name: of ``app`` alone, or (None) of any, where the asker's own comes first."""

    name: str
    app: str | None = None
    asker: str = LOCAL_APP


class Plan(NamedTuple):
    """A rule whose every field was checked."""

    name: str
    app: str
    owner: str | None
    body: Body
    enabled: bool


class Change(NamedTuple):
    """What is to become of a rule. ``owner``: the only app whose activities and templates the asker may use."""

    named: RuleRef
    name: str | None
    owner: str | None
    body: Body
    enabled: bool


class Rules:
    """The rules of one ``notifications.db`` over the activities of one ``user_activities.db``."""

    def __init__(
        self,
        store: Store,
        activities: Store,
        new_id: Callable[[], str],
        *,
        order: Ordering,
        send: Sending,
        zone: Callable[[], ZoneInfo],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._activities = activities
        self._new_id = new_id
        self._order = order
        self._zone = zone
        self._metrics = metrics
        self.judge = RuleEvaluator(store, activities, order=order, send=send, zone=zone, metrics=metrics)

    # --- what a caller asks ---------------------------------------------------------------------------------------

    def get(self, named: RuleRef) -> Rule:
        """One rule. Raises NotFound, for another app's too, and Conflict where several apps have one of that name."""
        return self._store.read(lambda conn: _found(conn, named)).rule()

    def page(self, app: str | None = None, limit: int = 50, cursor: str | None = None) -> RulePage:
        """Rules, newest first. Raises ValidationError for a cursor that is none."""
        return self._store.read(lambda conn: table.list_rules(conn, app, limit, cursor))

    def create(self, name: str, app: str = LOCAL_APP, **fields: Any) -> Rule:
        """A new rule over every app's activities; the fields of RuleIn. Raises ValidationError and Conflict."""
        return self._store.run(self.creating(build(RuleIn, name=name, **fields), app, None))

    def creating(self, asked: RuleIn, app: str, owner: str | None) -> Write[Plan, Rule]:
        """The write behind ``create``. ``owner``: the only app whose activities it sees and whose templates it may use
        (None: any)."""
        self.check(asked, app, owner)
        return Write(self._create, Plan(asked.name, app, owner, body_of(asked), asked.enabled))

    def changing(self, named: RuleRef, asked: RuleChangeIn, owner: str | None) -> Write[Change, Rule]:
        """The write that replaces a rule; where it watches for something else it counts anew."""
        self.check(asked, named.asker, owner)
        return Write(self._change, Change(named, asked.name, owner, body_of(asked), asked.enabled))

    def dismissing_error(self, named: RuleRef) -> Write[RuleRef, Rule]:
        """The write that takes a rule's last error away: its owner has seen it."""
        return Write(self._dismiss_error, named)

    def removing(self, named: RuleRef) -> Write[RuleRef, Rule]:
        """The write that ends and forgets a rule."""
        return Write(self._remove, named)

    def enabling(self, named: RuleRef, enabled: bool) -> Write[tuple[RuleRef, bool], Rule]:
        """The write that switches a rule on, from then on, or off."""
        return Write(self._enable, (named, enabled))

    def dry_run(self, draft: RuleDraftIn | Mapping[str, Any], app: str | None = None) -> DryRun:
        """How often it would have fired in the last seven days, over one app's activities or all. Raises
        ValidationError."""
        asked = build(RuleDraftIn, **draft) if isinstance(draft, Mapping) else draft
        check_when(asked.on, asked.alert)
        return self._try(asked.on, asked.alert, asked.cooldown_minutes, app)

    def dry_run_of(self, named: RuleRef) -> DryRun:
        """The dry run of a rule as it stands. Raises NotFound and Conflict."""
        row = self._store.read(lambda conn: _found(conn, named))
        return self._try(row.body.on, row.body.alert, row.body.cooldown_minutes, row.owner)

    def forget_useless(self) -> int:
        """Drop what is remembered of users and cannot matter any more; returns how many rows."""
        return self._store.run(Write(_forget, None))

    # --- checking -------------------------------------------------------------------------------------------------

    def _try(self, on: OnIn | None, alert: AlertIn | None, cooldown_minutes: int, app: str | None) -> DryRun:
        scope = Scope(self._store.clock.now_ms(), app)
        if alert is not None:
            return try_alert(alert, cooldown_minutes, scope, self._metrics, self._zone())
        assert on is not None, "check_when"
        return self._activities.read(lambda conn: try_activities(conn, on, cooldown_minutes, scope))

    def check(self, asked: RuleChangeIn, app: str, owner: str | None) -> None:
        """Everything that can be known before it fires. Raises ValidationError for every field that is wrong."""
        faults = ErrorCollector()
        with faults:
            check_rule(asked)
        with faults:
            check_texts(asked)
        send = asked.send
        sample = SendIn(
            user_ids=asked.to if isinstance(asked.to, list) else [app],
            title=send.title,
            message=send.message,
            template=send.template,
            channels=send.channels,
            data=send.data,
        )
        with faults:
            try:
                self._order(sample, app, owner)
            except ValidationError as refusal:
                raise within("send", refusal) from None
        faults.done()

    # --- handlers for the writer ----------------------------------------------------------------------------------

    def _create(self, tx: Tx, items: Sequence[Plan]) -> list[Rule | FlashFlowError]:
        return [self._created(tx, plan) for plan in items]

    def _created(self, tx: Tx, plan: Plan) -> Rule | FlashFlowError:
        if table.named(tx.conn, plan.name, plan.app):
            return _taken(plan.name)
        if table.count_of(tx.conn, plan.app) >= MOST_RULES:
            return Conflict(f"This app has {MOST_RULES} rules, which is the most.")
        if (refusal := _template_missing(tx, plan.body, plan.owner)) is not None:
            return refusal
        seq = table.insert(
            tx, self._new_id(), plan.name, plan.app, plan.owner, plan.body, switched_on=plan.enabled,
            after_seq=self._last(),
        )  # fmt: skip
        return _told(tx, seq)

    def _change(self, tx: Tx, items: Sequence[Change]) -> list[Rule | FlashFlowError]:
        return [_or_refusal(partial(self._changed, tx, change)) for change in items]

    def _changed(self, tx: Tx, change: Change) -> Rule | FlashFlowError:
        row = _found(tx.conn, change.named)
        name = change.name or row.name
        # An admin's change leaves a rule within the bounds it was made in; an app's own brings it back into its own.
        owner = row.owner if change.owner is None else change.owner
        if name != row.name and table.named(tx.conn, name, row.app):
            return _taken(name)
        if (refusal := _template_missing(tx, change.body, owner)) is not None:
            return refusal
        table.update(tx, row, name, owner, change.body, switched_on=change.enabled)
        watched, watches = (row.body.on, row.body.alert, row.owner), (change.body.on, change.body.alert, owner)
        if watched != watches or (change.enabled and not row.enabled):
            table.reset_state(tx, row.seq, self._last())
        return _told(tx, row.seq)

    def _enable(self, tx: Tx, items: Sequence[tuple[RuleRef, bool]]) -> list[Rule | FlashFlowError]:
        return [_or_refusal(partial(self._enabled, tx, *item)) for item in items]

    def _enabled(self, tx: Tx, named: RuleRef, enabled: bool) -> Rule:
        row = _found(tx.conn, named)
        if enabled != row.enabled:
            table.update(tx, row, row.name, row.owner, row.body, switched_on=enabled)
            if enabled:
                table.reset_state(tx, row.seq, self._last())
        return _told(tx, row.seq)

    def _dismiss_error(self, tx: Tx, items: Sequence[RuleRef]) -> list[Rule | FlashFlowError]:
        return [_or_refusal(partial(_error_dismissed, tx, named)) for named in items]

    def _remove(self, tx: Tx, items: Sequence[RuleRef]) -> list[Rule | FlashFlowError]:
        return [_or_refusal(partial(_removed, tx, named)) for named in items]

    def _last(self) -> int:
        return self._activities.read(last_seq)


def _found(conn: sqlite3.Connection, named: RuleRef) -> Row:
    """The one rule that is meant. Raises NotFound and Conflict."""
    rows = table.named(conn, named.name, named.app)
    own = [row for row in rows if row.app == named.asker]
    if not rows:
        raise NotFound(f"There is no rule “{named.name}”.")
    if own or len(rows) == 1:
        return (own or rows)[0]
    apps = ", ".join(sorted(row.app for row in rows))
    raise Conflict(f"Several apps have a rule “{named.name}” ({apps}): say which with app.")


def _error_dismissed(tx: Tx, named: RuleRef) -> Rule:
    row = _found(tx.conn, named)
    table.dismiss_error(tx, row.seq)
    return _told(tx, row.seq)


def _removed(tx: Tx, named: RuleRef) -> Rule:
    row = _found(tx.conn, named)
    table.delete(tx, row.seq)
    tx.events.append(Event("rule", row.name, "", row.app))
    return row.rule()


def _or_refusal(deed: Callable[[], Rule | FlashFlowError]) -> Rule | FlashFlowError:
    """Every ``deed`` looks before it changes anything, so its refusal undoes nothing."""
    try:
        return deed()
    except (NotFound, Conflict) as refusal:
        return refusal


def _template_missing(tx: Tx, body: Body, owner: str | None) -> ValidationError | None:
    send = body.send
    if send.template is None or read_template(tx.conn, send.template, send.locale or "", owner) is not None:
        return None
    return ValidationError.of("send.template", f"there is no template “{send.template}”")


def _told(tx: Tx, seq: int) -> Rule:
    row = table.by_seq(tx.conn, seq)
    assert row is not None
    tx.events.append(Event("rule", row.name, "", row.app))
    return row.rule()


def _taken(name: str) -> Conflict:
    return Conflict(f"This app has a rule “{name}” already; PUT changes it.")


def _forget(tx: Tx, items: Sequence[None]) -> list[int]:
    return [delete_expired_state(tx) for _ in items]


__all__ = ["DryRun", "Rule", "RulePage", "RuleRef", "Rules"]
