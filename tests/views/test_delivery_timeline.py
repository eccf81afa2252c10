"""The detail view of a notification: deliveries, attempts and actions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import flet as ft
import pytest

from flashflow.backend import Action, Attempt, Decided, Delivery, NotificationDetail
from flashflow.views.notifications.actions import NotificationActions, tomorrow_morning
from flashflow.views.notifications.detail import detail_view
from flashflow.views.shared.delivery_labels import SENT_TO_THIS_COMPUTER, current_outcome
from tests.support.control_tree import NOW, named, sample_notification, texts, walk


async def _nothing(_: object) -> None: ...


DO = NotificationActions(*[_nothing] * 9)


def delivery(status: str = "failed", channel: str = "email", **changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "id": f"d-{channel}",
        "target": None,
        "code": None,
        "reason": None,
        "created_at": NOW,
        "updated_at": NOW,
        "next_attempt_at": None,
    }
    return Delivery(channel=channel, status=status, **{**fields, **changes})


def attempt(outcome: str = "permanent", code: str = "smtp_550", text: str = "5.1.1 No such user") -> Attempt:
    return Attempt(started_at=NOW, duration_ms=1_250, outcome=outcome, code=code, text=text)


def shown(*deliveries: Delivery, all_attempts: bool = False, **changes: Any) -> ft.Column:
    detail = NotificationDetail(notification=sample_notification(1, **changes), deliveries=deliveries)
    return detail_view(detail, NOW, DO, all_attempts=all_attempts)


def buttons(view: ft.BaseControl) -> set[str]:
    kinds = (ft.Button, ft.OutlinedButton, ft.FilledTonalButton, ft.TextButton, ft.FilledButton, ft.PopupMenuButton)
    return {
        str(c.tooltip if isinstance(c, ft.PopupMenuButton) else c.content) for c in walk(view) if isinstance(c, kinds)
    }


def test_the_detail_has_a_timeline_and_opens_only_web_links() -> None:
    actions = (Action(label="Open run", url="https://ci.example/1"), Action(label="Bad", url="javascript:alert(1)"))
    refused = delivery(target="ada@example.test", code="not_configured", reason="E-mail is not configured.")
    view = shown(refused, title="<b>x</b> **y**", message="one\n[two](javascript:x)", actions=actions)
    words = texts(view)
    assert {"<b>x</b> **y**", "one\n[two](javascript:x)", "E-mail · ada@example.test"} <= set(words)
    assert {"Failed · 12:00:00", "E-mail is not configured.", "Why you got this"} <= set(words)
    assert not any(isinstance(c, ft.Markdown) for c in walk(view))
    links = {c.content: (getattr(c.url, "url", None), c.disabled) for c in walk(view) if isinstance(c, ft.Button)}
    assert links["Open run"] == ("https://ci.example/1", False)
    bad = named(view, "Bad")
    assert bad.url is None
    assert bad.disabled


def test_an_imported_notification_has_no_deliveries() -> None:
    assert "It was imported without its deliveries." in texts(shown(status="delivered"))
    assert "It has not been handed to a channel yet." in texts(shown(status="pending"))


def test_every_attempt_is_shown_with_the_providers_text() -> None:
    text = "5.1.1 No such user"
    view = shown(
        delivery(code="smtp_550", reason=text, attempts=(attempt("transient", "smtp_451", "later"), attempt()))
    )
    words = texts(view)
    assert "2 attempts" in words
    assert {"12:00:00 · 1.2 s · Temporary failure", "smtp_451 · later"} <= set(words)
    assert {"12:00:00 · 1.2 s · Refused", f"smtp_550 · {text}"} <= set(words)
    assert text not in words, "the reason is said once, with the try that gave it"


def test_only_the_latest_attempts_are_shown_until_all_are_requested() -> None:
    tries = tuple(attempt(text=f"no {i}") for i in range(34))
    folded, unfolded = shown(delivery(attempts=tries)), shown(delivery(attempts=tries), all_attempts=True)
    assert "Show all 34 attempts" in buttons(folded)
    assert "smtp_550 · no 33" in texts(folded)
    assert "smtp_550 · no 0" not in texts(folded)
    assert "Show all 34 attempts" not in buttons(unfolded)
    assert "smtp_550 · no 0" in texts(unfolded)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"next_attempt_at": NOW + timedelta(seconds=90), "attempts": (attempt("transient"),)},
            "Next attempt at 12:01:30",
        ),
        ({"next_attempt_at": NOW - timedelta(seconds=1), "attempts": (attempt("transient"),)}, "Next attempt now"),
        (
            {
                "next_attempt_at": NOW + timedelta(seconds=90),
                "attempts": (attempt("transient"),),
                "retry_until": NOW + timedelta(hours=19),
            },
            "Next attempt at 12:01:30, repeated until tomorrow, 07:00",
        ),
        ({"status": "held", "release_at": NOW + timedelta(hours=19)}, "Will be sent tomorrow, 07:00"),
        ({"status": "held", "release_at": NOW + timedelta(hours=2)}, "Will be sent at 14:00"),
    ],
)
def test_the_next_step_has_its_time(changes: dict[str, Any], words: str) -> None:
    assert words in texts(shown(delivery(**{"status": "pending", **changes})))


@pytest.mark.parametrize(
    ("deliveries", "offered"),
    [
        ((delivery("failed"),), True),
        ((delivery("dead"),), True),
        ((delivery("pending", attempts=(attempt("transient"),)),), True),
        ((delivery("pending"),), False),
        ((delivery("sent"), delivery("suppressed", "sms")), False),
        ((delivery("failed", "in_app"),), False),
    ],
)
def test_retry_now_is_offered_for_retryable_deliveries(deliveries: tuple[Delivery, ...], offered: bool) -> None:
    assert ("Retry now" in buttons(shown(*deliveries))) is offered


def test_a_cancelled_notification_cannot_be_retried() -> None:
    assert "Retry now" not in buttons(shown(delivery("failed"), status="cancelled", inbox=None))


def test_a_held_digest_can_be_sent_now() -> None:
    held = delivery("held", code="digest", reason="Waits for the daily digest.")
    assert "Send the digest now" in buttons(shown(held))
    assert "Send the digest now" not in buttons(shown(delivery("held", code="quiet_hours")))


@pytest.mark.parametrize(
    ("inbox", "offered"),
    [
        ("unread", {"Mark read", "Snooze", "Archive"}),
        ("read", {"Mark unread", "Snooze", "Archive"}),
        ("snoozed", {"Wake now", "Snooze", "Archive"}),
        ("archived", {"Move to inbox"}),
        (None, set()),
    ],
)
def test_each_inbox_state_offers_its_actions(inbox: str | None, offered: set[str]) -> None:
    assert buttons(shown(inbox=inbox)) == offered


def test_the_count_and_the_end_of_the_snooze_are_shown() -> None:
    words = texts(shown(count=3, inbox="snoozed", snoozed_until=NOW + timedelta(hours=20)))
    assert {"×3", "Snoozed until tomorrow, 08:00"} <= set(words)


def test_own_reasons_are_in_the_second_person_and_a_providers_text_is_unchanged() -> None:
    mine = delivery(code="no_address", reason="The user has no e-mail address.")
    theirs = delivery(code="smtp_552", reason="The user has exceeded the quota.")
    assert "You have no e-mail address." in texts(shown(mine))
    assert "The user has exceeded the quota." in texts(shown(theirs))


def test_the_current_outcome_includes_broken_channels() -> None:
    push = Decided(channel="push", status="pending", code="queued", reason=SENT_TO_THIS_COMPUTER)
    phone = Decided(channel="push", status="pending", code="queued", reason="On its way.")
    off = Decided(channel="email", status="suppressed", code="channel_off", reason="The user turned e-mail off.")
    broken = {"desktop": "There is no session."}
    assert current_outcome(push)[0].word == "reaches you"
    assert (current_outcome(push, broken)[0].word, current_outcome(push, broken)[1]) == (
        "does not reach you",
        "There is no session.",
    )
    assert current_outcome(phone, broken)[0].word == "reaches you"
    assert (current_outcome(off)[0].word, current_outcome(off)[1]) == ("is not used", "You turned e-mail off.")


def test_tomorrow_morning_is_eight_by_the_wall_clock_across_a_dst_change() -> None:
    before = datetime(2026, 10, 24, 23, 30, tzinfo=ZoneInfo("Europe/Berlin"))  # clocks go back in the night
    assert tomorrow_morning(before).isoformat() == "2026-10-25T08:00:00+01:00"
    assert tomorrow_morning(datetime(2026, 11, 22, 0, 10, tzinfo=ZoneInfo("UTC"))) == datetime(
        2026, 11, 23, 8, tzinfo=UTC
    )
