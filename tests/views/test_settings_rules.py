"""The rules in Settings, built over a real backend without a page, and their texts."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import flet as ft
import pytest

from flashflow.backend import Backend, Rule, RuleRef
from flashflow.views.settings.rule_labels import (
    action_text,
    condition_text,
    dry_run_text,
    history_text,
    interval_text,
    name_for,
    period_text,
)
from flashflow.views.settings.screen import Settings
from flashflow.views.shared.live import Live
from tests.support.control_tree import named, texts, walk
from tests.views.test_settings import Turned, drawn, field, switch

pytestmark = pytest.mark.anyio

SEND = {"title": "Sorry", "message": "Payment failed."}
THRICE = {"activity_type": "checkout_failed", "times": 3, "within_minutes": 10}


def screen_over(backend: Backend) -> Settings:
    live = Live(backend.bus, backend.me, asyncio.get_running_loop())
    return Settings(backend=backend, live=live, go=lambda _: None, wide=True)


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "first", "second"),
    [
        ({"on": THRICE}, "When checkout_failed happens 3 times within 10 min",
         "Notifies the user with “Sorry”, at most once an hour"),
        ({"on": {"activity_type": "x"}, "to": ["ada"], "cooldown_minutes": 0}, "When x happens",
         "Notifies you with “Sorry”"),
        ({"on": {"activity_type": "x", "times": 2, "within_minutes": 1440, "where": [
            {"field": "metadata.plan", "op": "in", "value": ["pro", True, 5]},
            {"field": "page_url", "op": "exists", "value": False}]},
          "to": ["ada", "bob", "cem", "dan", "eve"], "cooldown_minutes": 90},
         "When x happens 2 times within 1 day where metadata.plan is one of pro, true, 5 and page_url is missing",
         "Notifies you, bob, cem and 2 others with “Sorry”, at most once in 90 min"),
        ({"alert": {"metric": "active_users", "change_percent": -50}, "to": ["bob"], "cooldown_minutes": 0},
         "When active users fall by 50 % or more compared with the same weekday last week",
         "Notifies bob with “Sorry”, at most once a day"),
    ],
)  # fmt: skip
async def test_a_rule_reads_as_a_sentence(backend: Backend, fields: dict[str, Any], first: str, second: str) -> None:
    rule = backend.rules.create("r", **{"send": SEND} | fields)
    assert (condition_text(rule), action_text(rule, "ada")) == (first, second)


def test_periods_and_rule_names() -> None:
    assert [period_text(minutes) for minutes in (1, 59, 60, 90, 120, 1440, 10080)] == [
        "1 min", "59 min", "1 hour", "90 min", "2 hours", "1 day", "1 week",
    ]  # fmt: skip
    assert [interval_text(minutes) for minutes in (60, 1440, 10080, 120)] == [
        "an hour",
        "a day",
        "a week",
        "in 2 hours",
    ]
    assert name_for("checkout failed/é", {"checkout-failed"}) == "checkout-failed-2"
    assert (name_for("Ω", set()), name_for("dry-run", set())) == ("rule", "dry-run-2")


async def test_the_history_has_a_count_and_a_relative_time(backend: Backend) -> None:
    screen = screen_over(backend)
    rule = backend.rules.create("r", on={"activity_type": "x"}, send=SEND, cooldown_minutes=0)
    assert history_text(rule, screen.now()) == "Has not fired yet"
    for _ in range(3):
        backend.activity.track_activity("ada", "x")
    backend.rules.evaluator.evaluate_new()
    rule = backend.rules.get(RuleRef("r"))
    assert rule.last_fired_at is not None
    assert history_text(rule, rule.last_fired_at + timedelta(minutes=4)) == "Fired 3 times, last 4 min ago"
    assert dry_run_text(backend.rules.dry_run_of(RuleRef("r"))) == "Would have fired 3 times in the last 7 days."


# --- the screen -------------------------------------------------------------------------------------------------------


def rules_of(backend: Backend) -> tuple[Rule, ...]:
    return backend.rules.page().rules


async def test_a_rule_is_switched_tried_and_deleted_after_a_confirmation(backend: Backend) -> None:
    backend.rules.create("late", on=THRICE, send=SEND)
    for _ in range(7):
        backend.activity.track_activity("bob", "checkout_failed")
    screen = screen_over(backend)
    page = drawn(screen)
    assert "When checkout_failed happens 3 times within 10 min" in texts(page)
    assert "Notifies the user with “Sorry”, at most once an hour" in texts(page)
    await named(page, "Dry run: late").on_click(None)
    assert "Would have fired once in the last 7 days." in texts(page)

    on = switch(page, "Rule late")
    on.value = False
    await on.on_change(Turned(on))  # type: ignore[misc, operator, arg-type]
    assert not rules_of(backend)[0].enabled
    assert not switch(drawn(screen), "Rule late").value
    assert "Would have fired once in the last 7 days." in texts(screen.content), "what was tried stays"  # type: ignore[arg-type]

    await named(page, "Delete: late").on_click(None)
    assert rules_of(backend), "a second question comes first"
    await named(page, "Keep: late").on_click(None)
    await named(page, "Delete: late").on_click(None)
    await named(page, "Delete for good: late").on_click(None)
    assert rules_of(backend) == ()
    assert any(text.startswith("No rules yet.") for text in texts(drawn(screen)))


async def test_an_error_is_shown_with_the_rule_until_it_is_dismissed(backend: Backend) -> None:
    backend.rules.create("r", on={"activity_type": "x"}, send={"title": "t", "message": "{metadata_plan}"})
    backend.activity.track_activity("bob", "x")
    backend.rules.evaluator.evaluate_new()
    screen, words = screen_over(backend), "A notification could not be sent just now: data.metadata_plan is missing"
    page = drawn(screen)
    assert words in texts(page)
    await named(page, "Dismiss the error: r").on_click(None)
    assert rules_of(backend)[0].last_error is None
    assert words not in texts(drawn(screen))


async def test_the_form_makes_a_rule_for_me_or_for_the_user(backend: Backend) -> None:
    screen = screen_over(backend)
    page = drawn(screen)

    async def add(*typed: tuple[str, str], whom: str = "me") -> None:
        await named(page, "Add a rule").on_click(None)
        for label, text in typed:
            field(page, label).value = text
        group = [c for c in walk(page) if isinstance(c, ft.RadioGroup)][-1]
        group.value = whom
        await named(page, "Save the new rule").on_click(None)
        drawn(screen)

    words = (("Title", "Sorry"), ("Message", "{user_id} could not pay"))
    await add(("Activity type", "checkout failed"), ("Times", "3"), ("Within minutes", "10"), *words)
    await add(("Activity type", "checkout failed"), ("Minutes between notifications", "0"), *words, whom="user")
    newest, first = rules_of(backend)
    assert (first.name, first.to, first.cooldown_minutes) == ("checkout-failed", ["ada"], 60)
    assert first.on is not None
    assert (first.on.activity_type, first.on.times, first.on.within_minutes) == ("checkout failed", 3, 10)
    assert (newest.name, newest.to, newest.cooldown_minutes) == ("checkout-failed-2", "user", 0)
    assert field(page, "Activity type").value == "", "the form is empty for the next"


async def test_form_errors_are_shown_at_their_field(backend: Backend) -> None:
    page = drawn(screen_over(backend))
    await named(page, "Add a rule").on_click(None)
    save = named(page, "Save the new rule").on_click
    field(page, "Times").value = "three"
    await save(None)
    assert field(page, "Times").error == "This must be a whole number."
    assert {field(page, label).error for label in ("Activity type", "Title", "Message")} == {"This is required."}
    field(page, "Activity type").value = "x"
    field(page, "Times").value = "3"
    field(page, "Title").value, field(page, "Message").value = "t", "m"
    await save(None)
    assert field(page, "Times").error is None
    assert field(page, "Within minutes").error == "This is required where times is more than 1."
    field(page, "Within minutes").value = "5"
    field(page, "Message").value = "{nobody}"
    await save(None)
    assert str(field(page, "Message").error).startswith("This names {nobody}")
    assert rules_of(backend) == ()


async def test_a_fired_rule_refreshes_the_list(backend: Backend) -> None:
    heard: list[str] = []
    backend.bus.subscribe(lambda events: heard.extend(event.kind for event in events))
    backend.rules.create("r", on={"activity_type": "x"}, send=SEND)
    backend.activity.track_activity("bob", "x")
    before = heard.count("rule")
    backend.rules.evaluator.evaluate_new()
    assert heard.count("rule") == before + 1 == 2
