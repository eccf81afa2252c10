"""Rules: the endpoints over Rules."""

from __future__ import annotations

from typing import Any

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.pagination import Page
from flashflow.backend.api.framework.response_schemas import EXAMPLES, page_type, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.api.framework.serializers import complete, to_json_types
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import Forbidden
from flashflow.backend.rules.service import RuleRef, Rules
from flashflow.backend.schemas.rules import RuleChangeIn, RuleDraftIn, RuleIn, RuleQuery, check_when
from flashflow.backend.store.notifications.rules import Rule


def _rules(call: ApiRequest) -> Rules:
    return call.services.rules


def _named(call: ApiRequest) -> RuleRef:
    named = None if call.query is None else call.query.app
    return RuleRef(call.params["name"], call.app_filter(named), call.caller.app)


def _watching(call: ApiRequest, named: str | None) -> tuple[str, str | None]:
    """Return the rule's app, and the app whose activities it evaluates (None: all, for admin without a named app)."""
    app = call.app_for(named)
    return app, named if call.caller.sees is None else app


def _must_send(call: ApiRequest) -> None:
    """Raise Forbidden unless the key may send: a rule sends notifications by itself."""
    if not call.caller.may("send"):
        raise Forbidden("This key needs the scope “send” too: a rule sends notifications.")


def rule_json(rule: Rule) -> dict[str, Any]:
    """Return a rule as JSON. ``on`` and ``alert`` are complete, so that a client can send them back."""
    return to_json_types(rule) | {"on": complete(rule.on), "alert": complete(rule.alert)}


def _one(rule: Rule) -> ApiResponse:
    return success(rule=rule_json(rule))


def _check(call: ApiRequest) -> None:
    faults = ErrorCollector()
    with faults:
        call.app_for(getattr(call.body, "app", None))
    with faults:
        _rules(call).check(call.body, call.caller.app, call.caller.sees)
    faults.done()


def _check_draft(call: ApiRequest) -> None:
    check_when(call.body.on, call.body.alert)


async def list_rules(call: ApiRequest) -> ApiResponse:
    query = call.query or Page()
    page = await call.read(lambda: _rules(call).page(call.caller.sees, query.limit, query.cursor))
    return success(rules=[rule_json(rule) for rule in page.rules], next_cursor=page.next_cursor)


async def create_rule(call: ApiRequest) -> ApiResponse:
    _must_send(call)
    write = _rules(call).create_write(call.body, *_watching(call, call.body.app))
    return await call.create(call.services.notification_writes, write, lambda rule: success(201, rule=rule_json(rule)))


async def get_rule(call: ApiRequest) -> ApiResponse:
    named = _named(call)
    return _one(await call.read(lambda: _rules(call).get(named)))


async def change_rule(call: ApiRequest) -> ApiResponse:
    _must_send(call)
    write = _rules(call).change_write(_named(call), call.body, call.caller.sees)
    return _one(await call.services.notification_writes.run(write))


async def remove_rule(call: ApiRequest) -> ApiResponse:
    return _one(await call.services.notification_writes.run(_rules(call).delete_write(_named(call))))


async def dismiss_rule_error(call: ApiRequest) -> ApiResponse:
    return _one(await call.services.notification_writes.run(_rules(call).dismiss_error_write(_named(call))))


async def dry_run_rule(call: ApiRequest) -> ApiResponse:
    named = _named(call)
    return success(**to_json_types(await call.read(lambda: _rules(call).dry_run_of(named))))


async def dry_run_rule_draft(call: ApiRequest) -> ApiResponse:
    _, watches = _watching(call, call.body.app)
    return success(**to_json_types(await call.read(lambda: _rules(call).dry_run(call.body, watches))))


_RULE = {
    "on": {"activity_type": "checkout_failed", "times": 3, "within_minutes": 10,
           "where": [{"field": "metadata.plan", "op": "eq", "value": "pro"}]},
    "send": {"title": "Trouble paying?", "message": "{page_url} failed {times} times."},
}  # fmt: skip
RULE = response_type("RuleAnswer", rule=Rule)
DRY_RUN = response_type(
    "RuleDryRunAnswer", would_have_fired=int, examples=EXAMPLES, days=int, judged=int, complete=bool
)
ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/rules", scope="manage", handler=list_rules, query=Page,
        summary="List this app's rules, newest first", answer="rules, next_cursor",
        responses={200: page_type("RulesAnswer", "rules", Rule)},
    ),
    Endpoint(
        method="POST", path="/api/rules", scope="manage", handler=create_rule, body=RuleIn, creates=True,
        example=_RULE | {"name": "checkout-trouble"}, refusals=(409,),
        check=_check,
        summary="Create a rule that sends a notification on an event; needs the scope send too",
        answer="201 rule; 409 if this app has a rule of that name, or 200 rules",
        responses={201: RULE},
    ),
    Endpoint(
        method="POST", path="/api/rules/dry-run", scope="manage", handler=dry_run_rule_draft, body=RuleDraftIn,
        example={"on": {"activity_type": "checkout_failed"}},
        check=_check_draft,
        summary="How often a draft rule would have fired in the last seven days",
        answer="would_have_fired, examples (the newest ten), days, judged, complete", responses={200: DRY_RUN},
    ),
    Endpoint(
        method="GET", path="/api/rules/{name}", scope="manage", handler=get_rule, query=RuleQuery,
        refusals=(409,),
        summary="One rule; last_error says why a notification could not be sent, until it is dismissed",
        answer="rule", responses={200: RULE},
    ),
    Endpoint(
        method="PUT", path="/api/rules/{name}", scope="manage", handler=change_rule, body=RuleChangeIn,
        example=_RULE, refusals=(409,),
        query=RuleQuery, check=_check, summary="Replace a rule; needs the scope send too", answer="rule",
        responses={200: RULE},
    ),
    Endpoint(
        method="DELETE", path="/api/rules/{name}", scope="manage", handler=remove_rule, query=RuleQuery,
        refusals=(409,),
        summary="Delete a rule; sent notifications stay", answer="the deleted rule", responses={200: RULE},
    ),
    Endpoint(
        method="POST", path="/api/rules/{name}/dismiss-error", scope="manage", handler=dismiss_rule_error,
        refusals=(409,),
        query=RuleQuery, summary="Clear a rule's last_error", answer="rule", responses={200: RULE},
    ),
    Endpoint(
        method="POST", path="/api/rules/{name}/dry-run", scope="manage", handler=dry_run_rule, query=RuleQuery,
        refusals=(409,),
        summary="How often this rule would have fired in the last seven days",
        answer="would_have_fired, examples (the newest ten), days, judged, complete", responses={200: DRY_RUN},
    ),
)  # fmt: skip
