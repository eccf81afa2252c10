"""Apply notification types, templates and rules of a project in one transaction: all of them or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from flashflow.backend.core.errors import Conflict, FlashFlowError, ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.flow.actions import APP, Recipients
from flashflow.backend.flow.language.declarations import NotificationType, Project, Rule, Template
from flashflow.backend.flow.language.errors import FlowError, Place
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.rules.service import RuleRef, Rules
from flashflow.backend.schemas.requests import TypeIn
from flashflow.backend.schemas.rules import RuleIn
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.flow.project_state import Declared, declared, keep_jobs, save_declared
from flashflow.backend.store.flow.rows import index_unique
from flashflow.backend.store.notifications import rules as rule_table
from flashflow.backend.store.notifications import types as type_table
from flashflow.backend.store.notifications.templates import exact_template, list_templates

log = logging.getLogger(__name__)

MOST_IN_RULE = 100
"""Recipients of a rule; of a larger group the first ones."""


class ApplyParts(Protocol):
    """The services that declarations go to."""

    notifications: NotificationService
    rules: Rules


class NotApplied(FlashFlowError):
    """Declarations that a service refused; nothing was changed."""

    def __init__(self, errors: tuple[FlowError, ...]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors


def apply(parts: ApplyParts, project: Project, recipients: Recipients) -> None:
    """Declare the types, templates and rules of ``project``, remove those of the project before, and keep the runs of
    its jobs. Unchanged ones are not written. Raises NotApplied, with nothing changed."""
    parts.notifications.store.write(_Application(parts, project, recipients).write)


class _Application:
    def __init__(self, parts: ApplyParts, project: Project, recipients: Recipients) -> None:
        self._parts = parts
        self._project = project
        self._errors: list[FlowError] = []
        # Requests are checked, and groups looked up, before the transaction.
        self._rules = [(rule, self._request(rule, recipients)) for rule in project.rules]

    def _request(self, rule: Rule, recipients: Recipients) -> RuleIn | None:
        users = rule.to if isinstance(rule.to, tuple | list) else None
        if rule.to in {"admin_users", "all_users"}:
            users = tuple(recipients(rule.to))
            if len(users) > MOST_IN_RULE:  # no error: a group may outgrow it while the files stay the same
                log.warning("the rule %r reaches %d of the %d users of its group", rule.name, MOST_IN_RULE, len(users))
                users = users[:MOST_IN_RULE]
        if users is not None and not 1 <= len(users) <= MOST_IN_RULE:
            message = f"a rule has 1 to {MOST_IN_RULE} recipients; these are {len(users):,}"
            self._errors.append(FlowError(rule.place, message, "Send to `user`, or to fewer users."))
            return None
        send = rule.send
        if rule.kind is not None:
            send = msgspec.structs.replace(send, data={"kind": rule.kind, **(send.data or {})})
        return RuleIn(
            name=rule.name, on=rule.on, send=send, to="user" if users is None else list(users),
            cooldown_minutes=rule.cooldown_minutes,
        )  # fmt: skip

    def write(self, tx: Tx) -> None:
        """Write all changes; raise NotApplied where one is refused."""
        project, errors = self._project, [*self._errors]
        before = declared(tx.conn)
        after = {
            *(Declared("type", one.name) for one in project.notification_types),
            *(Declared("template", one.name) for one in project.templates),
            *(Declared("rule", one.name) for one in project.rules),
        }
        for gone in sorted(before - after):
            _REMOVALS[gone.kind](self, tx, gone.name)
        steps: list[tuple[Place, Callable[[], None]]] = [
            *((one.place, lambda one=one: self._type(tx, one)) for one in project.notification_types),
            *((one.place, lambda one=one: self._template(tx, one)) for one in project.templates),
            *((one.place, lambda one=one, r=r: self._rule(tx, one, r)) for one, r in self._rules if r is not None),
            *((one.place, lambda one=one: self._index(tx, one)) for one in project.models),
        ]
        for place, step in steps:
            try:
                step()
            except (ValidationError, Conflict) as refusal:
                errors.append(FlowError(place, str(refusal), ""))
        if errors:
            raise NotApplied(tuple(errors))
        if before != after:
            save_declared(tx, after)
        keep_jobs(tx, {job.name: job.schedule.text for job in project.jobs})

    # --- declarations ---------------------------------------------------------------------------------------------

    def _type(self, tx: Tx, declaration: NotificationType) -> None:
        request = declaration.request
        known = type_table.read_type(tx.conn, request.name)
        if known is not None and known.app != APP:
            raise Conflict(f"the notification type “{request.name}” belongs to the app “{known.app}”")
        # Without an owner: the files belong to the owner of this computer, who may make a type critical.
        preferences = self._parts.notifications.preferences
        if known is None or _type_content(known) != _type_content(request):
            _run(tx, preferences.declare_write(request, APP, None))

    def _template(self, tx: Tx, declaration: Template) -> None:
        request = declaration.request
        templates = self._parts.notifications.templates
        known = exact_template(tx.conn, request.name, request.locale)
        if known is None:
            _run(tx, templates.create_write(request, APP))
        elif known.app != APP:
            raise Conflict(f"the template “{request.name}” belongs to the app “{known.app}”")
        elif any(
            getattr(known, name) != value
            for name, value in (
                ("title_template", request.title_template), ("message_template", request.message_template),
                ("channels", tuple(dict.fromkeys(request.channels))), ("category", request.category),
                ("data_schema", request.data_schema or None), ("locale", request.locale),
            )
        ):  # fmt: skip
            _run(tx, templates.change_write(request, APP, APP))

    def _rule(self, tx: Tx, declaration: Rule, request: RuleIn) -> None:
        known = rule_table.named(tx.conn, request.name, APP)
        if not known:
            _run(tx, self._parts.rules.create_write(request, APP, None))
        elif known[0].body != rule_table.body_of(request):
            # A rule that the owner has switched off stays off.
            change = msgspec.structs.replace(request, enabled=known[0].enabled)
            _run(tx, self._parts.rules.change_write(RuleRef(request.name, APP, APP), change, None))

    def _index(self, tx: Tx, model: Any) -> None:
        index_unique(tx, model.name, [field.name for field in model.fields if field.unique and not field.primary])

    # --- removals -------------------------------------------------------------------------------------------------

    def _remove_type(self, tx: Tx, name: str) -> None:
        known = type_table.read_type(tx.conn, name)
        if known is not None and known.app == APP:
            type_table.delete_type(tx, name)
            tx.events.append(Event("preference", name))

    def _remove_template(self, tx: Tx, name: str) -> None:
        if any(template.name == name for template in list_templates(tx.conn, APP)):
            _run(tx, self._parts.notifications.templates.remove_write(name, APP))

    def _remove_rule(self, tx: Tx, name: str) -> None:
        if rule_table.named(tx.conn, name, APP):
            _run(tx, self._parts.rules.delete_write(RuleRef(name, APP, APP)))


_REMOVALS: dict[str, Callable[[_Application, Tx, str], None]] = {
    "type": _Application._remove_type,
    "template": _Application._remove_template,
    "rule": _Application._remove_rule,
}


def _run(tx: Tx, write: Write[Any, Any]) -> None:
    """Run a write of a service in this transaction. Raises its refusal."""
    (result,) = write.handler(tx, [write.item])
    if isinstance(result, FlashFlowError):
        raise result


def _type_content(one: Any) -> Sequence[Any]:
    """Return the declared content of a stored type or of a request, so that both compare."""
    throttle = one.throttle
    return (
        one.label or type_table.type_label(one.name), one.description, tuple(dict.fromkeys(one.channels)),
        one.asks_critical if not isinstance(one, TypeIn) else one.critical, one.category, one.digest, one.digest_at,
        None if throttle is None else (throttle.limit, throttle.minutes),
        [(stage.channel, stage.after_minutes) for stage in one.failover],
    )  # fmt: skip
